"""Image files: settings can be read back, and a failed write leaves no file."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from costroute_rt.error import ConfigError, OutputError
from costroute_rt.image_file import SUFFIXES, contact_sheet, encode_image, save_image
from costroute_rt.image_settings import exif_data, format_parameters, read_settings

PIXELS = np.linspace(0, 255, 16 * 24 * 3).astype(np.uint8).reshape(16, 24, 3)
SETTINGS = {
    "prompt": "a house 🏡, «дом»", "negative_prompt": "fog", "seed": 7, "candidate": "base@8", "num_inference_steps": 8,
    "scheduler": "flow_match_euler", "guidance_scale": 3.0, "height": 16, "width": 24, "version": "0.1.0",
}  # fmt: skip
FORMATS = ("png", "jpeg", "webp")


def save(target: Any, settings: dict[str, Any] = SETTINGS, format: str | None = None, quality: int = 90) -> Path:
    return save_image(target, PIXELS, settings, format, quality)  # type: ignore[return-value]


def encode(format: str, settings: dict[str, Any] = SETTINGS) -> bytes:
    return encode_image(PIXELS, settings, format, 90)


def format_of(file: Any) -> str | None:
    with Image.open(file) as image:
        return image.format


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG", ".Jpg"])
def test_settings_and_pixels_can_be_read_back(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"one{suffix}")
    assert read_settings(path) == read_settings(str(path)) == SETTINGS
    with Image.open(path) as image:
        assert image.format == SUFFIXES[suffix.lower()].upper()
        worst = np.abs(np.asarray(image.convert("RGB")).astype(int) - PIXELS).max()
    assert worst == 0 if suffix.lower() == ".png" else worst < 24
    assert os.listdir(tmp_path) == [f"one{suffix}"]


def test_parameters_have_the_web_ui_form() -> None:
    assert format_parameters(SETTINGS).splitlines() == [
        "a house 🏡, «дом»",
        "Negative prompt: fog",
        "Steps: 8, Sampler: flow_match_euler, CFG scale: 3.0, Seed: 7, Size: 24x16, Model: base@8, Version: costroute-rt 0.1.0",
    ]


def test_a_png_has_parameters_as_text_and_others_have_them_as_the_users_comment() -> None:
    with Image.open(io.BytesIO(encode("png"))) as image:
        assert image.info["parameters"] == format_parameters(SETTINGS)
    for format in ("jpeg", "webp"):
        with Image.open(io.BytesIO(encode(format))) as image:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert image.getexif()[305] == "costroute-rt 0.1.0"
        assert comment[:8] == b"UNICODE\0"
        assert comment[8:].decode("utf-16-be") == format_parameters(SETTINGS)


def test_a_lower_quality_gives_a_smaller_file() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for format in ("jpeg", "webp"):
        sizes = [len(encode_image(noise, SETTINGS, format, quality)) for quality in (10, 50, 95)]
        assert sizes == sorted(sizes)
        assert 1.5 * sizes[0] < sizes[2]


@pytest.mark.parametrize("name", ["one.bmp", "one", "png", "", "one.png.gz"])
def test_other_suffixes_are_refused_unless_a_format_is_given(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png, \.jpg, \.jpeg, \.webp"):
        save(tmp_path / name if name else "")
    if name:
        assert format_of(save(tmp_path / name, format="WebP")) == "WEBP"


@pytest.mark.parametrize("format", ["gif", "", "png ", 3, b"png", "p.n.g"])
def test_unknown_formats_are_refused(format: Any) -> None:
    with pytest.raises(ConfigError, match=r"format is .*: expected png, jpeg or webp"):
        save(io.BytesIO(), format=format)


@pytest.mark.parametrize("quality", [0, 101, -1, 90.5, "90", None, True])
def test_unusable_qualities_are_refused(quality: Any) -> None:
    with pytest.raises(ConfigError, match="quality is"):
        save(io.BytesIO(), format="jpeg", quality=quality)


def test_an_image_too_long_for_a_format_is_refused() -> None:
    wide = np.zeros((1, 16_384, 3), np.uint8)
    with pytest.raises(ConfigError, match="expected png, because the image is longer than 16,383 pixels"):
        encode_image(wide, SETTINGS, "webp", 90)
    assert encode_image(wide, SETTINGS, "jpeg", 90)


@pytest.mark.parametrize("prompt", ["long " * 5_000, "🏡" * 5_000])
def test_settings_that_fill_a_jpeg_are_written_without_the_web_ui_form(prompt: str) -> None:
    settings = {**SETTINGS, "prompt": prompt}
    for format in FORMATS:
        assert read_settings(encode(format, settings)) == settings
    with pytest.raises(ConfigError, match="too long for a JPEG"):
        encode("jpeg", {**SETTINGS, "prompt": "long " * 20_000})


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_text("old")
    save(path)
    assert read_settings(path)["seed"] == 7


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        mode = save(tmp_path / "one.webp").stat().st_mode & 0o777
    finally:
        os.umask(before)
    assert mode == 0o666 & ~mask


@pytest.mark.parametrize("name", ["missing/one.png", "file/one.jpg", "folder.png", "\0.png", "x" * 300 + ".webp"])
def test_a_path_that_cannot_be_written_raises_an_output_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    path = tmp_path / "one.png"
    path.write_text("old")

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        save(path)
    assert os.listdir(tmp_path) == ["one.png"]
    assert path.read_text() == "old"


class Trickle(io.RawIOBase):
    """A raw file that takes and gives at most 100 bytes at a time, and cannot seek."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data[:100])
        return min(100, len(data))

    def readinto(self, buffer: Any) -> int:
        count = min(100, len(buffer), len(self.data))
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count


