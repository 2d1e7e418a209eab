"""Image files that contain the settings they were made with, as PNG, JPEG or WebP."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError, OutputError
from costroute_rt.image_settings import describe_problem, exif_data, png_texts
from costroute_rt.request import check_whole

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
"""Formats by the suffix of a file name."""
QUALITY = 90
_PNG_LEVEL = 1
"""Of zlib: 8 times as fast as its usual 6, for files a fifth larger. At 6, a small image takes as long to compress as to make."""
_NAMES = "png, jpeg or webp"
_MOST_PIXELS = {"jpeg": 65_500, "webp": 16_383}
"""Longest side."""
_MOST_EXIF_BYTES = 65_533
"""Of a JPEG."""
_MOST_SHOWN, _SHEET_PIXELS, _GAP = 36, 1024, 4


class Writable(Protocol):
    """A binary file or buffer."""

    def write(self, data: bytes, /) -> object: ...


def save_image(
    target: str | os.PathLike[str] | Writable, pixels: npt.NDArray[np.uint8], settings: Mapping[str, Any], format: str | None, quality: int
) -> Path | None:
    """Write `pixels`, uint8[height, width, 3], with `settings`; returns the path, or None for an open file.

    target: a path, whose file is replaced atomically, or an open binary file.
    format: None means by the suffix of the file's name; PNG for an open file without one.
    Raises OutputError if the file cannot be written, ConfigError for other targets and formats.
    """
    if isinstance(target, str | os.PathLike):
        path = Path(os.fsdecode(target))
        chosen = _format_of(path) if format is None else check_format(format)
        if os.path.isdir(path):
            raise OutputError(path, "it is a directory")
        _write_file(path, encode_image(pixels, settings, chosen, quality))
        return path
    if not _is_open_binary(target):
        raise ConfigError("target", target, "a path or an open binary file")
    name = getattr(target, "name", None)
    by_name = SUFFIXES.get(Path(name).suffix.lower(), "png") if isinstance(name, str) else "png"
    _write_to(target, encode_image(pixels, settings, by_name if format is None else check_format(format), quality))
    return None


def encode_image(pixels: npt.NDArray[np.uint8], settings: Mapping[str, Any], format: str, quality: int) -> bytes:
    """The bytes of an image file with `settings`; raises ConfigError for a format that cannot hold the image or the settings.

    quality: 1 to 100, of JPEG and WebP.
    """
    from PIL import Image

    quality, image, buffer = check_quality(quality), Image.fromarray(pixels), io.BytesIO()
    most = _MOST_PIXELS.get(format, max(image.size))
    if max(image.size) > most:
        raise ConfigError("format", format, f"png, because the image is longer than {most:,} pixels")
    if format == "png":
        image.save(buffer, "PNG", pnginfo=png_texts(settings), compress_level=_PNG_LEVEL)
    elif format == "jpeg":
        save_jpeg(image, buffer, quality, _jpeg_exif(settings))
    else:
        image.save(buffer, "WEBP", quality=quality, exif=exif_data(settings))
    return buffer.getvalue()


def save_jpeg(image: Image, buffer: io.BytesIO, quality: int, exif: bytes = b"") -> None:
    """Write a JPEG, from quality 90 on without reducing the resolution of colours."""
    image.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= QUALITY else 2, exif=exif)


def check_format(format: object) -> str:
    """The format's name in lower case: png, jpeg or webp; raises ConfigError for other formats."""
    found = SUFFIXES.get(f".{format.lower().removeprefix('.')}") if isinstance(format, str) else None
    if found is None:
        raise ConfigError("format", format, _NAMES)
    return found


def check_quality(quality: object) -> int:
    """The quality; raises ConfigError unless it is a whole number from 1 to 100."""
    found = check_whole("quality", quality)
    if not 1 <= found <= 100:
        raise ConfigError("quality", quality, "1 to 100")
    return found


def contact_sheet(pixels: npt.NDArray[np.uint8]) -> Image:
    """The first images, at most 36 of them, in rows of a sheet about as wide as it is high. pixels: uint8[count, height, width, 3]."""
    from PIL import Image

    shown = pixels[:_MOST_SHOWN]
    columns = int(np.ceil(np.sqrt(len(shown))))
    rows = -(-len(shown) // columns)
    height, width = shown.shape[1:3]
    scale = min(1.0, _SHEET_PIXELS / (columns * width), _SHEET_PIXELS / (rows * height))
    cell_width, cell_height = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (columns * (cell_width + _GAP) - _GAP, rows * (cell_height + _GAP) - _GAP), "white")
    for index, each in enumerate(shown):
        row, column = divmod(index, columns)
        small = Image.fromarray(each).resize((cell_width, cell_height), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * (cell_width + _GAP), row * (cell_height + _GAP)))
    return sheet


def _format_of(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError("target", str(path), f"a file name that ends in {', '.join(SUFFIXES)}, or a format: {_NAMES}")
    return SUFFIXES[path.suffix.lower()]


def _is_open_binary(target: object) -> bool:
    is_text = isinstance(target, io.TextIOBase)
    return not is_text and callable(getattr(target, "write", None)) and not getattr(target, "closed", False)


def _jpeg_exif(settings: Mapping[str, Any]) -> bytes:
    """The EXIF data, without the web UI's form if both do not fit into a JPEG."""
    for has_parameters in (True, False):
        exif = exif_data(settings, has_parameters=has_parameters)
        if len(exif) <= _MOST_EXIF_BYTES:
            return exif
    raise ConfigError("format", "jpeg", "png or webp, because the settings, with the prompt, are too long for a JPEG")


def _write_file(path: Path, data: bytes) -> None:
    """Replace the file by way of a temporary one."""
    temporary = path.parent / f".costroute-{secrets.token_hex(8)}.tmp"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except (OSError, ValueError) as error:
        raise OutputError(path, describe_problem(error)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, (OSError, ValueError)):
            raise OutputError(path, describe_problem(error)) from error
        raise


def _write_to(file: Writable, data: bytes) -> None:
    """Write everything to an open file, which may take less than it is given."""
    name, view = str(getattr(file, "name", None) or type(file).__name__), memoryview(data)
    try:
        while view:
            written = file.write(view if isinstance(file, io.RawIOBase) else bytes(view))  # type: ignore[arg-type]
            if not isinstance(file, io.RawIOBase):
                return
            if not written:
                raise OutputError(name, "it takes no more data")
            view = view[int(written) :]  # type: ignore[call-overload]
    except (TypeError, io.UnsupportedOperation) as error:
        raise ConfigError("target", file, f"a path or an open binary file ({describe_problem(error)})") from error
    except (OSError, ValueError) as error:
        raise OutputError(name, describe_problem(error)) from error
