"""Images that runs begin with: what is read, what is refused, and how it is fitted."""

from __future__ import annotations

import io
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from costroute_rt.error import ConfigError
from costroute_rt.request import Request
from costroute_rt.source_image import SourceImage

ORIENTATION = 274
NOISE = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **how)
    return buffer.getvalue()


def read(path: Path, data: bytes) -> SourceImage:
    path.write_bytes(data)
    return SourceImage.of("init_image", path)


def test_a_path_a_pil_image_and_an_array_are_the_same_image(tmp_path: Path) -> None:
    image = Image.fromarray(NOISE)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image))
    found = [SourceImage.of("init_image", value) for value in (path, str(path), image, NOISE)]
    assert len(set(found)) == 1
    np.testing.assert_array_equal(found[0].pixels, NOISE)
    assert not found[0].pixels.flags.writeable
    assert SourceImage.of("init_image", found[0]) is found[0]
    assert pickle.loads(pickle.dumps(found[0])) == found[0]
    assert found[0] != SourceImage.of("init_image", NOISE.reshape(4, 6, 3))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (NOISE[..., 0], np.repeat(NOISE[..., :1], 3, axis=2)),
        (NOISE[..., :1], np.repeat(NOISE[..., :1], 3, axis=2)),
        (np.dstack([NOISE, NOISE[..., 0]]), NOISE),
        (NOISE[..., 0] > 99, np.repeat((NOISE[..., :1] > 99) * 255, 3, axis=2)),
        (NOISE[::-1, ::2], NOISE[::-1, ::2]),
    ],
    ids=["grey", "one channel", "with alpha", "bool", "strided"],
)
def test_arrays_of_several_kinds_become_rgb(array: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(SourceImage.of("mask", array).pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
def test_every_mode_is_converted(mode: str) -> None:
    grey = Image.fromarray(np.full((4, 4), 200, dtype=np.uint8))
    image = Image.fromarray(np.full((4, 4), 200 * 257, dtype=np.uint16)) if mode.startswith("I") else grey.convert("RGB")
    pixels = SourceImage.of("init_image", image.convert(mode) if mode != "PA" else image.convert("P").convert("PA")).pixels
    assert pixels.shape == (4, 4, 3)
    assert abs(int(pixels.mean()) - 200) <= (100 if mode == "1" else 6)


def test_transparency_is_ignored_and_16_bits_keep_their_brightness(tmp_path: Path) -> None:
    deep = np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)
    assert read(tmp_path / "deep.png", encoded(Image.fromarray(deep))).pixels[0, :, 0].tolist() == [0, 128, 255]
    clear = Image.fromarray(np.dstack([NOISE, np.zeros((6, 4), np.uint8)]))
    np.testing.assert_array_equal(read(tmp_path / "clear.png", encoded(clear)).pixels, NOISE)
    palette = Image.fromarray(NOISE).convert("P")
    assert read(tmp_path / "p.png", encoded(palette, transparency=b"\0\1")).pixels.shape == (6, 4, 3)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = read(tmp_path / "a.png", encoded(Image.fromarray(NOISE), exif=exif)).pixels
    np.testing.assert_array_equal(pixels, np.rot90(NOISE, -1))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "damaged, or of another format"),
        (b"\x89PNG\r\n\x1a\n", "damaged|Truncated|format"),
        (encoded(Image.fromarray(NOISE))[:-30], "truncated|broken|damaged"),
        (encoded(Image.fromarray(NOISE), "GIF"), "another format"),
        (encoded(Image.fromarray(NOISE), "TIFF"), "another format"),
        (encoded(Image.fromarray(NOISE), "PNG", save_all=True, append_images=[Image.fromarray(255 - NOISE)]), "it is animated"),
        (encoded(Image.fromarray(NOISE), "WEBP", save_all=True, append_images=[Image.fromarray(255 - NOISE)]), "it is animated"),
        (encoded(Image.new("1", (9000, 9000))), "9000x9000 pixels"),
        (encoded(Image.new("1", (20_000, 10_000))), "pixels|decompression bomb"),
    ],
    ids=["empty", "header", "truncated", "gif", "tiff", "apng", "animated webp", "large", "bomb"],
)
def test_a_file_that_is_no_usable_image_is_refused_in_one_line(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"init_image is '.*x\.png': expected an image: a PNG, JPEG or WebP file.*\(.*({problem})"
    ) as error:
        read(tmp_path / "x.png", data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        7,
        b"x",
        None,
        [[1]],
        "none.png",
        "a\0b",
        ".",
        np.zeros((2, 2, 3)),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(3, np.uint8),
        np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1 << 14, 1 << 14), (0, 0)),
    ],
    ids=str,
)
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"mask is .*: expected an image"):
        SourceImage.of("mask", value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ConfigError, match="not a regular file"):
        SourceImage.of("init_image", tmp_path / "pipe.png")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_gives_an_image_or_the_error(tmp_path: Path, format: str, at: int, noise: bytes) -> None:
    data = bytearray(encoded(Image.fromarray(np.tile(NOISE, (8, 8, 1))), format))
    at %= len(data)
    data[at : at + len(noise)] = noise
    with suppress(ConfigError):
        assert read(tmp_path / "x", bytes(data)).pixels.ndim == 3


