"""Keeps in the store how close the images of engines are to those of float32 engines: with the engine of the step, once for its key."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import copy_engine
from costroute_rt.engines.building.lookup import engine_key, locate, read_costs, write_cost
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.image_gate import ImageGate
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import EngineError

_PSNR, _SSIM = "latent_psnr_db", "ssim"


def find_image_result(stored: StoredEngine) -> tuple[float, float] | None:
    """Latent PSNR in dB and SSIM that were kept for an engine; None if its images were not compared."""
    found = stored.gate.get(_PSNR), stored.gate.get(_SSIM)
    return None if found[0] is None or found[1] is None else (float(found[0]), float(found[1]))


def keep_image_result(bundle: Bundle, store: Store, name: str, setup: Setup, gate: ImageGate) -> None:
    """Keep the result with the engine, which is quarantined if its images are too far from what they should be. Raises EngineError."""
    key = engine_key(bundle, name, setup)
    try:
        with store.lock(key.digest):
            stored = store.find(key)
            if stored is None:
                return
            costs = []
            with suppress(EngineError):
                costs = read_costs(store, stored, name)
            new = store.write(key, lambda folder: _fill(stored, folder, gate))
    except EngineError as error:
        raise locate(error, bundle, name, key, setup.threads) from error
    for cost in costs if gate.problem is None else ():
        write_cost(store, new, cost)  # they are those of the same files


def _fill(stored: StoredEngine, folder: Path, gate: ImageGate) -> dict[str, Any]:
    if gate.problem is None:
        copy_engine(stored, folder)
    return {
        "built_at": stored.built_at,
        "build_s": stored.build_s,
        "gate": {**stored.gate, _PSNR: gate.latent_psnr_db, _SSIM: gate.ssim},
        "source": stored.source,
        "quarantined": gate.problem,
    }
