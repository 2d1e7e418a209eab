"""Fixtures for the engines: a bundle one may break, and a store with its engines built once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.building.build import BuildReport, build_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.family.calls import engine_names

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="session")
def built_home(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tiny bundle's engines; tests that change it copy it first."""
    home = tmp_path_factory.mktemp("built")
    build(Bundle.open(tiny_bundle), Store.open(home), Setup(threads=1))
    return home


def build(
    bundle: Bundle,
    store: Store,
    setup: Setup = USUAL,
    *,
    names: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    **how: Any,
) -> list[BuildReport]:
    """Build these engines, else all that the bundle's candidates need; size: those that know it."""
    names = engine_names(bundle) if names is None else names
    return build_engines(bundle, store, names if size is None else with_size(bundle, names, size), setup, **how)


def rewrite_manifest(bundle: Path, edit: Edit) -> None:
    """Change a bundle's manifest as one who knows its format would: digests are made to match."""
    values = json.loads((bundle / "manifest.json").read_text())
    edit(values)
    data = json.dumps(values).encode()
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())


def relist(bundle: Path, name: str) -> None:
    """Make the manifest agree with what the file `name` is now."""
    data = (bundle / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    rewrite_manifest(bundle, lambda manifest: manifest["files"].update({name: entry}))


def quarantine(store: Store, key: EngineKey, reason: str) -> StoredEngine:
    """Keep of a stored engine only the reason why it must not be used, as a build does with an engine that fails its check."""
    stored = store.peek(key)
    assert stored is not None
    entries = {"built_at": stored.built_at, "build_s": stored.build_s, "source": stored.source, "gate": dict(stored.gate)}
    with store.lock(key.digest):
        return store.write(key, lambda _: {**entries, "quarantined": reason})


def flip_byte(path: Path, at: float = 0.5) -> None:
    """Change one byte, at this fraction of the file."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x01
    path.write_bytes(data)
