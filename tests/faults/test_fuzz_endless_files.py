"""Found by the fuzz test: files that never end were read for ever, and a damaged .gz file ended in "a bug"."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt import Bundle, BundleError, EngineError
from costroute_rt.engines.store.cost import COSTS
from costroute_rt.engines.store.store import Store
from costroute_rt.error import LabelError
from costroute_rt.export.router.csv_file import opened
from tests.cli.conftest import Run
from tests.export.router.label_text import write_labels

ZERO = Path("/dev/zero")
needs_zero = pytest.mark.skipif(not ZERO.exists(), reason="reads /dev/zero, which this system does not have")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_device(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))


ENDLESS: list[Callable[[Path], None]] = [replace_by_pipe]
if hasattr(os, "geteuid") and os.geteuid() == 0:
    ENDLESS.append(replace_by_device)
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes named pipes, which this system does not have")


@needs_zero
@pytest.mark.parametrize("command", [("fit-router", "-o", "made"), ("eval-router",)], ids=lambda words: words[0])
def test_a_table_that_never_ends_is_refused(run: Run, built: Path, tiny_bundle: Path, command: tuple[str, ...]) -> None:
    done = run(*command, "--labels", ZERO, "--bundle", tiny_bundle)
    assert done.exit_code == 2, done.output
    assert "it is not a regular file" in done.stderr


@needs_zero
def test_a_file_of_prompts_that_never_ends_is_refused(run: Run, built: Path, tiny_bundle: Path) -> None:
    done = run("gen", "--prompts", ZERO, "-o", "out", "--bundle", tiny_bundle)
    assert done.exit_code == 2, done.output
    assert "expected a text file, with lines of at most" in done.stderr


def test_every_damage_to_a_compressed_table_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "labels.csv.gz", bytearray(gzip.compress(write_labels(["a@1"], count=4).encode(), mtime=0))
    for at in range(len(data)):
        path.write_bytes(bytes(data[:at]) + bytes([data[at] ^ 0x10]) + bytes(data[at + 1 :]))
        try:
            with opened(path, "label first") as lines:
                list(lines)
        except LabelError:
            pass


@needs_pipes
@pytest.mark.parametrize("replace", ENDLESS)
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_bundle_whose_manifest_is_no_regular_file(bundle_copy: Path, name: str, replace: Callable[[Path], None]) -> None:
    replace(bundle_copy / name)
    with pytest.raises(BundleError, match=r"not a regular file|not a bundle"):
        Bundle.open(bundle_copy)


@needs_pipes
@pytest.mark.parametrize("replace", ENDLESS)
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", COSTS])
def test_an_engine_whose_manifest_is_no_regular_file(store_copy: Store, name: str, replace: Callable[[Path], None]) -> None:
    engine = next(store_copy.folder.iterdir())
    replace(engine / name)
    damages = [each.damage for each in store_copy.verify() if each.path == engine]
    assert (damages[0] is None) == (name == COSTS)
    if name == COSTS:
        from costroute_rt.engines.store.cost import _read_entries

        with pytest.raises(EngineError, match="not a regular file"):
            _read_entries(engine / COSTS, "engine", engine.name)
