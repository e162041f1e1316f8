"""What is shown of the inside of an agent is what is there."""

import numpy as np
import pytest
import torch
from counter_env import ACTION_SPACES, AnyAction, BatchNormFeatures, Counter
from gymnasium import spaces
from small_cores import SMALL, VARIANTS
from stable_baselines3.common.vec_env import DummyVecEnv

from relmem.agents import Agent, MemoryCore, MemoryPPO, make_core, register_core, registered_cores
from relmem.agents.insight import look, numerical_rank, relational_ranks, saliency
from relmem.experiment.scene import as_table, leaf_pictures


class Spaced(Counter):
    """With an observation of three numbers."""

    observation_space = spaces.Box(-3, 3, (3,))


def trained(core="gru", env=lambda: Spaced(100), **policy_kwargs):
    kwargs = {"core": core, "core_kwargs": SMALL.get(core, {}), **policy_kwargs}
    return MemoryPPO("MemoryPolicy", DummyVecEnv([env]), n_steps=8, policy_kwargs=kwargs, seed=1)


def observations(n, seed=0):
    return list(np.random.default_rng(seed).normal(size=(n, 1, 3)).astype(np.float32))


@pytest.mark.parametrize("core", registered_cores())
def test_it_shows_what_the_policy_computes(core):
    model = trained(core)
    agent, memory, start = Agent(model), model.policy.initial_state(1), True
    for t, obs in enumerate(observations(6)):
        seen = look(model.policy, obs, agent.state, start)
        with torch.no_grad():
            starts = torch.tensor([start])
            gates = model.policy.core.gates(model.policy._features(torch.tensor(obs)), memory)
            _, value, _, memory = model.policy.act(torch.tensor(obs), memory, starts)
        assert seen.value == pytest.approx(value.item(), abs=1e-5)
        assert seen.probabilities[0].sum() == pytest.approx(1, abs=1e-5)
        assert agent.act(obs)[0] == seen.probabilities[0].argmax()
        for name, leaf in memory._asdict().items():
            np.testing.assert_allclose(seen.state[name], leaf[0], rtol=1e-4, atol=1e-5)
        assert seen.gates.keys() == gates.keys()
        if t == 2:
            agent.reset(np.array([True]))
        start = t == 2
        memory = model.policy.core.reset(memory, torch.tensor([start]))


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_every_kind_of_action_is_shown(space):
    model = trained(env=lambda: AnyAction(space))
    seen = look(model.policy, np.zeros((1, 1), np.float32), None, True)
    if isinstance(space, spaces.Box):
        assert seen.probabilities == [] and seen.mean.size == seen.deviation.size == np.prod(space.shape)
    else:
        sizes = {spaces.Discrete: [3], spaces.MultiDiscrete: [2, 3], spaces.MultiBinary: [2, 2, 2]}[type(space)]
        assert [p.size for p in seen.probabilities] == sizes and seen.mean is None


def test_looking_changes_nothing():
    model = trained(features_extractor_class=BatchNormFeatures)
    model.policy.set_training_mode(True)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    random = torch.get_rng_state()
    look(model.policy, observations(1)[0], None, True)
    saliency(model.policy, observations(5), None, [True] + [False] * 4)
    assert model.policy.training and (torch.get_rng_state() == random).all()
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("core", "options"), VARIANTS)
def test_decisions_depend_on_no_later_step_and_on_none_before_a_reset(core, options):
    if core == "memory_layer":
        pytest.skip("remembers nothing")
    model = trained(core, core_kwargs={**SMALL.get(core, {}), **options})
    starts = [True, False, False, True, False, False]
    sizes = saliency(model.policy, observations(6), None, starts)
    assert sizes.shape == (6, 6) and np.isfinite(sizes).all()
    assert (
        (np.triu(sizes, 1) == 0).all() and (sizes[3:, :3] == 0).all() and sizes[5, 5] > 0
    )  # a ReLU may be closed before
    assert (sizes[5, 3:5].sum() > 0) == (core != "identity")


def test_saliency_is_the_size_of_the_jacobian():
    class Weighted(MemoryCore):
        """y_t = Σ_s c^(t - s) x_s"""

        def __init__(self, input_size, output_size=None):
            super().__init__(input_size, input_size, make_core("gru", 1).initial_state(1).__class__, ((input_size,),))

        def step(self, x, state):
            y = 0.5 * state[0] + x
            return y, type(state)(y)

    if "weighted" not in registered_cores():
        register_core("weighted")(Weighted)
    model = trained("weighted")
    sizes = saliency(model.policy, observations(4), None, [True, False, False, False])
    size = model.policy.action_net.weight.norm().item()
    np.testing.assert_allclose(sizes[3], size * 0.5 ** np.arange(3, -1, -1), rtol=1e-5)
    last = saliency(model.policy, observations(4), None, [True, False, False, False], every=3)
    np.testing.assert_allclose(last, sizes[[0, 3]], rtol=1e-6)


def test_saliency_goes_on_from_a_state():
    model, obs = trained(), observations(6)
    agent = Agent(model)
    for each in obs[:3]:
        agent.act(each)
    whole = saliency(model.policy, obs, None, [True] + [False] * 5)
    np.testing.assert_allclose(saliency(model.policy, obs[3:], agent.state, [False] * 3), whole[3:, 3:], rtol=1e-4)
    with pytest.raises(ValueError, match="as many observations as starts"):
        saliency(model.policy, obs, None, [True])


def test_the_numerical_rank():
    assert numerical_rank(np.eye(5)) == pytest.approx(5)
    assert numerical_rank(np.ones((4, 6))) == pytest.approx(1)
    assert numerical_rank(np.diag([2.0, 1.0, 1.0])) == pytest.approx(1.5)  # (4 + 1 + 1) / 4
    assert numerical_rank(np.zeros((3, 3))) == 0
    assert np.isnan(numerical_rank(np.array([[np.inf, 1.0], [1.0, np.nan]])))


def test_the_rank_of_the_relational_read_out():
    core = make_core("lstm_stm", 3, **SMALL["lstm_stm"])
    ((name, (rank, bound)),) = relational_ranks(core).items()
    assert name == "cores.stm.relation_readout.weight" and 1 < rank < bound == 3
    weight = dict(core.named_parameters())[name]  # G2 [r, d * d]
    expected = weight.square().sum() / torch.linalg.matrix_norm(weight, 2) ** 2
    assert rank == pytest.approx(expected.item(), rel=1e-4)
    assert relational_ranks(make_core("gru", 3)) == {}


@pytest.mark.parametrize(
    ("shape", "table"),
    [((7,), (3, 3)), ((4, 6), (4, 6)), ((2, 64), (8, 17)), ((4, 5, 5), (11, 11)), ((3, 2, 2, 2), (5, 8))],
)
def test_any_leaf_is_a_table_of_all_its_numbers(shape, table):
    values = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    got = as_table(values)
    assert got.shape == table
    assert sorted(got[np.isfinite(got)]) == list(values.ravel())


def test_pictures_leave_out_single_numbers_and_what_is_too_much():
    state = {f"leaf{i}": np.zeros((i, 2)) for i in range(1, 9)} | {"count": np.zeros(1)}
    assert list(leaf_pictures(state)) == [f"leaf{i} {i}×2" for i in range(3, 9)]
