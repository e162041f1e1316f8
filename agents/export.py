"""Agents as files that other programs run without relmem: ONNX, and PyTorch's own ``.pt2``.

What is exported is one step of the policy for a batch of any size: observations, ``starts`` and the state of the memory
in; what actions are chosen by, values and the next state out. Whoever runs it carries the state from one step to the
next and says by ``starts`` where an episode begins: there the graph itself takes the initial state instead.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from ..common.files import replacing, require_new
from ..common.options import Range, require_options
from .base import MemoryAlgorithm
from .normalization import Normalization
from .policy import MemoryActorCriticPolicy

OLDEST_OPSET, OPSET, NEWEST_OPSET = 18, 20, 24
Opset = Annotated[int, Range(OLDEST_OPSET, NEWEST_OPSET, why="what PyTorch writes")]
LARGEST_ONNX = 2**31 - 2**24  # bytes, of weights
DESCRIPTION = "relmem"  # the entry of a file's metadata that describes it
STEPS, BATCH, RESETS = 50, 3, 0.1  # of the check: steps, environments, probability that an episode begins
TOLERANCE = 1e-3  # relative to the largest number of an output, or to 1
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Exported(NamedTuple):
    """What was written."""

    path: Path
    inputs: dict[str, tuple[int, ...]]
    """Shapes of the inputs, without the batch dimension, by name."""
    outputs: tuple[str, ...]
    error: float
    """Largest difference to the policy in the check, relative to the largest number of an output or to 1."""


class Normalize(nn.Module):
    """What a ``VecNormalize`` does to observations [B, ...].

    :param statistics: mean, variance and count
    :param settings: its others
    """

    def __init__(self, statistics: Sequence[Any], settings: Mapping[str, Any]) -> None:
        super().__init__()
        mean, variance = (torch.tensor(numbers, dtype=torch.float64) for numbers in statistics[:2])
        self.clip = float(settings["clip_obs"])
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", mean.float())
        self.register_buffer("deviation", (variance + settings["epsilon"]).sqrt().float())

    def forward(self, observed: Tensor) -> Tensor:
        return ((observed.float() - self.mean) / self.deviation).clamp(-self.clip, self.clip)


class StepGraph(nn.Module):
    """One step of a policy, from tensors to tensors: observations [B, ...] (one for each key of a dictionary),
    ``starts`` [B] and the leaves of the state [B, ...] -> what actions are chosen by, values [B], leaves of the next
    state.

    :param normalization: what is done to observations before the policy sees them; None: nothing
    """

    def __init__(self, policy: MemoryActorCriticPolicy, normalization: Normalization | None = None) -> None:
        super().__init__()
        self.policy, self.state_type = policy, type(policy.initial_state(1))
        observed, self.action_space = policy.observation_space, policy.action_space
        parts = dict(observed) if isinstance(observed, spaces.Dict) else {}
        self.keys, leaves = list(parts), policy.core.state_spec
        self.spaces = {f"observation.{key}": space for key, space in parts.items()} or {"observation": observed}
        known = (normalization or {}).get("observations") or {}
        known = {f"observation.{key}": of for key, of in known.items()} if self.keys else {"observation": known}
        self.normalize = nn.ModuleList(
            Normalize(known[name], (normalization or {})["settings"]) if known.get(name) else nn.Identity()
            for name in self.spaces
        )
        self.normalized = [name for name in self.spaces if known.get(name)]
        self.inputs: dict[str, tuple[int, ...]] = {
            **{name: tuple(space.shape or ()) for name, space in self.spaces.items()},
            "starts": (),
            **{f"state.{name}": shape for name, shape in leaves.items()},
        }
        self.outputs = (*self._actions(), "value", *(f"next_state.{name}" for name in leaves))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        observed, starts, leaves = inputs[: len(self.spaces)], inputs[len(self.spaces)], inputs[len(self.spaces) + 1 :]
        observed = tuple(prepare(part) for prepare, part in zip(self.normalize, observed, strict=True))
        obs: Any = dict(zip(self.keys, observed, strict=True)) if self.keys else observed[0]
        state = self.state_type(*leaves)
        parameters, values, state = self.policy.outputs(obs, state, starts)
        return (*self._read(parameters), values, *state)

    def _actions(self) -> tuple[str, ...]:
        """Names of the outputs that actions are chosen by."""
        if isinstance(self.action_space, spaces.Box):
            return "action_mean", "action_deviation"
        if isinstance(self.action_space, spaces.MultiDiscrete):
            return tuple(f"action_probabilities.{number}" for number in range(len(self.action_space.nvec)))
        return ("action_probabilities",)

    def _read(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """What actions are chosen by, of what the action net computes [B, A]."""
        if isinstance(self.action_space, spaces.Box):
            return parameters, self.policy.log_std.exp().expand_as(parameters)
        if isinstance(self.action_space, spaces.MultiBinary):
            return (parameters.sigmoid(),)
        if isinstance(self.action_space, spaces.MultiDiscrete):
            return tuple(part.softmax(1) for part in parameters.split(self.action_space.nvec.tolist(), dim=1))
        return (parameters.softmax(1),)

    def describe(self) -> str:
        """All that one has to know to run it, as JSON."""
        space = self.action_space
        action: dict[str, Any] = {"kind": type(space).__name__}
        if isinstance(space, spaces.Box):
            action |= {"low": space.low.tolist(), "high": space.high.tolist()}
        inputs = {name: ["batch", *shape] for name, shape in self.inputs.items()}
        about: dict[str, Any] = {"core": self.policy.core_name, "normalized": self.normalized}
        about["observation_space"] = str(self.policy.observation_space)
        return json.dumps({**about, "action_space": action, "inputs": inputs, "outputs": self.outputs})

    def samples(self, batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Observations of any environments, by the names of the inputs."""
        for number, space in enumerate(self.spaces.values()):
            space.seed(int(rng.integers(2**31)) + number)
        return {
            name: np.stack([np.asarray(space.sample(), space.dtype) for _ in range(batch)])
            for name, space in self.spaces.items()
        }