def test_an_image_is_scaled_to_cover_the_size_and_cropped_to_its_middle() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 14:26] = 255
    image = SourceImage.of("init_image", wide)
    assert (image.fit(20, 20)[:, 2:-2] > 250).all()  # the edges are smooth
    assert (image.fit(20, 40)[:, [0, -1]] < 128).all()
    np.testing.assert_array_equal(SourceImage.of("init_image", NOISE).fit(6, 4), NOISE)
    assert image.fit(5, 33).shape == (5, 33, 3)


def test_a_mask_is_stretched_to_its_image_and_fitted_with_it() -> None:
    image = SourceImage.of("init_image", np.zeros((10, 40, 3), np.uint8))
    mask = SourceImage.of("mask", np.repeat([[False, True]], 2, axis=0))
    left, right = np.split(mask.fit_mask(image, 10, 10), 2, axis=1)
    assert not left.any()
    assert right.all()
    threshold = SourceImage.of("mask", np.array([[127, 128]], np.uint8))
    assert threshold.fit_mask(threshold, 1, 2).tolist() == [[False, True]]


def test_requests_hold_images_compare_by_them_and_have_a_strength() -> None:
    plain, changed = Request(prompt="a"), Request(prompt="a", init_image=NOISE)
    assert (plain.used_strength, changed.used_strength) == (None, 0.8)
    assert Request(prompt="a", init_image=NOISE, mask=NOISE).used_strength == 1.0
    assert Request(prompt="a", init_image=NOISE, mask=NOISE, strength=np.float32(0.5)).used_strength == 0.5
    assert changed == Request(prompt="a", init_image=Image.fromarray(NOISE))
    assert changed != Request(prompt="a", init_image=255 - NOISE)
    assert hash(changed) == hash(pickle.loads(pickle.dumps(changed)))
    assert "SourceImage" in repr(changed)
    assert len(repr(changed)) < 200


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"strength": 0.5}, "strength is 0.5: expected None without an init_image"),
        ({"mask": NOISE}, "mask is .*expected None without an init_image"),
        ({"init_image": NOISE, "strength": 0}, "expected a number above 0, up to 1"),
        ({"init_image": NOISE, "strength": 1.01}, "expected a number above 0, up to 1"),
        ({"init_image": NOISE, "strength": float("nan")}, "expected a number above 0, up to 1"),
        ({"init_image": NOISE, "mask": "none.png"}, "mask is 'none.png'.*No such file"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Request(prompt="a", **fields)


def test_bytes_of_a_file_are_decoded_as_the_file_is(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(NOISE))
    assert SourceImage.decode("init_image", data) == read(tmp_path / "a.png", data)
    for wrong in (b"", b"/etc/passwd", data[:40], encoded(Image.fromarray(NOISE), "GIF")):
        with pytest.raises(ConfigError, match=f"init_image is '{len(wrong)} bytes'"):
            SourceImage.decode("init_image", wrong)


def test_a_mask_of_what_is_transparent() -> None:
    alpha = np.zeros((6, 4), dtype=np.uint8)
    alpha[2:, 1:] = 255
    mask = SourceImage.decode_transparency("mask", encoded(Image.fromarray(np.dstack([NOISE, alpha]))))
    np.testing.assert_array_equal(mask.pixels, np.repeat(255 - alpha[:, :, None], 3, axis=2))
    opaque = SourceImage.decode_transparency("mask", encoded(Image.fromarray(NOISE)))
    assert not opaque.pixels.any()
