"""What was found to be fastest is kept in the store; a file that cannot be trusted counts as none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from costroute_rt.engines.store.fastest import FASTEST, Fastest, keep_fastest, read_fastest
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError

FOUND = Fastest(
    backend="openvino",
    provider="cpu",
    precision="bfloat16",
    reason="fastest here",
    image_ms={"openvino cpu bfloat16": {"a@1": 50.5}, "onnxruntime cpu float32": {"a@1": 100.0}},
    left_out={"openvino cpu float32": "it was not needed"},
    measured_at="2026-11-29T20:00:00+00:00",
    condition="2 threads",
)
KEY = "0123abcd"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def test_it_is_kept_by_key(store: Store) -> None:
    assert read_fastest(store.root, KEY) is None
    keep_fastest(store, KEY, FOUND)
    keep_fastest(store, "other", replace(FOUND, backend="onnxruntime"))
    assert read_fastest(store.root, KEY) == FOUND
    assert read_fastest(store.root, "another") is None
    keep_fastest(store, KEY, replace(FOUND, reason="measured again"))
    assert [getattr(read_fastest(store.root, key), "reason", None) for key in (KEY, "other")] == ["measured again", "fastest here"]
    assert sorted(path.name for path in store.root.iterdir()) == [FASTEST, "locks"]  # nothing is left of the writing


def test_the_oldest_of_too_many_go(store: Store) -> None:
    for number in range(70):
        keep_fastest(store, f"key{number}", replace(FOUND, measured_at=f"2026-11-29T20:{number:02}:00"))
    kept = json.loads((store.root / FASTEST).read_text())["choices"]
    assert sorted(kept) == sorted(f"key{number}" for number in range(6, 70))


DAMAGES = {
    "cut": lambda text: text[:-20],
    "list": lambda text: "[]",
    "version": lambda text: text.replace('"format_version": 1', '"format_version": 2'),
    "number": lambda text: text.replace("50.5", "-1"),
    "infinite": lambda text: text.replace("50.5", "1e999"),
    "text": lambda text: text.replace('"bfloat16"', "16"),
    "control": lambda text: text.replace("fastest here", "\\u001b[31m"),
    "half": lambda text: text.replace("fastest here", "\\ud800"),
    "missing": lambda text: text.replace('"condition"', '"conditions"'),
    "deep": lambda text: "[" * 100_000,
    "large": lambda text: text + " " * (1 << 20),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_none_and_is_replaced(store: Store, damage: str) -> None:
    keep_fastest(store, KEY, FOUND)
    file = store.root / FASTEST
    file.write_text(DAMAGES[damage](file.read_text()))
    assert read_fastest(store.root, KEY) is None
    keep_fastest(store, KEY, FOUND)
    assert read_fastest(store.root, KEY) == FOUND


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such check on this system")
def test_a_file_that_others_can_write_counts_as_none(store: Store) -> None:
    keep_fastest(store, KEY, FOUND)
    (store.root / FASTEST).chmod(0o666)
    assert read_fastest(store.root, KEY) is None


def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    keep_fastest(store, KEY, FOUND)
    os.replace(store.root / FASTEST, tmp_path / "elsewhere.json")
    (store.root / FASTEST).symlink_to(tmp_path / "elsewhere.json")
    assert read_fastest(store.root, KEY) is None


def test_a_store_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError):
        keep_fastest(Store.open(tmp_path / "file"), KEY, FOUND)
