"""Which engines were found to be fastest on this machine: ROOT/fastest.json, one entry for each set of bundles.

    {"choices": {KEY: {...}}, "format_version": 1}

An entry is valid for its key alone. A file that is damaged, too large or writable by others is ignored: the
engines are then compared again when somebody asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.bundle.section import Section, canonical_json, parse_section
from costroute_rt.engines.machine.durable import make_folders, store_errors, write_file
from costroute_rt.engines.store.access import check_access, read_file
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError

FASTEST = "fastest.json"
_VERSION = 1
_MOST_BYTES = 1 << 20
_MOST_KEPT = 64
_LOCK = "fastest"

ImageTimes = Mapping[str, Mapping[str, float]]
"""Milliseconds of an image, by set of engines (backend, provider and precision) and candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fastest:
    """The set of engines that a comparison has chosen."""

    backend: str
    provider: str
    precision: str
    reason: str
    image_ms: ImageTimes
    """Empty where nothing could be compared with."""
    left_out: Mapping[str, str]
    """Sets of engines that were not compared, with the reason."""
    measured_at: str
    """UTC, ISO 8601."""
    condition: str
    """Threads, limits and power mode it was measured with."""


class _Unreadable(Exception):
    """The file is not one of ours."""


def read_fastest(root: Path, key: str) -> Fastest | None:
    """The entry under this key in the store `root`; None where there is none that can be used."""
    entry = _read_all(root).get(key)
    if entry is None:
        return None
    try:
        return _parse(Section(entry, key, _refuse))
    except _Unreadable:
        return None


def keep_fastest(store: Store, key: str, fastest: Fastest) -> None:
    """Keep an entry in place of an older one of this key, all or nothing; raises EngineError where the store cannot be written."""
    with store.lock(_LOCK), store_errors(store.root):
        make_folders(store.root)
        check_access(store.root)
        choices = {name: entry for name, entry in _read_all(store.root).items() if name != key}
        for oldest in sorted(choices, key=lambda name: str(choices[name].get("measured_at")))[: max(0, len(choices) + 1 - _MOST_KEPT)]:
            del choices[oldest]
        choices[key] = {name: getattr(fastest, name) for name in Fastest.__slots__}
        write_file(store.root / FASTEST, canonical_json({"format_version": _VERSION, "choices": choices}))


def _read_all(root: Path) -> dict[str, dict[str, Any]]:
    """All entries as they stand, by key; none where the file cannot be used."""
    with suppress(OSError, ValueError, RecursionError, EngineError, _Unreadable):
        check_access(root)
        section = parse_section(read_file(root / FASTEST, _MOST_BYTES), _refuse)
        json.dumps(section.values, ensure_ascii=False).encode()  # it may have to be written again
        if section.integer("format_version") == _VERSION:
            return {name: dict(entry.values) for name, entry in section.sections("choices")}
    return {}


def _parse(section: Section) -> Fastest:
    texts = {name: section.text(name) for name in ("backend", "provider", "precision", "reason", "measured_at", "condition")}
    image_ms = {
        how: {name: candidates.number(name, minimum=0) for name in candidates.values} for how, candidates in section.sections("image_ms")
    }
    return Fastest(image_ms=image_ms, left_out=section.texts("left_out"), **texts)


def _refuse(problem: str) -> NoReturn:
    raise _Unreadable(problem)
