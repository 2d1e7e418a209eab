"""The settings that an image file contains: how they are written into PNG, JPEG and WebP files, and read back.

PNG: the settings as JSON in the text `costroute`, and in the form of AUTOMATIC1111's web UI in the text `parameters`.
JPEG and WebP: in EXIF data, as JSON (ASCII) in ImageDescription, and in the web UI's form in UserComment, where the web UI has it too.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from costroute_rt.embedded_text import Readable, can_seek, find_text
from costroute_rt.error import ConfigError
from costroute_rt.regular_file import open_regular

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

SETTINGS_KEY = "costroute"
PARAMETERS_KEY = "parameters"
"""The key under which AUTOMATIC1111's web UI and compatible tools look for settings."""
_IMAGE_DESCRIPTION, _SOFTWARE, _EXIF_IFD, _USER_COMMENT = 270, 305, 0x8769, 0x9286
_MOST_CHARACTERS = 1 << 20
_EXPECTED = "a PNG, JPEG or WebP file written by costroute-rt"


def read_settings(source: str | os.PathLike[str] | bytes | bytearray | memoryview | Readable) -> dict[str, Any]:
    """The settings that `Result.save` wrote into an image file.

    source: a path, the bytes of a file, or an open binary file, which is read from its start if it can seek; its position is restored.
    Reads little more than the settings, and never decodes the image. Raises ConfigError if there are no settings that can be read.
    """
    name = _name(source)
    try:
        with _open(source) as file:
            text = find_text(file, SETTINGS_KEY)
    except (OSError, ValueError, struct.error, zlib.error, BufferError, OverflowError) as error:
        raise ConfigError("source", name, f"{_EXPECTED} ({describe_problem(error)})") from error
    if text is None:
        raise ConfigError("source", name, f"{_EXPECTED}; this one has no settings")
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError("source", name, f"{_EXPECTED}; its settings are too long")
    try:
        settings = json.loads(text)
        json.dumps(settings, allow_nan=False, ensure_ascii=False).encode()  # we never write infinities or unpaired surrogates
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("source", name, f"{_EXPECTED}; its settings are not JSON") from error
    if not isinstance(settings, dict):
        raise ConfigError("source", name, f"{_EXPECTED}; its settings are not a JSON object")
    return settings


def format_parameters(settings: Mapping[str, Any]) -> str:
    """Settings in the form of AUTOMATIC1111's web UI: prompt, negative prompt, then one line of `Key: value` pairs."""
    scale = settings.get("guidance_scale")
    pairs = {
        "Steps": settings.get("num_inference_steps"),
        "Sampler": settings.get("scheduler"),
        "CFG scale": 1.0 if scale is None else scale,
        "Seed": settings.get("seed"),
        "Size": f"{settings.get('width')}x{settings.get('height')}",
        "Model": settings.get("candidate"),
        "Denoising strength": settings.get("strength"),
        "Version": f"costroute-rt {settings.get('version')}",
    }
    if pairs["Denoising strength"] is None:
        del pairs["Denoising strength"]
    lines = [str(settings.get("prompt", ""))]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in pairs.items())])


def png_texts(settings: Mapping[str, Any]) -> PngInfo:
    """The text chunks of a PNG."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_itxt(SETTINGS_KEY, json.dumps(settings, ensure_ascii=False, sort_keys=True))
    chunks.add_text(PARAMETERS_KEY, format_parameters(settings))
    return chunks


def exif_data(settings: Mapping[str, Any], *, has_parameters: bool = True) -> bytes:
    """The EXIF data of a JPEG or WebP. has_parameters: include the form of the web UI."""
    from PIL.Image import Exif

    exif = Exif()
    exif[_IMAGE_DESCRIPTION] = json.dumps(settings, sort_keys=True)
    exif[_SOFTWARE] = f"costroute-rt {settings.get('version')}"
    if has_parameters:
        exif[_EXIF_IFD] = {_USER_COMMENT: b"UNICODE\0" + format_parameters(settings).encode("utf-16-be")}
    return exif.tobytes()


def describe_problem(error: BaseException) -> str:
    """The text of an error of the system or of a library, without a file name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _name(source: object) -> object:
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    return str(source) if isinstance(source, str | os.PathLike) else source


@contextmanager
def _open(source: Any) -> Iterator[Readable]:
    """The source as a file at its start."""
    if isinstance(source, str | os.PathLike):
        with open_regular(source) as file:
            yield file
    elif isinstance(source, bytes | bytearray | memoryview):
        yield BytesIO(source)
    elif not hasattr(source, "read"):
        raise ValueError("neither a path, bytes nor an open file")
    elif not can_seek(source):
        yield source
    else:
        position = source.tell()
        source.seek(0)
        try:
            yield source
        finally:
            source.seek(position)
