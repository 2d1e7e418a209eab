"""A runtime with fake engines and a clock that advances only while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.call import Call, Stage
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.cost import CallCost, EngineCost
from costroute_rt.family.conditioning import StatesSource
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.family.family import Family
from costroute_rt.family.memory import MemoryLimit
from costroute_rt.family.resources import Resources
from costroute_rt.family.texts import chunk_key
from costroute_rt.routing.quality import AverageQuality
from costroute_rt.runtime import Runtime

STATES = "text_encoder.last_hidden_state"
CALL_MS = {
    "tiny/text_encoder/encode": 4.0,
    "tiny/turbo/step": 20.0,
    "tiny/base/condition": 1.0,
    "tiny/base/guided_step": 50.0,
    "tiny/vae/decode": 10.0,
}
LOAD_MS, ENCODE_MS = 30.0, 6.0
Function = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From the inputs of a graph to its outputs."""
TINY_DECODE_MS = 2.0
"""Of the decoder `tiny`, which candidates have whose name ends in `-tiny`."""
POOL = (
    ("turbo@1", "turbo", 1, 1.0, 0.5),
    ("turbo@2", "turbo", 2, 1.0, 0.6),
    ("base@4", "base", 4, 3.0, 0.8),
    ("base@8", "base", 8, 3.0, 0.9),
)
"""Name, denoiser, steps, guidance scale, quality."""


@dataclass
class FakeClock:
    """A clock that advances only when a test or a fake engine advances it, in seconds."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_ms(self, ms: float) -> None:
        self.now += ms / 1000


@dataclass
class FakeEngine:
    """An engine that takes `ms()` of the fake clock per call and image, and computes values that depend on every input."""

    name: str
    clock: FakeClock
    ms: Callable[[str], float]
    fail: Callable[[str], None]
    provider: str = "FakeProvider"
    key: None = None
    resident_bytes: int = 1000
    calls: int = 0
    is_closed: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=lambda: FUNCTIONS)
    """What graphs compute, by `graph`; one of `component/graph` comes before it."""
    fed: Mapping[str, Any] = field(default_factory=dict)
    """Inputs of the last run."""

    def to_device(self, array: npt.NDArray[Any]) -> Any:
        return array

    def to_host(self, value: Any) -> npt.NDArray[Any]:
        return np.asarray(value)

    def close(self) -> None:
        self.is_closed = True

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        assert not self.is_closed
        self.fail(self.name)
        self.calls, self.fed = self.calls + 1, feeds
        assert feeds.keys() == self.inputs.keys()
        batch = feeds["latent" if "latent" in feeds else next(iter(feeds))].shape[0]
        self.clock.pass_ms(self.ms(self.name) * batch)
        _, component, graph = self.name.split("/")
        return self.functions.get(f"{component}/{graph}", self.functions[graph])(feeds)


class BoxedEngine(FakeEngine):
    """Keeps its values where other engines cannot read them."""

    def to_device(self, array: npt.NDArray[Any]) -> Any:
        return {"boxed": array}

    def to_host(self, value: Any) -> npt.NDArray[Any]:
        return np.asarray(value["boxed"])

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        made = super().run({name: value["boxed"] for name, value in feeds.items()})
        return {name: {"boxed": value} for name, value in made.items()}


def encode(feeds: Mapping[str, Any]) -> dict[str, Any]:
    ids = feeds["input_ids"]
    return {"last_hidden_state": np.sin(ids[:, :, None] * np.array([1.0, 0.5])).astype(np.float32)}


def condition(feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {"condition_0": feeds[STATES].mean(axis=(1, 2))}


def step(feeds: Mapping[str, Any]) -> dict[str, Any]:
    input_scale, timestep, guidance, p, q, a, b, c, s = feeds["row"]
    x, text = feeds["latent"], feeds["condition_0"] if "condition_0" in feeds else condition(feeds)["condition_0"]
    text = text.reshape(len(text), -1).mean(axis=1)
    text = text[0] + guidance * (text[1] - text[0]) if len(text) == 2 else text[0]
    m = np.tanh(input_scale * x + text + np.float32(timestep) / 1000)
    d = p * x + q * m
    return {"next_latent": (a * x + b * d + c * feeds["denoised_before"] + s * feeds["noise"]).astype(np.float32), "denoised": d}


def decode(feeds: Mapping[str, Any]) -> dict[str, Any]:
    latent = feeds["latent"]
    image = np.repeat(np.repeat(latent[:, :3], 16, axis=2), 16, axis=3).transpose(0, 2, 3, 1)
    return {"pixels": np.ascontiguousarray(np.clip(image * 40 + 128, 0, 255).astype(np.uint8))}


def encode_image(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `decode` for images of even cells: the first three channels of a latent of four."""
    cells = (feeds["pixels"][:, 8::16, 8::16].transpose(0, 3, 1, 2).astype(np.float32) - 128) / 40
    return {"latent": np.concatenate([cells, np.zeros_like(cells[:, :1])], axis=1)}


FUNCTIONS: Mapping[str, Function] = {
    "encode": encode, "condition": condition, "step": step, "guided_step": step, "decode": decode, "vae/encode": encode_image,
}  # fmt: skip