def export_onnx(model: MemoryAlgorithm | MemoryActorCriticPolicy, path: str | Path, opset: Opset = OPSET) -> Exported:
    """Write an agent as ONNX, after a check against it (see ``export_torch``). Needs the extra [export].

    :param model: an agent, or its policy
    :param path: of the new file
    :param opset: version of ONNX's operators
    :raises ValueError: if the path is taken, the opset is one that PyTorch does not write, a package is missing, or the
        graph computes something else than the policy: nothing is written then
    """
    require_options(export_onnx, {"opset": opset})
    path = Path(path)
    require_new(path)
    onnx, runtime = onnx_packages()
    graph, program = _traced(model)
    if 4 * sum(parameter.numel() for parameter in graph.parameters()) > LARGEST_ONNX:
        raise ValueError("a file of ONNX holds at most 2 GB, and the weights are more: export with torch instead")
    with _quiet(), _possible("write as ONNX", graph.policy):
        onnx_program = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=opset,
            input_names=list(graph.inputs), output_names=list(graph.outputs),
            custom_translation_table=_more_operators(opset),
        )  # fmt: skip
    proto = onnx_program.model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(proto, {DESCRIPTION: graph.describe()})
    content = proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(graph.outputs, session.run(list(graph.outputs), inputs), strict=True))

    return _checked_and_written(graph, run, content, path)


def export_torch(model: MemoryAlgorithm | MemoryActorCriticPolicy, path: str | Path) -> Exported:
    """Write an agent as a program of ``torch.export``, which ``torch.export.load(path).module()`` runs.

    Before it is written, the file is loaded and played beside the policy for 50 steps of random observations, each
    carrying its own state, with random beginnings of episodes.

    :param model: an agent, or its policy
    :param path: of the new file
    :raises ValueError: if the path is taken, or the graph computes something else than the policy: nothing is written
        then
    """
    path = Path(path)
    require_new(path)
    graph, program = _traced(model)
    with _quiet():
        torch.export.save(program, file := io.BytesIO(), extra_files={DESCRIPTION: graph.describe()})
        module = torch.export.load(io.BytesIO(file.getvalue())).module()

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = module(*(torch.as_tensor(inputs[name]) for name in graph.inputs))
        return {name: output.numpy() for name, output in zip(graph.outputs, outputs, strict=True)}

    return _checked_and_written(graph, run, file.getvalue(), path)