class OnlyWrites:
    """The least that an open file can be."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize("format", FORMATS)
def test_open_files_of_many_kinds_are_written_and_read(tmp_path: Path, format: str) -> None:
    expected = encode(format)
    buffer, least, trickle = io.BytesIO(), OnlyWrites(), Trickle()
    for target in (buffer, least, trickle):
        assert save(target, format=format) is None
    assert buffer.getvalue() == least.data == trickle.data == expected
    with open(tmp_path / "one", "wb") as file, tempfile.SpooledTemporaryFile() as spooled:
        save(file, format=format)
        save(spooled, format=format)
        assert read_settings(spooled) == SETTINGS
    for source in (expected, bytearray(expected), memoryview(expected), buffer, trickle, tmp_path / "one"):
        assert read_settings(source) == SETTINGS
    assert buffer.tell() == len(expected)  # the position is restored


def test_an_open_file_has_the_format_of_its_name_or_png(tmp_path: Path) -> None:
    with open(tmp_path / "one.webp", "w+b") as file:
        save(file)
    assert format_of(tmp_path / "one.webp") == "WEBP"
    buffer = io.BytesIO()
    save(buffer)
    assert format_of(buffer) == "PNG"


def closed() -> io.BytesIO:
    buffer = io.BytesIO()
    buffer.close()
    return buffer


@pytest.mark.parametrize("make", [io.StringIO, closed, lambda: None, lambda: 3, lambda: b"one.png", lambda: ["one.png"]])
def test_what_is_neither_a_path_nor_an_open_binary_file_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match="expected a path or an open binary file"):
        save(make(), format="png")


def test_files_that_take_no_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_text("old")
    with open(tmp_path / "one.png", "rb") as reading, tempfile.NamedTemporaryFile("w", suffix=".png") as text:
        for target in (reading, text):
            with pytest.raises(ConfigError, match="expected a path or an open binary file"):
                save(target)
    assert (tmp_path / "one.png").read_text() == "old"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ConnectionResetError("gone"), ValueError("write to closed file")]
)
def test_an_open_file_that_fails_raises_an_output_error(error: Exception) -> None:
    class Failing(io.RawIOBase):
        name = "pipe"

        def write(self, data: Any) -> int:
            raise error

    with pytest.raises(OutputError, match=r"cannot write pipe: (No space|gone|write to closed)"):
        save(Failing())
    full = Trickle()
    full.write = lambda data: 0  # type: ignore[method-assign]
    with pytest.raises(OutputError, match="takes no more data"):
        save(full)


def _foreign_png(text: str | None, *, compressed: bool = False, latin: bool = False) -> bytes:
    chunks, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    if text is not None and latin:
        chunks.add_text("costroute", text, zip=compressed)
    elif text is not None:
        chunks.add_itxt("costroute", text, zip=compressed)
    Image.fromarray(PIXELS).save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def _foreign_photo(format: str, text: str | None) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[271] = "a camera"
    if text is not None:
        exif[270] = text
    Image.fromarray(PIXELS).save(buffer, format=format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("text", [None, "no JSON", "[1, 2]", '{"a": NaN}', '{"a": 1e999}', r'{"a": "\ud800"}', "[" * 60_000])
def test_an_image_without_settings_is_refused(text: str | None) -> None:
    for data in (_foreign_png(text), *(_foreign_photo(format, text) for format in ("JPEG", "WEBP"))):
        with pytest.raises(ConfigError, match="written by costroute-rt"):
            read_settings(data)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("latin", [True, False])
def test_other_kinds_of_text_in_a_png_are_read(compressed: bool, latin: bool) -> None:
    assert read_settings(_foreign_png('{"seed": 3}', compressed=compressed, latin=latin)) == {"seed": 3}


def test_exif_data_of_either_byte_order_is_read() -> None:
    exif = Image.Exif()
    exif[270] = '{"seed": 3}'
    exif.endian = "<"
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", exif=exif.tobytes())
    assert b"II*\0" in buffer.getvalue()
    assert read_settings(buffer) == {"seed": 3}


def test_settings_survive_a_rewritten_file() -> None:
    for format in FORMATS:
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(encode(format))) as image:
            if format == "png":
                chunks = PngImagePlugin.PngInfo()
                chunks.add_itxt("costroute", image.info["costroute"])
                image.save(buffer, "PNG", pnginfo=chunks)
            else:
                image.save(buffer, format, exif=image.getexif())
        assert read_settings(buffer) == SETTINGS


@pytest.mark.parametrize("source", ["missing.png", ".", "", "\0", 3, None, ["a"], io.StringIO("text"), closed(), b"", bytearray(b"hello")])
def test_what_is_no_image_file_is_refused(source: Any) -> None:
    with pytest.raises(ConfigError, match="written by costroute-rt"):
        read_settings(source)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_ends_early_is_refused(format: str) -> None:
    data = encode(format)
    text = data.index(b"flow_match_euler")
    for length in (*range(0, 40), text):
        with pytest.raises(ConfigError, match="written by costroute-rt"):
            read_settings(data[:length])


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_give_settings_or_a_config_error(format: str) -> None:
    """Every byte of the head, of the metadata, and some of the rest, changed in several ways."""
    data = encode(format)
    for position in range(len(data)):
        for value in (0, 0xFF, data[position] ^ 0x10):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            with contextlib.suppress(ConfigError):
                assert isinstance(read_settings(damaged), dict)


def test_a_wrong_checksum_is_refused() -> None:
    data = encode("png")
    with pytest.raises(ConfigError, match="checksum"):
        read_settings(data.replace(b"flow_match_euler", b"flow_match_Euler", 1))


def test_huge_texts_are_refused_without_reading_them() -> None:
    bomb = zlib.compress(b"[" * (1 << 27))
    chunk = b"zTXtcostroute\0\0" + bomb
    png = encode("png")[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    large = encode("png")[:33] + struct.pack(">I", 1 << 31) + b"iTXtcostroute"
    webp = b"RIFF" + struct.pack("<I", (1 << 32) - 1) + b"WEBPEXIF" + struct.pack("<I", 1 << 31)
    for data in (png, large, webp):
        with pytest.raises(ConfigError, match="metadata is too long"):
            read_settings(data)


def test_the_image_itself_is_not_read() -> None:
    class Counting(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    for format in FORMATS:
        file = Counting(encode_image(noise, SETTINGS, format, 95))
        assert read_settings(file) == SETTINGS
        assert file.read_bytes < 5_000 < len(file.getvalue())


def test_exif_data_fits_the_format_of_the_web_ui() -> None:
    assert exif_data(SETTINGS)[:6] == b"Exif\0\0"


@pytest.mark.parametrize(("count", "size"), [(2, (52, 16)), (3, (52, 36)), (4, (52, 36)), (36, (164, 116)), (100, (164, 116))])
def test_a_contact_sheet_shows_up_to_36_images(count: int, size: tuple[int, int]) -> None:
    sheet = contact_sheet(np.stack([PIXELS] * count))
    assert sheet.size == size
    np.testing.assert_array_equal(np.asarray(sheet)[:16, :24], PIXELS)
    if count == 3:
        assert (np.asarray(sheet)[20:, 28:] == 255).all()


@pytest.mark.parametrize("shape", [(9, 900, 900), (2, 3000, 20), (5, 1, 4000)])
def test_a_contact_sheet_is_never_large(shape: tuple[int, int, int]) -> None:
    assert max(contact_sheet(np.zeros((*shape, 3), np.uint8)).size) <= 1024 + 8
