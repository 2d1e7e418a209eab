"""A backend whose builds wait, here and in the building process: ONNX Runtime under another name, for tests and benchmarks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from costroute_rt.engines.backends.engine import Backend, BuildProgress
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building.gate import Race

GATE = "COSTROUTE_TEST_GATE"
"""Environment variable with a folder: a build of graph.onnx goes on when there is a file graph.onnx or `all` in it."""
MODULES = ("backends.setup",)
COMMAND = ("-c", f"import sys; sys.path.append({str(Path(__file__).parent.parent)!r}); from tests.gated_backend import main; main()")
"""What to start instead of `costroute_rt.engines.building.background.COMMAND`."""


class GatedBackend(OnnxRuntimeBackend):
    """Builds when it may; where the gate holds a file `slow`, its engines lose races (5 ms more a call)."""

    name = "gated"

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        gate = Path(os.environ[GATE])
        while not ((gate / "all").exists() or (gate / graph.name).exists()):
            time.sleep(0.01)
        if (gate / "crash").exists():
            os._exit(7)
        super().build(graph, target, spec, progress)

    def open(self, folder: Path, spec: BuildSpec, key: object = None) -> object:  # type: ignore[override]
        engine = super().open(folder, spec, key)  # type: ignore[arg-type]
        if (Path(os.environ[GATE]) / "slow").exists() and not folder.name.startswith("."):  # not while it is checked at its build
            run = engine.run

            def run_slowly(feeds: object) -> object:
                time.sleep(0.005)
                return run(feeds)  # type: ignore[arg-type]

            engine.run = run_slowly  # type: ignore[assignment,method-assign]
        return engine


def find_backend(name: str) -> Backend:
    """`get_backend` that also knows this one."""
    return GatedBackend() if name == "gated" else get_backend(name)  # type: ignore[return-value]


def install(set_attribute: Callable[[object, str, object], None]) -> None:
    """Make the backend known; set_attribute: setattr, or that of a MonkeyPatch."""
    for module in MODULES:
        set_attribute(import_module(f"costroute_rt.engines.{module}"), "get_backend", find_backend)


def win(ours: Callable[[], object], theirs: Callable[[], object]) -> Race:
    """A race that the first wins."""
    ours()
    theirs()
    return Race((1.0,) * 3, (1.0,) * 3)


def main() -> None:
    """The building process; at low priority where the gate holds a file `nice`, as on a busy machine tests would wait for minutes.

    Races are won at once, except where it holds a file `slow`: then they are run; or `slow images`: those of whole images are lost;
    or `crash before images`: it ends before these.
    """
    background = import_module("costroute_rt.engines.building.background")
    if not (Path(os.environ[GATE]) / "nice").exists():
        background.NICENESS = 0  # type: ignore[attr-defined]
    if not (Path(os.environ[GATE]) / "slow").exists():
        background.run_race = win  # type: ignore[attr-defined]
    if (Path(os.environ[GATE]) / "slow images").exists():
        background._race_images = lambda *_: Race((2.0,) * 3, (1.0,) * 3)  # type: ignore[attr-defined]
    if (Path(os.environ[GATE]) / "crash before images").exists():
        background._race_images = lambda *_: os._exit(7)  # type: ignore[attr-defined]
    install(setattr)
    raise SystemExit(background.main())
