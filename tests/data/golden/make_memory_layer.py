"""Make memory_layer.npz: a look-up by product keys, computed by lucidrains' product-key-memory.

Source: https://github.com/lucidrains/product-key-memory (MIT License), product_key_memory/product_key_memory.py at
commit COMMIT.
Run: python make_memory_layer.py FILE, where FILE is that file. It needs torch, numpy and einops (0.8.2 was used).
"""

import importlib.util
import sys
import types

import numpy as np
import torch

COMMIT = "cee87da31fb4666f457294d7f82899d6ca7f41d0"  # of 2025-11-01


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    sys.modules["colt5_attention"] = types.ModuleType("colt5_attention")  # for another way to choose keys
    sys.modules["colt5_attention"].topk = None
    spec = importlib.util.spec_from_file_location("pkm", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    memory = module.PKM(6, heads=2, num_keys=5, topk=3, dim_head=4)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        x = torch.randn(7, 3, 6)
        y = memory(x)
    arrays = {name: value.numpy() for name, value in memory.state_dict().items()}
    np.savez_compressed("memory_layer.npz", x=x.numpy(), y=y.numpy(), **arrays)


if __name__ == "__main__":
    main()
