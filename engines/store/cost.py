"""Measured costs of one engine file, kept in the store for each condition under which they were measured."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.backends.key import ANY_DRIVER, EngineKey
from costroute_rt.engines.bundle.section import Section, canonical_json, parse_section
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.condition import UNKNOWN, UNKNOWN_CONDITION, Condition
from costroute_rt.engines.machine.durable import make_folders, store_errors, write_file
from costroute_rt.engines.store.access import check_access, read_file
from costroute_rt.error import EngineError, Reason

COSTS = "costs.json"
_VERSION, _BEFORE_CONDITIONS = 3, 2
_MOST_KEPT = 16
"""Measurements in one file: the number of conditions is bounded, and those that come back are measured again."""
_MOST_BYTES = 1 << 20
_LONGEST_MS = 1e10
"""Longer than any call takes; sums of such times are finite."""
_MOST_ENGINE_BYTES = 1 << 50
_MOST_CALLS, _MOST_THREADS = 1 << 31, 1 << 16
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


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
    """Cost of opening the engine, and of its first run beyond that of a later one."""
    memory_bytes: int | None = None
    """Memory that the process has more once the engine has run; None where it was not measured."""
    peak_bytes: int | None = None
    """The most that it has more while the engine is opened and runs for the first times; None where it was not measured."""
    condition: Condition = UNKNOWN_CONDITION
    """Condition under which it was measured."""
    relative_to: str | None = None
    """Digest of the engine it raced against on a busy machine; the times are that engine's, multiplied by the measured ratio."""
    is_slower: bool = False
    """Whether it lost the race against that engine, so that it must not replace it; it may be used by itself."""
    slower_images: str | None = None
    """Why it lost the race of whole images, beside the engines that stay, although it won alone."""
    is_proved: bool = False
    """Whether whole images were no slower with it than with that engine."""

    def scaled(self, engine: str, digest: str, call_ratio: float, load_ratio: float, is_slower: bool = False) -> EngineCost:
        """The costs of another engine that takes so many times as long, under the same condition."""
        call, load = self.call.scaled(call_ratio), self.load.scaled(load_ratio)
        return EngineCost(
            engine=engine, digest=digest, call=call, load=load, condition=self.condition, relative_to=self.digest, is_slower=is_slower
        )


def identity(key: EngineKey, engine_sha256: str) -> dict[str, str]:
    """What times cannot be carried over to: costs measured under another identity say nothing about this engine here."""
    name, driver = device.gpu() if key.driver == ANY_DRIVER else (key.device, key.driver)
    return {"engine_sha256": engine_sha256, "device": name, "driver": driver, "os": key.os}


@dataclass(frozen=True, slots=True)
class CostFiles:
    """The two files that may hold costs of one engine: beside it, and the user's own.

    Costs are written beside an engine of the user's store, except where another user built it; beside other engines nothing is written.
    """

    root: Path
    """The user's store."""
    folder: Path
    """Where the engine is: in that store, or in one that is shared or shipped with an application."""

    @property
    def own(self) -> Path:
        return self.root / "costs" / f"{self.folder.name}.json"

    @property
    def beside(self) -> Path:
        return self.folder / COSTS

    def read(self, identity_now: Mapping[str, str], engine: str) -> list[EngineCost]:
        """All costs of the engine with this identity, one for each condition; the user's own first, then the newest.

        Raises EngineError where there are none: never measured, damaged, or measured under another identity.
        """
        found, problem = dict[Condition, EngineCost](), "it has not been measured on this device"
        for path in (self.own, self.beside):
            try:
                entries = _read_entries(path, engine, self.folder.name)
            except EngineError as error:
                problem = error.problem
                continue
            for measured, cost in entries:
                other = next((name for name, value in identity_now.items() if measured.get(name) != value), None)
                if other is None:
                    found.setdefault(cost.condition, cost)
                else:
                    problem = f"its costs were measured with another {other}: then {measured.get(other)}, now {identity_now[other]}"
        if not found:
            raise EngineError(problem, reason=Reason.NOT_MEASURED, path=self.beside)
        return list(found.values())

    def write(self, identity_now: Mapping[str, str], cost: EngineCost) -> None:
        """Add costs to those of other conditions, all or nothing. The caller holds the engine's lock."""
        is_in_store = self.folder.parent == self.root / "engines"
        with store_errors(self.folder):
            if is_in_store and not self.own.exists():
                try:
                    _add(self.beside, identity_now, cost)
                    return
                except OSError as error:
                    if error.errno not in _FORBIDDEN:
                        raise
            check_access(self.own.parent)
            make_folders(self.own.parent)
            check_access(self.own.parent)
            _add(self.own, identity_now, cost)


def nearest_cost(costs: Iterable[EngineCost], condition: Condition) -> EngineCost:
    """The costs that say most about this condition; of equal ones the first."""
    return min(costs, key=lambda cost: condition.distance(cost.condition))


_Entry = tuple[Mapping[str, str], EngineCost]
"""An identity, and costs measured under it."""


