"""Candidates that a runtime leaves out: those of int8 weights whose engines are quarantined. The float ones of the same model remain."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.lookup import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError
from costroute_rt.family.calls import candidate_calls, read_pool

_log = logging.getLogger(__name__)


def leave_out_quarantined(pool: Pool, store: Store, setup: Setup) -> Pool:
    """The pool without candidates of int8 weights that have a quarantined engine; each is a warning. Others are an error where they run."""
    found = {name: why for bundle in pool.bundles.values() for name, why in _quarantined(bundle, store, setup)}
    if not found or len(found) == len(pool.candidates):
        return pool
    for name, why in found.items():
        _log.warning("%s is left out: %s", name, why)
    return pool.select(exclude=list(found))


def _quarantined(bundle: Bundle, store: Store, setup: Setup) -> Iterator[tuple[str, str]]:
    for candidate in read_pool(bundle):
        if bundle.components[candidate.denoiser].weight_precision != "int8":
            continue
        for call in candidate_calls(bundle, candidate):
            try:
                stored = store.peek(engine_key(bundle, call.engine, setup))
            except EngineError:  # damaged: it is reported where it is opened
                continue
            if stored is not None and stored.quarantined:
                yield candidate.name, f"the engine {call.engine} is quarantined: {stored.quarantined}"
                break
