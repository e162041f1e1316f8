"""Agent steps per second of recurrent PPO, beside stock ``sb3_contrib.RecurrentPPO`` at the same settings.

    python benchmarks/ppo_throughput.py --out results/bench/ppo_throughput.json

Pong at frame skip 4, 8 environments x 128 steps, 4 epochs of minibatches of 256, Nature CNN, LSTM 512 shared by actor
and critic. All contestants step the same native vector environment, so that only the learners differ. Rounds are
interleaved: every round runs each contestant once for the same number of rollouts, and ratios compare medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import sb3_contrib
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from relmem.agents import MemoryPPO
from relmem.envs import make_vec_env

N_ENVS, N_STEPS = 8, 128
SHARED = dict(n_steps=N_STEPS, n_epochs=4, batch_size=256, clip_range=0.1, ent_coef=0.01, seed=0)


def stock() -> OnPolicyAlgorithm:
    lstm = dict(lstm_hidden_size=512, shared_lstm=True, enable_critic_lstm=False)
    return RecurrentPPO("CnnLstmPolicy", make_env(), policy_kwargs=lstm, **SHARED)


def ours(core: str, precision: str, **core_kwargs: object) -> Callable[[], OnPolicyAlgorithm]:
    policy = dict(core=core, core_kwargs=core_kwargs, features="nature")
    return lambda: MemoryPPO("MemoryPolicy", make_env(), precision=precision, policy_kwargs=policy, **SHARED)


def make_env():
    return make_vec_env("PongNoFrameskip-v4", N_ENVS, frame_skip=4, seed=0)


CONTESTANTS: dict[str, Callable[[], OnPolicyAlgorithm]] = {
    "sb3-contrib RecurrentPPO, LSTM 512": stock,
    "relmem MemoryPPO, LSTM 512, fp32": ours("lstm", "fp32", hidden_size=512),
    "relmem MemoryPPO, LSTM 512, auto": ours("lstm", "auto", hidden_size=512),
    "relmem MemoryPPO, STM n=4 d=32, auto": ours("stm", "auto", queries=4, item_size=32, relation_size=32),
    "relmem MemoryPPO, STM n=4 d=64, auto": ours("stm", "auto", queries=4, item_size=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rollouts", type=int, default=2, help="rollouts, each with its update, in one measurement")
    parser.add_argument("--out", type=Path, help="JSON file; a Markdown table is written beside it")
    args = parser.parse_args()

    models = {name: build() for name, build in CONTESTANTS.items()}
    for model in models.values():
        model.learn(N_ENVS * N_STEPS)  # warm-up
    rates: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(args.rounds):
        for name, model in models.items():
            steps = args.rollouts * N_ENVS * N_STEPS
            begin = time.perf_counter()
            model.learn(steps, reset_num_timesteps=False)
            rates[name].append(steps / (time.perf_counter() - begin))
            print(f"round {round_ + 1}: {name}: {rates[name][-1]:.0f} agent steps/s", flush=True)

    base = statistics.median(next(iter(rates.values())))
    rows = [
        dict(name=name, median=statistics.median(r), low=min(r), high=max(r), ratio=statistics.median(r) / base)
        for name, r in rates.items()
    ]
    machine = dict(
        processor=processor(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        sb3_contrib=sb3_contrib.__version__,
        python=platform.python_version(),
    )
    table = "| learner | agent steps/s (median) | lowest to highest | ratio |\n|---|---|---|---|\n" + "".join(
        f"| {r['name']} | {r['median']:.0f} | {r['low']:.0f} to {r['high']:.0f} | {r['ratio']:.2f} |\n" for r in rows
    )
    print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps(dict(machine=machine, arguments=vars(args) | {"out": None}, rows=rows), indent=1)
        )
        about = ", ".join(f"{key} {value}" for key, value in machine.items())
        args.out.with_suffix(".md").write_text(f"{table}\n{about}\n")


def processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