def _add(path: Path, identity_now: Mapping[str, str], cost: EngineCost) -> None:
    """Put costs before the others in the file, in place of those of the same condition; raises OSError.

    Costs of an engine file that was replaced go, and so do the oldest of too many.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink()
    entries: list[_Entry] = [(identity_now, cost)]
    with suppress(EngineError):  # costs that cannot be read are replaced
        for measured, other in _read_entries(path, cost.engine, cost.digest):
            is_same_file = measured.get("engine_sha256") == identity_now.get("engine_sha256")
            if is_same_file and (dict(measured), other.condition) != (dict(identity_now), cost.condition):
                entries.append((measured, other))
    body = {"format_version": _VERSION, "engine": cost.engine, "measured": [_entry_json(*entry) for entry in entries[:_MOST_KEPT]]}
    write_file(path, canonical_json({"costs": body, "sha256": _digest(body)}))


def _read_entries(path: Path, engine: str, digest: str) -> list[_Entry]:
    """Everything in a file of costs, the newest first; empty if the file does not exist. Raises EngineError for a damaged one."""

    def fail(problem: str) -> NoReturn:
        raise EngineError(problem, reason=Reason.NOT_MEASURED, path=path)

    try:
        check_access(path.parent)
        section = parse_section(read_file(path, _MOST_BYTES), fail)
        json.dumps(section.values, ensure_ascii=False, allow_nan=False).encode()
        body = section.section("costs")
        found = _digest(dict(body.values))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        fail(f"measured costs cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:  # text that is not Unicode, or nested too deep to write again
        fail(f"measured costs are damaged: {error}")
    if section.text("sha256") != found:
        fail("measured costs are damaged")
    version = body.integer("format_version")
    if version == _VERSION:
        return [_entry(each, _condition(each.section("condition")), engine, digest) for each in body.rows("measured")]
    if version == _BEFORE_CONDITIONS:  # the power mode was part of the identity, and threads were part of the engine's key
        condition = Condition(power_mode=body.texts("identity").get("power_mode", UNKNOWN))
        return [_entry(body, condition, engine, digest)]
    fail(f"measured costs have format version {version}, this costroute-rt reads {_VERSION}")


def _entry(section: Section, condition: Condition, engine: str, digest: str) -> _Entry:
    """One measurement; identity has the fields of `identity` and, in old files, more."""
    cost = EngineCost(
        engine=engine,
        digest=digest,
        condition=condition,
        call=_call(section.section("call_ms")),
        load=_call(section.section("load_ms")),
        memory_bytes=_bytes(section, "memory_bytes"),
        peak_bytes=_bytes(section, "peak_bytes"),
        relative_to=section.text("relative_to") if "relative_to" in section.values else None,
        is_slower=section.values.get("is_slower") is True,
        slower_images=section.text("slower_images") if section.values.get("slower_images") is not None else None,
        is_proved=section.values.get("is_proved") is True,
    )
    return section.texts("identity"), cost


def _entry_json(measured: Mapping[str, str], cost: EngineCost) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "identity": dict(measured),
        "condition": cost.condition.to_json(),
        "call_ms": _call_json(cost.call),
        "load_ms": _call_json(cost.load),
    }
    entry |= {name: getattr(cost, name) for name in ("memory_bytes", "peak_bytes") if getattr(cost, name) is not None}
    if cost.relative_to is not None:
        entry |= {name: getattr(cost, name) for name in ("relative_to", "is_slower", "slower_images", "is_proved")}
    return entry


def _bytes(section: Section, key: str) -> int | None:
    return section.integer(key, maximum=_MOST_ENGINE_BYTES) if section.values.get(key) is not None else None


def _condition(section: Section) -> Condition:
    threads = section.integer("threads", minimum=1) if section.values.get("threads") is not None else None
    if threads is not None and threads > _MOST_THREADS:
        section.fail(f"manifest {section.at('threads')} is impossible")
    return Condition(threads=threads, cpu_limit=section.text("cpu_limit"), power_mode=section.text("power_mode"))


def _call_json(call: CallCost) -> dict[str, float | int]:
    times = {"median_ms": call.median_ms, "p95_ms": call.p95_ms, "spread_ms": call.spread_ms}
    return {**{name: round(value, 4) for name, value in times.items()}, "calls": call.calls}


def _call(section: Section) -> CallCost:
    median, p95, spread = (section.number(name, minimum=0) for name in ("median_ms", "p95_ms", "spread_ms"))
    calls = section.integer("calls", minimum=1)
    if max(median, p95, spread) > _LONGEST_MS or calls > _MOST_CALLS:
        section.fail(f"manifest {section.place} has impossible times")
    return CallCost(median_ms=median, p95_ms=p95, spread_ms=spread, calls=calls)


def _digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of the body as JSON: without blanks, which is read at every start, and as the format before had it."""
    is_old = body.get("format_version") == _BEFORE_CONDITIONS
    text = canonical_json(body) if is_old else json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest()
