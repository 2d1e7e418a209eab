"""A LoRA as it is given on a command line: FILE or FILE:SCALE."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from costroute_rt.error import ConfigError


def parse_lora(text: str) -> tuple[Path, float]:
    """The file and the scale, 1.0 where none is given; raises ConfigError.

    The scale follows the last colon. A name with colons of its own is taken as it is if such a file exists.
    """
    if not text or text.startswith(":"):
        raise ConfigError("lora", text, "FILE or FILE:SCALE")
    name, colon, tail = text.rpartition(":")
    if not colon or os.path.exists(text) or "/" in tail or "\\" in tail or re.fullmatch("[A-Za-z]", name):
        return Path(text), 1.0
    try:
        scale = float(tail)
    except ValueError:
        raise ConfigError("lora", text, f"a number after the last colon, as in {name}:0.8") from None
    if not math.isfinite(scale):
        raise ConfigError("lora", text, "a finite scale")
    return Path(name), scale
