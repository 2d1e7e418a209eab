"""PNG files that contain the settings they were made with."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError, OutputError

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

SETTINGS_KEY = "costroute"
PARAMETERS_KEY = "parameters"
"""The key under which AUTOMATIC1111's web UI and compatible tools look for settings."""


def write_png(path: Path, pixels: npt.NDArray[np.uint8], settings: Mapping[str, Any]) -> Path:
    """Write `pixels`, uint8[height, width, 3], with `settings`, by way of a temporary file; returns `path`.

    Raises OutputError if the file cannot be written, ConfigError if `path` does not end in .png.
    """
    from PIL import Image

    if path.suffix.lower() != ".png":
        raise ConfigError("path", str(path), "a file name that ends in .png")
    if os.path.isdir(path):
        raise OutputError(path, "it is a directory")
    temporary = path.parent / f".costroute-{secrets.token_hex(8)}.tmp"
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except (OSError, ValueError) as error:
        raise OutputError(path, _problem(error)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            Image.fromarray(pixels).save(file, format="PNG", pnginfo=_chunks(settings))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, (OSError, ValueError)):
            raise OutputError(path, _problem(error)) from error
        raise
    return path


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings that `write_png` stored in a PNG; raises ConfigError if the file cannot be read or has none."""
    from PIL import Image

    expected = "a PNG written by costroute-rt"
    try:
        with Image.open(path, formats=("PNG",)) as image:
            text = image.info.get(SETTINGS_KEY)
    except Exception as error:  # Pillow raises half a dozen kinds for damaged files
        raise ConfigError("path", str(path), f"{expected} ({_problem(error)})") from error
    if text is None:
        raise ConfigError("path", str(path), f"{expected}; this one has no {SETTINGS_KEY!r} text")
    try:
        settings = json.loads(text)
        json.dumps(settings, allow_nan=False, ensure_ascii=False).encode()  # we never write infinities or unpaired surrogates
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("path", str(path), f"{expected}; its {SETTINGS_KEY!r} text is not JSON") from error
    if not isinstance(settings, dict):
        raise ConfigError("path", str(path), f"{expected}; its {SETTINGS_KEY!r} text is not a JSON object")
    return settings


def format_parameters(settings: Mapping[str, Any]) -> str:
    """Settings in the form of AUTOMATIC1111's web UI: prompt, negative prompt, then one line of `Key: value` pairs."""
    pairs = {
        "Steps": settings.get("num_inference_steps"),
        "Sampler": settings.get("scheduler"),
        "CFG scale": settings.get("guidance_scale"),
        "Seed": settings.get("seed"),
        "Size": f"{settings.get('width')}x{settings.get('height')}",
        "Model": settings.get("candidate"),
        "Version": f"costroute-rt {settings.get('version')}",
    }
    lines = [str(settings.get("prompt", ""))]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in pairs.items())])


def _chunks(settings: Mapping[str, Any]) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_itxt(SETTINGS_KEY, json.dumps(settings, ensure_ascii=False, sort_keys=True))
    chunks.add_text(PARAMETERS_KEY, format_parameters(settings))
    return chunks


def _problem(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
