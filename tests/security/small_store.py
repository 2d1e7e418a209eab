"""A store with one small engine that no library opens, for tests of what the store itself accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.store.cost import CallCost, CostFiles, EngineCost, identity
from costroute_rt.engines.store.store import Store, StoredEngine

KEY = EngineKey(
    graph="tiny/base/step", weights_sha256="0" * 64, graph_sha256="1" * 64, backend="onnxruntime", backend_version="1", provider="cpu",
    precision="float32", shapes="", options="", device="some", driver="some", os="some",
)  # fmt: skip
TIME = CallCost(median_ms=2.0, p95_ms=3.0, spread_ms=0.1, calls=5)


def write_engine(root: Path) -> tuple[Store, StoredEngine]:
    """A store at `root` with an engine of one file, and its costs."""

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "model.onnx").write_bytes(b"network")
        return {"built_at": "2026-01-01T00:00:00+00:00", "build_s": 1.0, "gate": {}, "source": "bundle", "quarantined": None}

    store = Store.open(root)
    with store.lock(KEY.digest):
        stored = store.write(KEY, fill)
        cost = EngineCost(engine=KEY.graph, digest=KEY.digest, call=TIME, load=TIME)
        CostFiles(store.root, stored.path).write(identity(KEY, stored.sha256), cost)
    return store, stored


def read_costs(store: Store, stored: StoredEngine) -> list[EngineCost]:
    return CostFiles(store.root, stored.path).read(identity(KEY, stored.sha256), KEY.graph)


def reseal(stored: StoredEngine, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change an engine's manifest as one who knows its format would."""
    values = json.loads((stored.path / "manifest.json").read_bytes())
    edit(values)
    data = json.dumps(values).encode()
    (stored.path / "manifest.json").write_bytes(data)
    (stored.path / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())


def reseal_costs(stored: StoredEngine, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change an engine's costs as one who knows their format would."""
    path = stored.path / "costs.json"
    body = json.loads(path.read_bytes())["costs"]
    edit(body)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps({"costs": body, "sha256": digest}))
