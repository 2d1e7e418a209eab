"""Images that runs begin with, and masks of the part to paint anew: read within limits, turned upright, and fitted to a size."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.regular_file import read_regular

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]

_MOST_BYTES, _MOST_PIXELS = 64 << 20, 1 << 26
_FORMATS = ("PNG", "JPEG", "WEBP")
_EXPECTED = "an image: a PNG, JPEG or WebP file, a PIL image, or an array uint8[height, width, 3]"
_REPAINTED = 128
"""Brightness of a mask from which on the image is painted anew; diffusers' threshold of 0.5."""
_one_at_a_time = threading.Lock()
"""Filters of warnings belong to the whole process."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image in memory; two of the same pixels are equal."""

    pixels: Pixels = field(compare=False, repr=False)
    """uint8[height, width, 3], sRGB, read-only"""
    sha256: str
    """Of its size and pixels."""

    @classmethod
    def of(cls, name: str, value: object) -> SourceImage:
        """The image that the argument `name` gives: a path, a PIL image, an array, or a SourceImage.

        Files are turned upright by their EXIF orientation; transparency is ignored; of arrays, bool and grey ones are accepted too.
        Raises ConfigError for anything else, for files that are damaged or animated, and for more than 64 MiB or 67 million pixels.
        """
        if isinstance(value, cls):
            return value
        try:
            pixels = _read(value)
        except _UnusableError as error:
            shown = os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else f"a value of type {type(value).__name__}"
            raise ConfigError(name, shown, f"{_EXPECTED} ({error})") from error.__cause__
        pixels.setflags(write=False)
        height, width = pixels.shape[:2]
        return cls(pixels, hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest())

    @classmethod
    def decode(cls, name: str, data: bytes) -> SourceImage:
        """The image in the bytes of a file; limits and errors as for `of`."""
        return cls._decoded(name, data, _from_file)

    @classmethod
    def decode_transparency(cls, name: str, data: bytes) -> SourceImage:
        """A mask of the image in the bytes of a file: white where it is transparent. Limits and errors as for `of`."""
        return cls._decoded(name, data, lambda given: _from_file(given, _transparency))

    @classmethod
    def _decoded(cls, name: str, data: bytes, read: Callable[[bytes], Pixels]) -> SourceImage:
        try:
            if len(data) > _MOST_BYTES:
                raise _UnusableError(f"it has more than {_MOST_BYTES >> 20} MiB")
            pixels = read(data)
        except _UnusableError as error:
            raise ConfigError(name, f"{len(data)} bytes", f"{_EXPECTED} ({error})") from error.__cause__
        return cls.of(name, pixels)

    def fit(self, height: int, width: int) -> Pixels:
        """uint8[height, width, 3]: scaled to cover that size and cropped to its middle, as diffusers' resize_mode "crop"."""
        return np.array(_fit(self._image(), height, width))

    def fit_mask(self, image: SourceImage, height: int, width: int) -> npt.NDArray[np.bool_]:
        """bool[height, width]: where this mask of `image` is bright; it is stretched to the image's size, and then fitted as the image."""
        size, mask = (image.pixels.shape[1], image.pixels.shape[0]), self._image().convert("L")
        return np.array(_fit(mask if mask.size == size else mask.resize(size), height, width)) >= _REPAINTED

    def _image(self) -> Image:
        from PIL import Image

        return Image.fromarray(self.pixels)


class _UnusableError(Exception):
    """Why a value is no usable image."""


def _fit(image: Image, height: int, width: int) -> Image:
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)


def _read(value: object) -> Pixels:
    from PIL import Image

    if isinstance(value, np.ndarray):
        return _from_array(value)
    if isinstance(value, Image.Image):
        _check_size(*value.size)
        return _from_image(value)
    if not isinstance(value, str | os.PathLike):
        raise _UnusableError("it is something else")
    try:
        data = read_regular(value, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise _UnusableError((error.strerror if isinstance(error, OSError) else None) or str(error)) from error
    return _from_file(data)


def _from_array(array: npt.NDArray[Any]) -> Pixels:
    """RGB of an array with one channel, three, or four."""
    if array.ndim not in (2, 3) or array.dtype not in (np.uint8, np.bool_) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise _UnusableError(f"it is {array.dtype}{list(array.shape)}")
    _check_size(array.shape[1], array.shape[0])
    levels = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    channels = levels.reshape(*levels.shape[:2], -1)[:, :, :3]
    return np.array(np.broadcast_to(channels, (*levels.shape[:2], 3)))


def _transparency(image: Image) -> Pixels:
    """255 where a PIL image is transparent, 0 where it is opaque, in three equal channels."""
    alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
    return np.array(np.broadcast_to(255 - alpha[:, :, None], (*alpha.shape, 3)))


def _from_file(data: bytes, convert: Callable[[Image], Pixels] | None = None) -> Pixels:
    """Pixels of an image file; convert: makes them of the opened image, None means RGB."""
    from PIL import Image

    try:
        with _one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_size(*image.size)
                if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
                    raise _UnusableError("it is animated")
                return (convert or _from_image)(image)
    except _UnusableError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise _UnusableError(_reason(error)) from error


def _from_image(image: Image) -> Pixels:
    """RGB of a PIL image that is loaded now."""
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits per pixel, of which a conversion would keep the lowest
            levels = (np.clip(np.asarray(upright), 0, 0xFFFF) / 257).round()
            return np.array(np.broadcast_to(levels[:, :, None], (*levels.shape, 3)), dtype=np.uint8)
        if "transparency" in upright.info:
            upright = upright.convert("RGBA")
        return np.array(upright.convert("RGB"))
    except Exception as error:  # as above; an image of the caller's may read its file only now
        raise _UnusableError(_reason(error)) from error


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= _MOST_PIXELS:
        raise _UnusableError(f"it has {width}x{height} pixels, of which {_MOST_PIXELS:,} are the most" if width * height else "it is empty")


def _reason(error: Exception) -> str:
    """What a library says, without the names of its objects in memory."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return "it is damaged, or of another format" if "BytesIO" in text or not text else text
