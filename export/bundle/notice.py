"""Copies the licence and notice files of a model into its bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.regular_file import read_regular

_MOST_BYTES = 4 << 20
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]")


def copy_notices(files: Iterable[Path], folder: Path) -> None:
    """Copy the files into `folder`, under their own names where these can be in a bundle; raises BundleError."""
    for number, path in enumerate(files):
        try:
            data = read_regular(path, _MOST_BYTES)
        except OSError as error:
            raise BundleError(path, f"it cannot be copied: {error.strerror or error}", "shorten it, or give it another name") from error
        name = path.name if _PLAIN.fullmatch(path.name) else f"LICENSE-{number + 1}"
        (folder / name).write_bytes(data)