@dataclass
class FakeDevice:
    """A runtime on fake engines, with the settings that a test may change."""

    runtime: Runtime
    resources: Resources
    clock: FakeClock
    engines: dict[str, FakeEngine]
    slowdown: dict[str, float]
    """Factor on the profiled time, by engine name; 1 for engines that are not listed."""
    on_call: list[Callable[[str], None]]
    """Called with the engine's name before each call."""

    def wait_for_waiting(self, requests: int) -> None:
        """Wait until so many requests wait for their turn."""
        for _ in range(30_000):
            if self.runtime._device.waiting >= requests:
                return
            threading.Event().wait(0.001)
        raise AssertionError(f"{self.runtime._device.waiting} of {requests} requests wait")


def open_fake_runtime(
    bundle: Bundle,
    *,
    preload: bool = True,
    noise: Callable[[str], float] | None = None,
    measured: Mapping[str, EngineCost] | None = None,
    pool: tuple[tuple[str, str, int, float, float], ...] = POOL,
    quality: Any = None,
    scheduler: Mapping[str, Any] | None = None,
    profile: Mapping[str, float] = CALL_MS,
    functions: Mapping[str, Function] = FUNCTIONS,
    states: str | None = None,
    image_encoders: Sequence[str] = (),
    limit: MemoryLimit | None = None,
) -> FakeDevice:
    """A runtime whose engines take the milliseconds of `profile`; noise(name) gives a call's factor on that."""
    clock, engines, slowdown, on_call = FakeClock(), {}, {}, []
    profile = {"tiny/tiny/decode": TINY_DECODE_MS, **profile, **dict.fromkeys(image_encoders, ENCODE_MS)}

    def call_ms(name: str) -> float:
        return profile[name] * slowdown.get(name, slowdown.get("", 1.0)) * (noise(name) if noise else 1.0)

    def check(name: str) -> None:
        for each in on_call:
            each(name)

    def open_engine(name: str) -> Any:
        _, component, graph = name.split("/")
        clock.pass_ms(LOAD_MS * slowdown.get("load", 1.0))
        inputs = bundle.graphs[bundle.graph_path(component, graph)].inputs
        engines[name] = FakeEngine(name, clock, call_ms, check, inputs=inputs, functions=functions)
        return engines[name]

    bundle = _with_pool(bundle, pool, scheduler)
    family = Family.open(bundle if states is None else replace(bundle, router={"states": states}))
    family = family.with_image_encoders(frozenset(image_encoders))
    family = family if limit is None else replace(family, whole_area=1.0)
    quality = quality or AverageQuality.from_bundle(family.bundle, family.pool)
    resources = Resources(
        families={family.name: family},
        pool=family.pool,
        engines=EngineSet(open_engine, limit),
        costs=CostModel(measured or {name: steady(ms) for name, ms in profile.items()}, clock),
        quality=quality,
        states_source=StatesSource.open(family.bundle) if quality.needs_states else None,
        router_calls=tuple(Call(f"{family.name}/{name}", Stage.ROUTE) for name in quality.engines),
        clock=clock,
        init_images=bool(image_encoders),
        setup={"backend": "fake", "provider": "cpu", "precision": "float32", "target": ""},
        versions={"costroute-rt": "0.0.test"},
    )
    runtime = Runtime(resources)
    if preload:
        runtime.preload()
    return FakeDevice(runtime, resources, clock, engines, slowdown, on_call)


def steady(ms: float, *, p95: float = 1.0) -> EngineCost:
    """The cost of an engine that takes `ms` per image, and `p95` times that at the 95th percentile."""
    return EngineCost(engine="fake/engine/graph", digest="0" * 32, call=call_cost(ms, p95 * ms), load=call_cost(LOAD_MS, LOAD_MS))


def is_kept(resources: Resources, encoder: str, text: str) -> bool:
    """Whether what the text encoder makes of a negative prompt is kept."""
    family = resources.main_family
    tokenizer = str(family.bundle.components[encoder].tokenizer)
    return (f"{family.name}/{encoder}/encode", chunk_key(family.tokenize(text, [tokenizer])[tokenizer])) in resources.negatives


def call_cost(median_ms: float, p95_ms: float) -> CallCost:
    """One measured call."""
    return CallCost(median_ms=median_ms, p95_ms=p95_ms, spread_ms=0.0, calls=40)


def _with_pool(bundle: Bundle, pool: tuple[tuple[str, str, int, float, float], ...], scheduler: Mapping[str, Any] | None) -> Bundle:
    rows = [
        {
            "name": name,
            "denoiser": denoiser,
            "scheduler": "default",
            "num_inference_steps": steps,
            "guidance_scale": scale,
            "decoder": "tiny" if name.endswith("-tiny") else "vae",
        }
        for name, denoiser, steps, scale, _ in pool
    ]
    components = {**bundle.components, "tiny": replace(bundle.components["vae"], name="tiny")}
    quality = {"metric": "fake", "candidates": {name: {"mean": mean, "standard_error": 0.01} for name, *_, mean in pool}}
    schedulers = {**bundle.schedulers, "default": scheduler} if scheduler else bundle.schedulers
    return replace(bundle, pool=tuple(rows), quality=quality, schedulers=schedulers, components=components)
