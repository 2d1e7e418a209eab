"""A stand-in for OpenVINO: ONNX Runtime under its name, which also takes bfloat16 and computes in float32 then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from costroute_rt.engines.backends.engine import Backend, BuildProgress
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.building.progress import Tracker
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, EngineError, Reason
from costroute_rt.generation import fastest
from costroute_rt.generation.fastest import ImageRace

BFLOAT16, FLOAT32, USUAL = "openvino cpu bfloat16", "openvino cpu float32", "onnxruntime cpu float32"


@dataclass
class World:
    """What the machine has, and how fast it is."""

    version: str | None = "2026.4"
    """Version of the stand-in; None if it is not installed."""
    damage: str | None = None
    """Why its library cannot be loaded."""
    refuses: str | None = None
    """The precision in which it cannot build."""
    ratio: float = 0.5
    """Time of its images in that of the usual ones."""
    measured: int = 0
    """How often images were compared."""

    def find_version(self, name: str) -> str | None:
        return self.version if name == "openvino" else "1.0"

    def get_backend(self, name: str) -> Backend:
        if name != "openvino":
            return get_backend(name)
        if self.damage is not None:
            raise BackendError("OpenVINO", self.damage, "install OpenVINO again", ["openvino"])
        return Second(self)  # type: ignore[return-value]

    def measure_images(self, pool: Pool, store: Store, setups: tuple[object, object], tracker: Tracker) -> ImageRace:
        self.measured += 1
        ms = 100 * self.ratio
        return ImageRace({"tiny-turbo@1": [[(100.0, 150.0), (ms, 1.5 * ms)]]})


class Second(OnnxRuntimeBackend):
    """The stand-in."""

    name = "openvino"

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def device(self, spec: BuildSpec) -> tuple[str, str]:
        return super().device(replace(spec, precision="float32"))

    def build(self, graph: Path, target: Path, spec: BuildSpec, progress: BuildProgress | None = None) -> None:
        if spec.precision == self.world.refuses:
            raise EngineError("the graph cannot be built: no such operator", reason=Reason.CANNOT_BUILD, path=graph)
        super().build(graph, target, replace(spec, precision="float32"), progress)

    def open(self, folder: Path, spec: BuildSpec, key: object = None) -> object:  # type: ignore[override]
        return super().open(folder, replace(spec, precision="float32"), key)  # type: ignore[arg-type]


def install(monkeypatch: pytest.MonkeyPatch, *, measures: Callable[..., object] | None = None) -> World:
    """A machine with the stand-in, for this test, and nothing that fixes the backend."""
    world = World()
    monkeypatch.delenv("COSTROUTE_BACKEND", raising=False)
    monkeypatch.setattr("costroute_rt.engines.backends.setup.get_backend", world.get_backend)
    for module in ("family.auto_backend", "generation.fastest", "engines.backends.registry"):
        monkeypatch.setattr(f"costroute_rt.{module}.find_version", world.find_version)
    monkeypatch.setattr("costroute_rt.family.auto_backend.has_fast_bfloat16", lambda: True)
    monkeypatch.setattr(fastest, "measure_images", measures or world.measure_images)
    return world
