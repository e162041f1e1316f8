"""``relmem export``: a trained agent as a file that other programs run without relmem."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..agents import load
from ..agents.export import OPSET, STEPS, Exported, Opset, export_onnx, export_torch, onnx_packages
from ..common.files import require_new
from ..common.options import require_option
from ..common.output import say, stage
from .arguments import Arguments

EXAMPLES = (
    "relmem export runs/pong_stm_ppo_s0_2026-11-27_16-21-58 --onnx pong.onnx",
    "relmem export agent.zip --torch agent.pt2",
)


def prepare(argv: Sequence[str]) -> Callable[[], int]:
    """Check files and options, and load the agent.

    :param argv: the command line after ``relmem export``
    :return: what exports
    :raises ValueError: if the command line asks for something impossible
    """
    parser = Arguments(
        "export",
        "Write a trained agent as ONNX or as a program of torch.export: one step for a batch of any size, from "
        "observation, starts and state to action probabilities or means, value and next state. Before it is written, "
        f"{STEPS} steps of it are compared with the agent's own.",
        EXAMPLES,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or the file of a model")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="write ONNX; needs the extra [export]")
    parser.add_argument("--torch", type=Path, metavar="FILE", help="write .pt2, which torch.export.load reads")
    parser.add_argument("--opset", type=int, help=f"version of ONNX's operators ({OPSET})")
    parser.add_argument("--trusted", action="store_true", help="load also a model that may run code (docs/security.md)")
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")
    asked = parser.read(argv)
    files = [file for file in (asked.onnx, asked.torch) if file]
    if not files:
        raise ValueError("name the file to write: --onnx FILE or --torch FILE")
    if len({file.resolve() for file in files}) < len(files):
        raise ValueError(f"--onnx and --torch both name '{asked.onnx}'")
    if asked.opset is not None:
        if not asked.onnx:
            raise ValueError("--opset goes with --onnx")
        require_option("opset", Opset, asked.opset)
    for file in files:
        require_new(file)
    if asked.onnx:
        onnx_packages()
    model = load(asked.run, trusted=asked.trusted, device="cpu")

    def execute() -> int:
        for file in files:
            with stage("exporting, and comparing with the agent"):
                if file is asked.onnx:
                    written = export_onnx(model, file, asked.opset or OPSET)
                else:
                    written = export_torch(model, file)
            say(json.dumps(written._asdict(), default=str) if asked.json else shown(written))
        return 0

    return execute


def shown(written: Exported) -> str:
    """What was written, in words."""
    inputs = "".join(f"\n  {name} {list(('batch', *shape))}" for name, shape in written.inputs.items())
    outputs = "".join(f"\n  {name}" for name in written.outputs)
    return (
        f"Inputs:{inputs}\nOutputs:{outputs}\n"
        f"Largest difference to the agent in {STEPS} steps: {written.error:.1e}.\nWritten: {written.path}"
    ).replace("'", "")
