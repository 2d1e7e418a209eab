"""PNG files: settings can be read back, and a failed write leaves no file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from costroute_rt.error import ConfigError, OutputError
from costroute_rt.png import format_parameters, read_settings, write_png

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
SETTINGS = {
    "prompt": "a house 🏡, «дом»", "negative_prompt": "fog", "seed": 7, "candidate": "base@8", "num_inference_steps": 8,
    "scheduler": "flow_match_euler", "guidance_scale": 3.0, "height": 4, "width": 6, "version": "0.1.0",
}  # fmt: skip


def test_settings_and_pixels_can_be_read_back(tmp_path: Path) -> None:
    path = write_png(tmp_path / "one.png", PIXELS, SETTINGS)
    assert read_settings(path) == read_settings(str(path)) == SETTINGS
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
        assert image.info["parameters"] == format_parameters(SETTINGS)
    assert os.listdir(tmp_path) == ["one.png"]


def test_parameters_have_the_web_ui_form() -> None:
    assert format_parameters(SETTINGS).splitlines() == [
        "a house 🏡, «дом»",
        "Negative prompt: fog",
        "Steps: 8, Sampler: flow_match_euler, CFG scale: 3.0, Seed: 7, Size: 6x4, Model: base@8, Version: costroute-rt 0.1.0",
    ]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_text("old")
    write_png(path, PIXELS, SETTINGS)
    assert read_settings(path)["seed"] == 7


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert write_png(tmp_path / "one.png", PIXELS, SETTINGS).stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("name", ["missing/one.png", "file/one.png", "folder.png", "\0.png", "x" * 300 + ".png"])
def test_a_path_that_cannot_be_written_raises_an_output_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_png(tmp_path / name, PIXELS, SETTINGS)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.parametrize("name", ["one.jpg", "one", "png"])
def test_only_png_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        write_png(tmp_path / name, PIXELS, SETTINGS)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    path = tmp_path / "one.png"
    path.write_text("old")

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_png(path, PIXELS, SETTINGS)
    assert os.listdir(tmp_path) == ["one.png"]
    assert path.read_text() == "old"


def _write_foreign_png(path: Path, text: str | None) -> None:
    chunks = PngImagePlugin.PngInfo()
    if text is not None:
        chunks.add_itxt("costroute", text)
    Image.fromarray(PIXELS).save(path, format="PNG", pnginfo=chunks)


@pytest.mark.parametrize("text", [None, "no JSON", "[1, 2]", '{"a": NaN}', '{"a": 1e999}', r'{"a": "\ud800"}', "[" * 100_000])
def test_a_png_without_settings_is_refused(tmp_path: Path, text: str | None) -> None:
    _write_foreign_png(tmp_path / "other.png", text)
    with pytest.raises(ConfigError, match="written by costroute-rt"):
        read_settings(tmp_path / "other.png")


def test_a_file_that_is_not_a_whole_png_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    Image.fromarray(PIXELS).save(tmp_path / "photo.jpg")
    cut = write_png(tmp_path / "cut.png", PIXELS, SETTINGS)
    cut.write_bytes(cut.read_bytes()[:60])
    for name in ("text.png", "empty.png", "photo.jpg", "cut.png", "missing.png", "."):
        with pytest.raises(ConfigError, match="written by costroute-rt"):
            read_settings(tmp_path / name)
