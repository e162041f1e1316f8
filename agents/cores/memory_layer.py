"""Product keys (Lample et al. 2019, "Large Memory Layers with Product Keys"): a memory in parameters, not in the state.

https://arxiv.org/abs/1907.05242
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.options import Count, require_options
from .core import MemoryCore, full_precision, output_map
from .identity import IdentityState
from .registry import register_core


@register_core("memory_layer")
class MemoryLayerCore(MemoryCore):
    """A table of n² values, of which each input looks up k by keys that are pairs of n sub-keys:

        q_p = LN(W_p x + b_p),  p = 1, 2                      of each head
        I = the k largest of q_1 · c_i + q_2 · c'_j           over all pairs (i, j)
        y = Σ softmax over I of these scores, times v_ij      summed over heads

    Each head has W_p, b_p and sub-keys c and c' of its own; all share the values v, and the scale and shift of LN,
    which q_1 and q_2 share too. The k best pairs are among those of the k best sub-keys of each kind, so that 2n
    products are enough. The paper normalises queries over a batch; here each is normalised by itself, since rows must
    not mix.

    It carries nothing from step to step: what it remembers are facts of all episodes, learned by gradients. Good as a
    large and cheap layer before or behind a core that has a state (``StackedCore``), alone it is a baseline like
    ``identity``, and bad at every task of memory. With ``residual`` it stands in a block, as in the paper.

    The output is y, followed by a linear map where ``output_size`` is given.

    :param hidden_size: of a value; the natural output width
    :param keys: number n of sub-keys of each kind; there are n² values
    :param top: number k of values that a head looks up, at most ``keys``
    :param heads: number of heads, each with its own queries and sub-keys; they share the values
    :param key_size: width of a sub-key
    :raises ValueError: if a size is not a positive integer, or ``top`` is larger than ``keys``
    """

    def __init__(
        self,
        input_size: Count,
        output_size: Count | None = None,
        hidden_size: Count = 128,
        keys: Count = 64,
        top: Count = 16,
        heads: Count = 4,
        key_size: Count = 32,
    ) -> None:
        require_options(MemoryLayerCore, locals())
        if top > keys:
            raise ValueError(f"top must be at most keys, {keys}; got {top}")
        super().__init__(input_size, hidden_size if output_size is None else output_size, IdentityState, ((1,),))
        self.top, self.heads = top, heads
        self.query = nn.Linear(input_size, heads * 2 * key_size)
        self.query_norm = nn.LayerNorm(key_size)
        self.keys = nn.Parameter(torch.randn(heads, 2, keys, key_size) * key_size**-0.5)
        self.values = nn.Parameter(torch.randn(keys**2, hidden_size) * hidden_size**-0.5)
        self.out = output_map(hidden_size, output_size)

    @full_precision
    def step(self, x: Tensor, state: IdentityState) -> tuple[Tensor, IdentityState]:
        return self.out(self._look_up(x)), state

    def sequence(self, x: Tensor, state: IdentityState, starts: Tensor, since: int) -> tuple[Tensor, IdentityState]:
        y = self._look_up(x[since:].flatten(0, 1)).unflatten(0, (-1, x.shape[1]))
        return self.out(y), self.reset(state, starts.any(dim=0))

    def _look_up(self, x: Tensor) -> Tensor:
        """x [N, F] -> [N, hidden_size]."""
        query = self.query_norm(self.query(x).unflatten(1, (self.heads, 2, -1)))  # [N, H, 2, key_size]
        scores, numbers = torch.einsum("nhpc,hpkc->nhpk", query, self.keys).topk(self.top)  # [N, H, 2, k]
        pairs = (scores[:, :, 0].unsqueeze(3) + scores[:, :, 1].unsqueeze(2)).flatten(2)  # [N, H, k * k]
        places = (numbers[:, :, 0].unsqueeze(3) * self.keys.shape[2] + numbers[:, :, 1].unsqueeze(2)).flatten(2)
        best, at = pairs.topk(self.top)  # [N, H, k]
        weights, chosen = torch.softmax(best, dim=2).flatten(1), places.gather(2, at).flatten(1)  # [N, H * k]
        return F.embedding_bag(chosen, self.values, per_sample_weights=weights, mode="sum")
