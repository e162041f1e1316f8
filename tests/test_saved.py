"""What an older version saved still loads, and computes the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from relmem.agents import A3C, MemoryPPO, SequenceModel, load

SAVED = Path(__file__).parent / "data" / "saved"  # by version 0.1.0
EXPECTED = np.load(SAVED / "expected.npz")


@pytest.mark.parametrize("name", ["ppo", "a3c"])
def test_an_agent_saved_by_version_0_1_acts_as_it_did(name):
    model = load(SAVED / name, trusted=True)
    state, memory = None, model.policy.initial_state(2)
    for t, obs in enumerate(EXPECTED["obs"]):
        starts = np.array([t == 0, t in (0, 3)])
        actions, state = model.predict(obs, state, starts, deterministic=True)
        assert (actions == EXPECTED[f"{name}_actions"][t]).all()
        with torch.no_grad():
            _, values, _, memory = model.policy.act(torch.as_tensor(obs), memory, torch.as_tensor(starts))
        np.testing.assert_allclose(values, EXPECTED[f"{name}_values"][t], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("algorithm", "name"), [(MemoryPPO, "a3c"), (A3C, "ppo")])
def test_no_algorithm_takes_what_another_one_saved_for_its_own(algorithm, name):
    with pytest.raises(ValueError, match="another algorithm"):
        algorithm.load(SAVED / name, trusted=True)


def test_a_model_of_a_task_saved_by_version_0_1_answers_as_it_did():
    model = SequenceModel.load(SAVED / "task.pt", trusted=True)
    with torch.no_grad():
        logits = model(torch.as_tensor(EXPECTED["inputs"]), 1)
    np.testing.assert_allclose(logits, EXPECTED["logits"], rtol=1e-4, atol=1e-6)
