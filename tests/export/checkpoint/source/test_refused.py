"""What is no model that can be exported is named in one line, at once, with what to use instead."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.known_file import refuse_other
from costroute_rt.export.checkpoint.source.network import Region
from tests.checkpoints import write_json, write_sdxl_folder
from tests.layouts import MODELS, REFUSED

ODD: tuple[Any, ...] = (None, -1, 10**30, "x", [[]], {}, [1, "a"])


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = REFUSED[name].write(tmp_path)
    began = time.process_time()
    with pytest.raises(BundleError, match=REFUSED[name].problem) as caught:
        open_source(path, allow_pickle=True)
    assert time.process_time() - began < 2
    assert "\n" not in str(caught.value)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_opened(tmp_path: Path, name: str) -> None:
    assert open_source(MODELS[name].write(tmp_path), allow_pickle=True).networks["unet"].weights


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "text_encoder_2/config.json", "model_index.json"])
def test_odd_settings_end_in_no_traceback(tmp_path: Path, file: str) -> None:
    path = write_sdxl_folder(tmp_path)
    usual, refused = json.loads((path / file).read_text()), []
    for key in usual:
        for value in ODD:
            write_json(path / file, usual | {key: value})
            with suppress(BundleError):
                open_source(path)
                continue
            refused.append(key)
    assert len(refused) > len(usual)


def test_paths_that_cannot_be_looked_at_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "a\0b", tmp_path / "none"):
        with pytest.raises(BundleError, match="it does not exist"):
            open_source(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="as another user than root, whom modes do not stop")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    path = write_sdxl_folder(tmp_path / "model")
    path.chmod(0)
    try:
        with pytest.raises(BundleError, match="it cannot be read"):
            open_source(path)
    finally:
        path.chmod(0o700)


def test_names_without_end_take_no_time() -> None:
    region = Region(file=Path("a"), offset=0, length=0, dtype="F16", shape=())
    began = time.process_time()
    refuse_other({"transformer_blocks.0." * 400_000: region, "a." * 100: region}, Path("a"))
    assert time.process_time() - began < 1
