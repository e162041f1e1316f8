"""Writes delta_rule.npz: the naive delta rules of fla-org/flash-linear-attention, at commit bc3b101 (MIT).

git clone https://github.com/fla-org/flash-linear-attention && pip install einops
python tests/data/golden/make_delta_rule.py flash-linear-attention
"""

import runpy
import sys
from pathlib import Path

import numpy as np
import torch

T, B, H, K, V = 70, 2, 2, 4, 3


def naive(folder, name):
    """A function of the naive version, and not of the package, which needs a GPU."""
    return runpy.run_path(str(Path(sys.argv[1]) / "fla" / "ops" / folder / "naive.py"))[name]


torch.manual_seed(0)
query, key, value = torch.randn(B, T, H, K), torch.randn(B, T, H, K), torch.randn(B, T, H, V)
key = torch.nn.functional.normalize(key, dim=-1)
write, log_decay, state = torch.rand(B, T, H), -torch.randn(B, T, H).square(), torch.randn(B, H, K, V)

gated = naive("gated_delta_rule", "naive_recurrent_gated_delta_rule")
y_gated, end_gated = gated(query, key, value, write, log_decay, 1.0, state, True)
plain = naive("delta_rule", "delta_rule_recurrence")
heads_first = [part.transpose(1, 2) for part in (K**0.5 * query, key, value, write)]  # it scales the query
y_plain, end_plain = plain(*heads_first, initial_state=state)

arrays = {"query": query, "key": key, "value": value, "write": write, "log_decay": log_decay}
arrays |= {"y_gated": y_gated, "y_plain": y_plain.transpose(1, 2)}
arrays = {name: array.transpose(0, 1) for name, array in arrays.items()}  # time first
arrays |= {"state": state, "end_gated": end_gated, "end_plain": end_plain}
path = Path(__file__).parent / "delta_rule.npz"
np.savez_compressed(path, **{name: array.numpy() for name, array in arrays.items()})
