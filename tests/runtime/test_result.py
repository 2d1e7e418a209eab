"""Results: files in every format, notebooks, previews and public types."""

from __future__ import annotations

import io
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import costroute_rt
from costroute_rt.error import ConfigError, OutputError
from costroute_rt.image_settings import read_settings
from costroute_rt.result import Result, StepEvent
from tests.runtime.fakes import FakeDevice


@pytest.fixture
def result(device: FakeDevice) -> Result:
    return device.runtime.generate("a red house", seed=7, count=3)


def pixels_of(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_images_are_saved_in_the_format_of_the_suffix(result: Result, tmp_path: Path) -> None:
    for name in ("one.png", "one.JPG", "one.jpeg", "one.webp"):
        path = result.save(str(tmp_path / name), 1)
        assert path == tmp_path / name
        assert read_settings(path)["seed"] == 8
    assert result.save(tmp_path / "odd.bin", format="webp").read_bytes()[8:12] == b"WEBP"


def test_bytes_are_those_of_a_file(result: Result, tmp_path: Path) -> None:
    assert result.save(tmp_path / "two.png", 2).read_bytes() == result.png_bytes(2) == result.image_bytes("PNG", 2)
    assert result.save(tmp_path / "two.jpg", 2, quality=50).read_bytes() == result.image_bytes("jpg", 2, quality=50)
    np.testing.assert_array_equal(pixels_of(result.png_bytes(2)), result.pixels[2])
    buffer = io.BytesIO()
    assert result.save(buffer, 2) is None
    assert buffer.getvalue() == result.png_bytes(2)


@pytest.mark.parametrize("index", [-1, 3, 1.0, "1", None, True, 2**70])
def test_an_index_out_of_range_or_not_whole_is_refused(result: Result, tmp_path: Path, index: Any) -> None:
    for call in (
        lambda: result.save(tmp_path / "a.png", index),
        lambda: result.png_bytes(index),
        lambda: result.image_bytes("webp", index),
        lambda: result.image_settings(index),
    ):
        with pytest.raises(ConfigError, match="index"):
            call()
    assert not list(tmp_path.iterdir())


def test_numpy_indices_are_taken(result: Result) -> None:
    assert result.png_bytes(np.int64(1)) == result.png_bytes(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", [None, "gif", ""])
def test_bytes_need_a_known_format(result: Result, format: Any) -> None:
    with pytest.raises(ConfigError, match="png, jpeg or webp"):
        result.image_bytes(format)


def test_a_buffer_without_room_raises_an_output_error(result: Result) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="cannot write Full: No space left on device"):
        result.save(Full())


def test_images_are_new_at_each_access(result: Result) -> None:
    result.images[0].paste("white", (0, 0, 64, 64))
    np.testing.assert_array_equal(np.asarray(result.images[0]), result.pixels[0])


def test_notebooks_show_the_image_or_a_contact_sheet(device: FakeDevice, result: Result) -> None:
    single = device.runtime.generate("a red house", seed=7)
    assert single._repr_png_() == single.png_bytes()
    sheet = pixels_of(result._repr_png_())
    assert sheet.shape == (2 * 64 + 4, 2 * 64 + 4, 3)
    np.testing.assert_array_equal(sheet[:64, 68:], result.pixels[1])


def test_previews_can_be_sent_as_jpeg(device: FakeDevice) -> None:
    first, *_ = device.runtime.stream("a red house", seed=7, preview=True, candidate="turbo@2")
    assert isinstance(first, StepEvent)
    data = first.preview_jpeg()
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))
    assert len(first.preview_jpeg(quality=5) or b"") < len(data)
    with pytest.raises(ConfigError, match="quality is 0: expected 1 to 100"):
        first.preview_jpeg(quality=0)
    plain, *_ = device.runtime.stream("a red house", seed=7, candidate="turbo@2")
    assert isinstance(plain, StepEvent)
    assert plain.preview_jpeg() is None


def test_public_types_of_callbacks_and_keywords_are_exported() -> None:
    assert typing.get_args(costroute_rt.OnStep)[0] == [StepEvent]
    names = {"OnStep", "Cost", "RequestOptions", "Timings", "Judgement", "Option", "Candidate", "Neighbour"}
    assert names <= set(costroute_rt.__all__)
