"""Modular arithmetic: a finite state with two registers, a sum and a product."""

from __future__ import annotations

from typing import Annotated

import torch

from ..common.options import Count, Range, require_option, require_options
from . import draw
from .base import Batch, VaryingLengthTask
from .registry import register_task

PLUS, MINUS, TIMES = range(3)


@register_task("modular_arithmetic")
class ModularArithmetic(VaryingLengthTask):
    """The value of an expression such as 3 + 4 · 2 - 1, modulo ``modulus``, at its last number.

    Numbers and operators alternate, one a step, one-hot: numbers 0 to ``modulus`` - 1, then +, -, ·, all uniform.
    Products go before sums, and there are no brackets: the language is regular (Delétang et al. 2023, "modular
    arithmetic (simple)"; greatest lengths of Beck et al. 2024, made odd). The length counts numbers and operators, so
    it is odd: uniform from 1 to ``max_length``, one for each batch; the set ``test`` has the greatest and
    ``test_<long_length>`` measures generalisation to longer expressions.

    The trivial level: the most likely value, which is 0, because products favour it. Its probability is computed by
    following the distribution of (sum of the finished terms, current term) through the expression.

    :param max_length: greatest length in training
    :param long_length: length of the set for generalisation
    :param modulus: at least 2
    """

    kind = "class"

    def __init__(self, max_length: Count = 39, long_length: Count = 255, modulus: Annotated[int, Range(2)] = 5) -> None:
        require_options(ModularArithmetic, locals())
        longer = Range(max_length, above=True, why="max_length")
        require_option("long_length", Annotated[int, longer], long_length)
        if max_length % 2 == 0 or long_length % 2 == 0:
            raise ValueError(f"max_length and long_length must be odd, got {max_length} and {long_length}")
        super().__init__(range(1, max_length + 1, 2), (max_length, long_length))
        self.modulus = modulus
        self.input_size, self.output_size = modulus + 3, modulus

    def sample(self, size: int, length: int, generator: torch.Generator) -> Batch:
        numbers = draw.integers(self.modulus, (length // 2 + 1, size), generator)
        operators = draw.integers(3, (length // 2, size), generator)
        symbols = numbers.new_empty(length, size)
        symbols[0::2], symbols[1::2] = numbers, self.modulus + operators
        return Batch(draw.one_hot(symbols, self.input_size), self._value(numbers, operators))

    def _value(self, numbers: torch.Tensor, operators: torch.Tensor) -> torch.Tensor:
        total, term = torch.zeros_like(numbers[0]), numbers[0]  # [B], [B]
        for operator, number in zip(operators, numbers[1:], strict=True):
            times = operator == TIMES
            total = torch.where(times, total, total + term)
            signed = torch.where(operator == MINUS, -number, number)
            term = torch.where(times, term * number, signed) % self.modulus
        return (total + term) % self.modulus

    def trivial_at(self, length: int) -> dict[str, float]:
        residues = torch.arange(self.modulus)
        product = draw.one_hot(residues[:, None] * residues % self.modulus, self.modulus)  # [term, number, next term]
        times = product.double().mean(dim=1)  # [term, next term]
        value = draw.one_hot((residues[:, None] + residues) % self.modulus, self.modulus).double()  # [sum, term, value]
        state = torch.zeros(self.modulus, self.modulus, dtype=torch.float64)  # [sum, term]
        state[0] = 1 / self.modulus
        for _ in range(length // 2):
            # After + and - the old term joins the sum, and the new one is uniform with either sign.
            summed = torch.einsum("st,stv->v", state, value)[:, None] / self.modulus
            state = state @ times / 3 + summed * 2 / 3
        return {"most likely value": float(torch.einsum("st,stv->v", state, value).max())}
