"""A textual inversion as it is given on a command line: FILE or WORD=FILE."""

from __future__ import annotations

import os
from pathlib import Path

from costroute_rt.error import ConfigError


def parse_embedding(text: str) -> tuple[Path, str | None]:
    """The file, and the word that stands for it in prompts (None if the file's own name is used); raises ConfigError.

    The word ends at the first equals sign. A path with one of its own is taken as it is if such a file exists.
    """
    word, sign, file = text.partition("=")
    if text and (not sign or os.path.exists(text)):
        return Path(text), None
    if not word or not file:
        raise ConfigError("a textual inversion", text, "FILE or WORD=FILE")
    return Path(file), word
