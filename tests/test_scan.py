"""Ways through a sequence: each is the plain loop, in values and gradients, wherever episodes begin."""

from typing import NamedTuple

import pytest
import torch

from relmem.agents import MemoryCore, check_core
from relmem.agents.cores.scan import (
    _prefixes,
    _recur,
    channel_matrix_scan,
    in_segments,
    linear_scan,
    log_matrix_scan,
    loop,
    matrix_scan,
    reset_free_segments,
)
from tests.parity import assert_same

LENGTHS = pytest.mark.parametrize("T", [1, 2, 63, 64, 65, 300])
EPISODES = pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
B, K, V, H = 3, 4, 5, 2


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def rates(*shape):
    return torch.rand(*shape, dtype=torch.float64).requires_grad_()


@LENGTHS
@EPISODES
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_the_linear_scan_is_the_loop(T, p, dtype):
    decay, write, state, initial = sources = [
        torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((T, B, K), (T, B, K), (B, K), (K,))
    ]
    decay = torch.rand_like(decay.real) * decay / decay.abs()
    starts, h, expected = torch.rand(T, B) < p, state, []
    for t in range(T):
        h = torch.where(starts[t].unsqueeze(1), initial, h) * decay[t] + write[t]
        expected.append(h)
    assert_same([linear_scan(decay, write, state, starts, initial)], [torch.stack(expected)], sources)


def test_the_decay_of_a_linear_scan_may_broadcast():
    T = 9
    decay, write, state = rates(K), draw(T, B, K), draw(B, K)
    starts = torch.rand(T, B) < 0.2
    expected = linear_scan(decay.expand(T, B, K).clone(), write, state, starts)
    assert_same([linear_scan(decay, write, state, starts)], [expected], [decay, write, state])


@LENGTHS
@EPISODES
@pytest.mark.parametrize("reverse", [False, True])
def test_pairs_of_neighbours_give_what_step_after_step_does(T, p, reverse):
    """The two ways through a linear scan, of which a GPU takes the one and a CPU the other."""
    decay, added, h = torch.rand(T, B, K).double(), torch.randn(T, B, K).double(), torch.randn(B, K).double()
    fresh, out = torch.rand(T, B, 1) < p, torch.empty(T, B, K).double()
    _recur(decay, added, h, fresh, out, reverse)
    if reverse:
        decay, added, fresh, out = (part.flip(0) for part in (decay, added, fresh, out))
    first = torch.where(fresh[:1], added[:1], added[:1] + decay[:1] * h)
    torch.testing.assert_close(_prefixes(decay, torch.cat([first, added[1:]]), fresh), out)