def onnx_packages() -> tuple[Any, Any]:
    """The modules ``onnx`` and ``onnxruntime``.

    :raises ValueError: if one that ``export_onnx`` needs is not installed
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (what PyTorch writes ONNX by)
    except ImportError as error:
        raise ValueError(f"export to ONNX needs the extra [export]: pip install 'relmem[export]' ({error})") from error
    return onnx, onnxruntime


def _more_operators(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What PyTorch 2.13 does not know how to write as ONNX, and the DNC sorts its cells and multiplies by."""
    from onnxscript import values

    op: Any = values.Opset("", opset)

    def sort(x: Any, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)  # stable, by ONNX's definition

    def prod(x: Any, dims: Sequence[int]) -> Any:
        return op.ReduceProd(x, op.Constant(value_ints=list(dims)), keepdims=0)

    return {torch.ops.aten.sort.stable: sort, torch.ops.prims.prod.default: prod}


def _traced(model: MemoryAlgorithm | MemoryActorCriticPolicy) -> tuple[StepGraph, Any]:
    """The graph of a policy, on the CPU and in float32, and its trace for any batch size."""
    policy = copy.deepcopy(model if isinstance(model, MemoryActorCriticPolicy) else model.policy).cpu()
    policy.set_training_mode(False)
    policy.set_precision("fp32")
    policy.requires_grad_(False)
    normalization = model.normalization_now() if isinstance(model, MemoryAlgorithm) else None
    graph = StepGraph(policy, normalization).eval()
    inputs = _first_inputs(graph, BATCH, np.random.default_rng(0))
    batch = torch.export.Dim("batch", min=1, max=2**31 - 1)
    shapes = (tuple({0: batch} for _ in graph.inputs),)
    with torch.no_grad(), _quiet(), _possible("trace", policy):
        return graph, torch.export.export(graph, tuple(map(torch.as_tensor, inputs.values())), dynamic_shapes=shapes)


def _first_inputs(graph: StepGraph, batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs of a first step: what the state holds does not matter, since episodes begin."""
    leaves = {
        name: np.zeros((batch, *shape), np.float32) for name, shape in graph.inputs.items() if name[:6] == "state."
    }
    return {**graph.samples(batch, rng), "starts": np.ones(batch, dtype=bool), **leaves}


def _checked_and_written(graph: StepGraph, run: Run, content: bytes, path: Path) -> Exported:
    """Write a file whose graph computes what the policy does.

    :raises ValueError: if it does not
    """
    differences = [_differences(graph, run, batch, STEPS) for batch in (BATCH, 1)]
    error, output = max((difference, name) for found in differences for name, difference in found.items())
    if error > TOLERANCE:
        raise ValueError(
            f"the exported graph differs from the policy by {error:.1e} in {output} within {STEPS} steps: '{path}' is "
            "not written"
        )
    with replacing(path) as file:
        file.write(content)
    return Exported(path, graph.inputs, graph.outputs, error)


@torch.no_grad()
def _differences(graph: StepGraph, run: Run, batch: int, steps: int) -> dict[str, float]:
    """The largest difference of each output of a file to that of the policy, each of which carries its own state."""
    rng, largest = np.random.default_rng(1), dict.fromkeys(graph.outputs, 0.0)
    ours = theirs = _first_inputs(graph, batch, rng)
    for _ in range(steps):
        found = run(theirs)
        expected = {
            name: output.numpy()
            for name, output in zip(graph.outputs, graph(*map(torch.as_tensor, ours.values())), strict=True)
        }
        for name, value in expected.items():
            if value.shape != found[name].shape or not np.isfinite(found[name]).all():
                return {name: np.inf}
            scale = max(1.0, np.abs(value).max(initial=0.0))
            largest[name] = max(largest[name], float(np.abs(value - found[name]).max(initial=0.0) / scale))
        common = {**graph.samples(batch, rng), "starts": rng.random(batch) < RESETS}
        ours, theirs = ({**common, **_next_state(outputs)} for outputs in (expected, found))
    return largest


def _next_state(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("next_"): value for name, value in outputs.items() if name.startswith("next_state.")}


@contextmanager
def _possible(what: str, policy: MemoryActorCriticPolicy) -> Iterator[None]:
    """What PyTorch's exporters refuse, as a core or features of somebody's own may have it, is said in one sentence."""
    try:
        yield
    except Exception as error:  # they raise many kinds, over many lines
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"PyTorch cannot {what} this policy with the core '{policy.core_name}' ({type(error).__name__}: {reason}): "
            "step must not branch on values, and must take its batch size from x.shape[0]"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporters say to those who develop them."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
