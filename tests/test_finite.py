"""Weights that are not finite are neither saved nor loaded."""

import pytest
import torch

from relmem.agents import A3C, Diverged, MemoryPPO, load
from relmem.common.saved import pack, unpack
from relmem.envs import make_vec_env

ENV = "relmem/MaskedCartPole-v0"
POLICY = {"core": "gru", "core_kwargs": {"hidden_size": 4}}


def make(algorithm):
    env = ENV if algorithm is A3C else make_vec_env(ENV, 2)
    return algorithm("MemoryPolicy", env, policy_kwargs=POLICY)


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_weights_that_are_not_finite_are_not_saved(algorithm, tmp_path):
    model = make(algorithm)
    torch.nn.init.constant_(model.policy.value_net.bias, float("nan"))
    with pytest.raises(Diverged, match="weights"):
        model.save(tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", [MemoryPPO, A3C])
def test_weights_that_are_not_finite_are_not_loaded(algorithm, tmp_path):
    make(algorithm).save(tmp_path / "good.zip")
    parts = unpack((tmp_path / "good.zip").read_bytes())
    parts["policy"]["value_net.bias"].fill_(float("inf"))
    (tmp_path / "bad.zip").write_bytes(pack(parts))
    with pytest.raises(ValueError, match="not finite"):
        load(tmp_path / "bad.zip")
    assert load(tmp_path / "good.zip")
