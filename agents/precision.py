"""Which floating-point format large products are computed in: those of feature extractors and supervised memories."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The dtype to compute in under autocast, or None for float32.

    ``auto`` takes bfloat16 only where the hardware multiplies it natively; elsewhere it is emulated and slower than
    float32.
    """
    if precision == "bf16" or (precision == "auto" and has_native_bf16(device)):
        return torch.bfloat16
    return None


def has_native_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run natively: AMX or AVX512-BF16 on a CPU, Ampere or later on a GPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
