"""File names as native libraries take them."""

from __future__ import annotations

import os
from pathlib import Path

from costroute_rt.error import EngineError, Reason


def native_path(path: Path, reason: Reason) -> str:
    """The path for a library that encodes it as UTF-8, whatever the locale's encoding; raises EngineError for a name that is not UTF-8."""
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        problem = "the library opens files by names in UTF-8 alone, and this one has other bytes: use another directory"
        raise EngineError(problem, reason=reason, path=path) from error
