"""What was hashed once is trusted while it is the same file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.backends.setup import USUAL
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.bundle import digest
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.engines.store.trust import TRUST, Trust
from costroute_rt.error import BundleError, EngineError, Reason
from tests.engines.conftest import build, flip_byte


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read to be hashed, from now on."""
    found, sha256_file = list[Path](), digest.sha256_file

    def note(path: Path) -> str:
        found.append(path)
        return sha256_file(path)

    monkeypatch.setattr(digest, "sha256_file", note)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def hash_anew(root: Path, file: Path) -> str:
    """As another process would, with what the store has recorded."""
    return Trust(root).hash_files([file])[file]


def test_a_file_is_hashed_once(tmp_path: Path, file: Path, hashed: list[Path]) -> None:
    first, again = hash_anew(tmp_path, file), hash_anew(tmp_path, file)
    assert first == again
    assert hashed == [file]


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def same_size(path: Path) -> None:
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def same_times(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"CONTENT")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


@pytest.mark.parametrize("change", [longer, same_size, same_times, replaced])
def test_a_file_that_changed_is_hashed_again(tmp_path: Path, file: Path, hashed: list[Path], change: Callable[[Path], None]) -> None:
    before = hash_anew(tmp_path, file)
    change(file)
    assert hash_anew(tmp_path, file) != before
    assert hashed == [file, file]


@pytest.mark.parametrize(
    "damage", ["no JSON", "another version", "a number as hash", "text as size", "too large", "open to others", "a list"]
)
def test_a_record_that_cannot_be_trusted_counts_as_none(tmp_path: Path, file: Path, hashed: list[Path], damage: str) -> None:
    record = tmp_path / TRUST
    right = hash_anew(tmp_path, file)
    values = json.loads(record.read_bytes())
    entry = values["files"][str(file)]
    if damage == "no JSON":
        record.write_bytes(record.read_bytes()[:-3])
    elif damage == "another version":
        record.write_text(json.dumps({**values, "format_version": 2}))
    elif damage == "a number as hash":
        record.write_text(json.dumps({**values, "files": {str(file): [*entry[:-1], 7]}}))
    elif damage == "text as size":
        record.write_text(json.dumps({**values, "files": {str(file): ["7", *entry[1:]]}}))
    elif damage == "too large":
        record.write_text(json.dumps(values) + " " * (4 << 20))
    elif damage == "open to others":
        record.chmod(0o666)
    else:
        record.write_text("[]")
    assert hash_anew(tmp_path, file) == right
    assert hashed == [file, file]


def test_the_record_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costroute_rt.engines.store.trust._MOST_FILES", 3)
    trust = Trust(tmp_path)
    for index in range(6):
        (tmp_path / str(index)).touch()
        trust.hash_files([tmp_path / str(index)])
    assert list(json.loads((tmp_path / TRUST).read_bytes())["files"]) == [str(tmp_path / str(index)) for index in (3, 4, 5)]


def test_nothing_is_recorded_where_there_is_no_store(tmp_path: Path, file: Path) -> None:
    hash_anew(tmp_path / "home", file)
    assert not (tmp_path / "home").exists()


def test_a_runtime_hashes_nothing_that_was_hashed_before(tiny_bundle: Path, tmp_path: Path, hashed: list[Path]) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    Runtime.open(bundle, home=tmp_path / "home", build=True).close()
    assert {path.name for path in hashed} >= {"model.onnx", "tokenizer.json"}
    hashed.clear()
    for options in ({}, {"build": True}, {"preload": False}):
        Runtime.open(bundle, home=tmp_path / "home", **options).close()
    assert hashed == []


def test_files_of_extra_stores_are_hashed_once_too(tiny_bundle: Path, tmp_path: Path, hashed: list[Path]) -> None:
    Runtime.open(tiny_bundle, home=tmp_path / "extra", build=True).close()
    Runtime.open(tiny_bundle, home=tmp_path / "home", extra_stores=[tmp_path / "extra"]).close()
    hashed.clear()
    Runtime.open(tiny_bundle, home=tmp_path / "home", extra_stores=[tmp_path / "extra"]).close()
    assert hashed == []


def test_engines_are_hashed_when_they_are_built_and_not_when_they_are_opened(bundle_copy: Path, tmp_path: Path, hashed: list[Path]) -> None:
    bundle, store = Bundle.open(bundle_copy), Store.open(tmp_path / "home")
    build(bundle, store)
    hashed.clear()
    open_engine(bundle, Store.open(tmp_path / "home"), "tiny/base/guided_step", USUAL).close()
    assert hashed == []
    assert all(found.is_good for found in store.verify())
    assert len({path for path in hashed if path.name == "model.onnx"}) == 5  # `verify` hashes all


def test_weights_of_several_graphs_are_hashed_once(bundle_copy: Path, tmp_path: Path, hashed: list[Path]) -> None:
    bundle, weights = Bundle.open(bundle_copy, verify=False), "diffusion_pytorch_model.safetensors"
    build(bundle, Store.open(tmp_path / "home"), names=[f"tiny/base/{graph}" for graph in ("condition", "step", "guided_step")])
    assert [path for path in hashed if path.name == weights] == [bundle_copy / "unet" / weights]


def test_another_name_of_a_file_is_the_same_file(tmp_path: Path, file: Path, hashed: list[Path]) -> None:
    link, trust = tmp_path / "link", Trust(tmp_path)
    link.hardlink_to(file)
    assert trust.hash_files([file])[file] == trust.hash_files([link])[link]
    assert hashed == [file]


def test_a_changed_file_is_found_by_the_next_start(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    with Runtime.open(bundle, home=tmp_path / "home", build=True) as runtime:
        model = next(runtime.store.glob("engines/*/model.onnx"))
    kept = model.read_bytes()
    flip_byte(model)
    with pytest.raises(EngineError) as caught:
        Runtime.open(bundle, home=tmp_path / "home")
    assert caught.value.reason is Reason.DAMAGED
    model.write_bytes(kept)
    Runtime.open(bundle, home=tmp_path / "home").close()
    flip_byte(next(bundle.rglob("*.safetensors")))
    with pytest.raises(BundleError, match="does not match the manifest"):
        Runtime.open(bundle, home=tmp_path / "home")