@LENGTHS
@EPISODES
def test_the_scan_of_matrices_is_the_loop(T, p):
    sources = query, key, value, decay, state, initial = (
        draw(T, B, K), draw(T, B, K), draw(T, B, V), rates(T, B), draw(B, K, V), draw(K, V),
    )  # fmt: skip
    with torch.no_grad():
        decay[T // 2] = 0  # forgets everything
    starts, memory, expected = torch.rand(T, B) < p, state, []
    for t in range(T):
        memory = torch.where(starts[t].view(B, 1, 1), initial, memory) * decay[t].view(B, 1, 1)
        memory = memory + key[t].unsqueeze(2) * value[t].unsqueeze(1)
        expected.append((query[t].unsqueeze(1) @ memory).squeeze(1))
    got = matrix_scan(query, key, value, decay, state, starts, initial)
    assert_same(got, (torch.stack(expected), memory), sources)


def heads(T):
    """Queries, keys, values and first memories of two heads, and where episodes begin."""
    return draw(T, B, H, K), draw(T, B, H, K), draw(T, B, H, V), draw(B, H, K, V)


def matrix_loop(query, key, value, decay, state, starts):
    """S_t = decay_t S_{t-1} + k_t v_tᵀ with decays [T, B, H, k or 1], from zero in every episode."""
    reads, memory = [], state
    for t in range(len(query)):
        memory = torch.where(starts[t].view(B, 1, 1, 1), 0, memory) * decay[t].unsqueeze(-1)
        memory = memory + key[t].unsqueeze(-1) * value[t].unsqueeze(-2)
        reads.append((query[t].unsqueeze(-2) @ memory).squeeze(-2))
    return torch.stack(reads), memory


@LENGTHS
@EPISODES
def test_the_scan_of_matrices_takes_heads_and_a_decay_for_all_steps(T, p):
    (query, key, value, state), decay, starts = heads(T), rates(H), torch.rand(T, B) < p
    got = matrix_scan(query, key, value, decay.view(1, 1, H), state, starts)
    expected = matrix_loop(query, key, value, decay.view(1, 1, H, 1).expand(T, B, H, 1), state, starts)
    assert_same(got, expected, [query, key, value, decay, state])


@LENGTHS
@EPISODES
def test_the_scan_with_a_decay_for_each_channel_is_the_loop(T, p):
    (query, key, value, state), starts = heads(T), torch.rand(T, B) < p
    log_decay = (-5 * torch.rand(T, B, H, K, dtype=torch.float64) ** 3).requires_grad_()
    got = channel_matrix_scan(query, key, value, log_decay, state, starts)
    expected = matrix_loop(query, key, value, log_decay.exp(), state, starts)
    assert_same(got, expected, [query, key, value, log_decay, state])


@LENGTHS
@EPISODES
def test_the_scan_in_logarithms_is_the_loop(T, p):
    (query, key, value, state), stabiliser, starts = heads(T), draw(B, H), torch.rand(T, B) < p
    log_write, log_decay = draw(T, B, H), torch.log(rates(T, B, H))
    reads, stabilisers, m, memory = [], [], stabiliser, state
    for t in range(T):
        m, memory = torch.where(starts[t].unsqueeze(1), 0, m), torch.where(starts[t].view(B, 1, 1, 1), 0, memory)
        before, m = m, torch.maximum(log_decay[t] + m, log_write[t])
        decay, write = (log_decay[t] + before - m).exp(), (log_write[t] - m).exp()
        memory = decay.view(B, H, 1, 1) * memory
        memory = memory + write.view(B, H, 1, 1) * key[t].unsqueeze(-1) * value[t].unsqueeze(-2)
        reads.append((query[t].unsqueeze(-2) @ memory).squeeze(-2))
        stabilisers.append(m)
    got = log_matrix_scan(query, key, value, log_write, log_decay, state, stabiliser, starts)
    expected = torch.stack(reads), torch.stack(stabilisers), memory, m
    assert_same(got, expected, [query, key, value, log_write, log_decay, state, stabiliser])


def test_channels_may_fade_as_fast_as_float32_allows():
    T = 64
    (query, key, value, state), starts = heads(T), torch.rand(T, B) < 0.1
    log_decay = torch.where(torch.rand(T, B, H, K) < 0.7, -5.0, 0.0).requires_grad_()
    query, key, value, state = (tensor.detach().float().requires_grad_() for tensor in (query, key, value, state))
    read, end = channel_matrix_scan(query, key, value, log_decay, state, starts)
    expected, expected_end = matrix_loop(query, key, value, log_decay.exp(), state, starts)
    torch.testing.assert_close((read, end), (expected, expected_end), rtol=1e-4, atol=1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(read.sum(), [query, key, value, log_decay]))


def test_channels_that_had_faded_before_a_reset_leave_gradients_finite():
    query, key, value, state = (tensor.detach().float().requires_grad_() for tensor in heads(32))
    log_decay = torch.zeros(32, B, H, K)
    log_decay[:28] = -5.0
    log_decay.requires_grad_()
    starts = torch.zeros(32, B, dtype=torch.bool)
    starts[28, 0] = True
    read, end = channel_matrix_scan(query, key, value, log_decay, state, starts)
    gradients = torch.autograd.grad(read.sum() + end.sum(), [query, key, value, log_decay, state])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_writes_beyond_what_float32_can_hold_stay_finite():
    T = 70
    query, key, value, state = (tensor.detach().float() for tensor in heads(T))
    log_write = torch.linspace(-500, 500, T).view(T, 1, 1).expand(T, B, H).clone().requires_grad_()
    starts, log_decay = torch.zeros(T, B, dtype=torch.bool), torch.full((T, B, H), -0.1)
    read, stabilisers, end, _ = log_matrix_scan(
        query, key, value, log_write, log_decay, state, torch.zeros(B, H), starts
    )
    assert all(tensor.isfinite().all() for tensor in (read, stabilisers, end))
    assert torch.autograd.grad(read.sum(), log_write)[0].isfinite().all()


@LENGTHS
@EPISODES
def test_loop_and_segments_are_the_loop(T, p):
    x, state, starts = draw(T, B, K), draw(B, K), torch.rand(T, B) < p

    def step(x, h):
        h = torch.tanh(h + x)
        return 2 * h, h

    def reset(h, starts):
        return torch.where(starts.unsqueeze(1), torch.full_like(h, 0.5), h)

    def run(x, h):
        outputs = []
        for x_t in x:
            y, h = step(x_t, h)
            outputs.append(y)
        return torch.stack(outputs), h

    h, expected = state, []
    for t in range(T):
        y, h = step(x[t], reset(h, starts[t]))
        expected.append(y)
    outputs, end = loop(step, reset, x, state, starts)
    assert_same([torch.stack(outputs), end], [torch.stack(expected), h], [x, state])
    assert_same(in_segments(run, reset, x, state, starts), [torch.stack(expected), h], [x, state])


def test_segments_end_before_every_reset():
    starts = torch.zeros(6, 2, dtype=torch.bool)
    assert reset_free_segments(starts) == [(0, 6)]
    starts[2, 1] = starts[3, 0] = True
    assert reset_free_segments(starts) == [(0, 2), (2, 3), (3, 6)]


@pytest.mark.parametrize("junk", [float("inf"), float("nan")])
def test_what_has_overflowed_does_not_pass_a_reset(junk):
    T = 70
    starts = torch.zeros(T, B, dtype=torch.bool)
    starts[[0, 66], 0] = True
    decay, write, query, value = rates(T, B), draw(T, B, K), draw(T, B, K), draw(T, B, V)
    state, matrix = draw(B, K) * junk, draw(B, K, V) * junk
    h = linear_scan(decay.unsqueeze(2), write, state, starts)
    y, end = matrix_scan(query, write, value, decay, matrix, starts)
    by_channel, channel_end = channel_matrix_scan(
        query, write, value, -decay.unsqueeze(2).expand(T, B, K), matrix, starts
    )
    in_logs, _, log_end, _ = log_matrix_scan(query, write, value, decay, -decay, matrix, state[:, 0], starts)
    for tensor in (h[:, 0], y[:, 0], end[0], by_channel[:, 0], channel_end[0], in_logs[:, 0], log_end[0]):
        assert tensor.isfinite().all()
    total = sum(tensor[:, 0].sum() for tensor in (h, y, by_channel, in_logs))
    gradients = torch.autograd.grad(total, [write, query, value, decay])
    assert all(gradient[:, 0].isfinite().all() for gradient in gradients)


class Matrix(NamedTuple):
    memory: torch.Tensor  # [B, k, v]


class LinearAttention(MemoryCore):
    """A core of a later kind: a matrix memory with a learned decay, in about thirty lines."""

    def __init__(self, input_size, output_size=None, key_size=4):
        super().__init__(input_size, output_size or 8, Matrix, ((key_size, output_size or 8),))
        self.query, self.key = torch.nn.Linear(input_size, key_size), torch.nn.Linear(input_size, key_size)
        self.value, self.rate = torch.nn.Linear(input_size, self.output_size), torch.nn.Linear(input_size, 1)

    def project(self, x):
        return self.query(x), self.key(x), self.value(x), self.rate(x).sigmoid().squeeze(-1)

    def step(self, x, state):
        query, key, value, decay = self.project(x)
        memory = torch.addcmul(key.unsqueeze(2) * value.unsqueeze(1), decay.view(-1, 1, 1), state.memory)
        return (query.unsqueeze(1) @ memory).squeeze(1), Matrix(memory)

    def sequence(self, x, state, starts, since):
        y, memory = matrix_scan(*self.project(x), state.memory, starts, self.initial_state(1).memory)
        return y[since:], Matrix(memory)


def test_a_core_of_matrices_keeps_the_contract():
    check_core(LinearAttention(6).double())
