"""Measured costs of one engine file, kept beside it in the store, and the conditions under which they are valid."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey
from costroute_rt.engines.bundle.section import Section, canonical_json, parse_section
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.durable import store_errors, write_file
from costroute_rt.error import EngineError, Reason

COSTS = "costs.json"
_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCost:
    """How long one kind of call takes when warm."""

    median_ms: float
    p95_ms: float
    spread_ms: float
    """Distance between the quartiles."""
    calls: int
    """How many were measured."""

    def scaled(self, ratio: float) -> CallCost:
        """The cost of a call that takes `ratio` times as long."""
        times = (ratio * self.median_ms, ratio * self.p95_ms, ratio * self.spread_ms)
        return CallCost(median_ms=times[0], p95_ms=times[1], spread_ms=times[2], calls=self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCost:
    """Times of one engine file on this device."""

    engine: str
    digest: str
    call: CallCost
    """Cost of a call that makes one image."""
    load: CallCost
    """Cost of opening the engine."""
    relative_to: str | None = None
    """Digest of the engine it raced against on a busy machine; the times are that engine's, multiplied by the measured ratio."""
    is_slower: bool = False
    """Whether it lost the race against that engine, so that it must not replace it; it may be used by itself."""
    slower_images: str | None = None
    """Why it lost the race of whole images, beside the engines that stay, although it won alone."""
    is_proved: bool = False
    """Whether whole images were no slower with it than with that engine."""

    def scaled(self, engine: str, digest: str, call_ratio: float, load_ratio: float, is_slower: bool = False) -> EngineCost:
        """The costs of another engine that takes so many times as long."""
        call, load = self.call.scaled(call_ratio), self.load.scaled(load_ratio)
        return EngineCost(engine=engine, digest=digest, call=call, load=load, relative_to=self.digest, is_slower=is_slower)


def identity(key: EngineKey, engine_sha256: str) -> dict[str, str]:
    """What times depend on: costs measured under another identity are refused."""
    name, driver = device.gpu() if key.driver == ANY_DRIVER else (key.device, key.driver)
    return {"engine_sha256": engine_sha256, "device": name, "driver": driver, "os": key.os, "power_mode": device.power_mode()}


def write_costs(folder: Path, identity_now: Mapping[str, str], cost: EngineCost) -> None:
    """Write costs.json into an engine's directory, all or nothing. The caller holds the engine's lock."""
    body: dict[str, Any] = {
        "format_version": _VERSION,
        "identity": dict(identity_now),
        "engine": cost.engine,
        "call_ms": _call_json(cost.call),
        "load_ms": _call_json(cost.load),
    }
    if cost.relative_to is not None:
        names = ("relative_to", "is_slower", "slower_images", "is_proved")
        body |= {name: getattr(cost, name) for name in names}
    with store_errors(folder):
        for leftover in folder.glob(f".{COSTS}.*"):
            leftover.unlink()
        write_file(folder / COSTS, canonical_json({"costs": body, "sha256": _digest(body)}))


def read_cost_file(folder: Path, identity_now: Mapping[str, str], engine: str, digest: str) -> EngineCost:
    """Costs of the engine in `folder`; raises EngineError where they are missing, damaged, or measured under another identity."""
    path = folder / COSTS

    def fail(problem: str) -> NoReturn:
        raise EngineError(problem, reason=Reason.NOT_MEASURED, path=path)

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        fail("it has not been measured on this device")
    except OSError as error:
        fail(f"measured costs cannot be read: {error.strerror}")
    section = parse_section(data, fail)
    body = section.section("costs")
    if section.text("sha256") != _digest(dict(body.values)):
        fail("measured costs are damaged")
    if (version := body.integer("format_version")) != _VERSION:
        fail(f"measured costs have format version {version}, this costroute-rt reads {_VERSION}")
    measured = body.texts("identity")
    for name, value in identity_now.items():
        if measured.get(name) != value:
            fail(f"its costs were measured with another {name}: then {measured.get(name)}, now {value}")
    relative_to = body.text("relative_to") if "relative_to" in body.values else None
    return EngineCost(
        engine=engine,
        digest=digest,
        call=_call(body.section("call_ms")),
        load=_call(body.section("load_ms")),
        relative_to=relative_to,
        is_slower=body.values.get("is_slower") is True,
        slower_images=body.text("slower_images") if body.values.get("slower_images") is not None else None,
        is_proved=body.values.get("is_proved") is True,
    )


def _call_json(call: CallCost) -> dict[str, float | int]:
    times = {"median_ms": call.median_ms, "p95_ms": call.p95_ms, "spread_ms": call.spread_ms}
    return {**{name: round(value, 4) for name, value in times.items()}, "calls": call.calls}


def _call(section: Section) -> CallCost:
    median, p95, spread = (section.number(name, minimum=0) for name in ("median_ms", "p95_ms", "spread_ms"))
    return CallCost(median_ms=median, p95_ms=p95, spread_ms=spread, calls=section.integer("calls", minimum=1))


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()
