"""V8: a pipe, a device, a folder or an endless file under the name of a file is refused at once, whatever reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import BundleError, ConfigError, CostrouteError, LabelError
from costroute_rt.export.checkpoint.folder import find_denoisers
from costroute_rt.export.checkpoint.weight_file import check_weights, read_config
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import read_prompts
from costroute_rt.image_settings import read_settings as read_image
from costroute_rt.regular_file import find_link_out, open_regular, read_regular
from costroute_rt.routing.router_file import read_arrays, read_settings
from tests.security.limit import write_terabyte

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes and links to devices, as POSIX has them")

READERS: dict[str, tuple[Callable[[Path], Any], type[CostrouteError], str]] = {
    "tokenizer": (lambda path: Tokenizer.open(path, max_length=8, pad=0), BundleError, "tokenizer.json"),
    "router settings": (read_settings, BundleError, "router.json"),
    "router arrays": (read_arrays, BundleError, "router.safetensors"),
    "labels": (LabelTable.open, LabelError, "labels.csv"),
    "compressed labels": (LabelTable.open, LabelError, "labels.csv.gz"),
    "prompts": (read_prompts, LabelError, "prompts.csv"),
    "image": (read_image, ConfigError, "image.png"),
    "configuration": (read_config, BundleError, "config.json"),
    "weights": (check_weights, BundleError, "model.safetensors"),
    "torch weights": (check_weights, BundleError, "pytorch_model.bin"),
    "model index": (lambda path: find_denoisers(path.parent), BundleError, "model_index.json"),
}
PLACES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "loop of links": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("read", "error", "name"), READERS.values(), ids=READERS)
def test_only_regular_files_are_read(
    tmp_path: Path, read: Callable[[Path], Any], error: type[CostrouteError], name: str, make: Callable[[Path], object]
) -> None:
    make(tmp_path / name)
    with pytest.raises(error):
        read(tmp_path / name)


@pytest.mark.parametrize(("read", "error", "name"), READERS.values(), ids=READERS)
def test_a_file_of_a_terabyte_is_refused(tmp_path: Path, read: Callable[[Path], Any], error: type[CostrouteError], name: str) -> None:
    write_terabyte(tmp_path / name)
    with pytest.raises(error):
        read(tmp_path / name)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2048)
    assert read_regular(path, 2048) == b"x" * 2048
    with pytest.raises(OSError, match="larger than 1 KiB"):
        read_regular(path, 2047)
    with open_regular(path) as file:
        assert file.read() == b"x" * 2048


def test_only_links_as_the_caches_of_hubs_have_them_lead_out_of_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "models--a--b" / "snapshots" / "1"
    blobs = tmp_path / "models--a--b" / "blobs"
    for folder in (root / "inner", blobs, tmp_path / "other"):
        folder.mkdir(parents=True)
    for path in (blobs / "x", tmp_path / "other" / "x", root / "inner" / "y"):
        path.write_text("x")
    links = {"blob": blobs / "x", "other": tmp_path / "other" / "x", "inside": root / "inner" / "y", "up": tmp_path / "other"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    assert {name for name in links if find_link_out(root / name, root) is None} == {"blob", "inside"}
    assert find_link_out(root / "up" / "x", root) == (tmp_path / "other" / "x").resolve()
    shutil.copytree(root, tmp_path / "plain", symlinks=True)
    assert find_link_out(tmp_path / "plain" / "blob", tmp_path / "plain") == (blobs / "x").resolve()
