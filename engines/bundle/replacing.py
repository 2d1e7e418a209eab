"""Which folders a new bundle may replace: bundles with nothing else in them, because what is replaced is deleted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from costroute_rt.engines.bundle.manifest import FORMAT, MANIFEST, MANIFEST_SHA256
from costroute_rt.engines.bundle.section import MOST_BYTES, parse_section, shorten
from costroute_rt.error import OutputError, Reason
from costroute_rt.regular_file import read_regular


def check_target(target: Path, *, force: bool) -> str | None:
    """What a bundle written to `target` replaces, in words; None if nothing exists there.

    Raises OutputError for what must not be replaced: anything without `force`; with it whatever this program did not make, that is all but
    a folder with a bundle's manifest, its matching hash, and no file that it does not list. A damaged bundle may be replaced.
    """
    if not os.path.lexists(target):
        return None
    if not force:
        raise OutputError(target, "it exists already", reason=Reason.EXISTS)

    def refuse(problem: str) -> NoReturn:
        raise OutputError(target, f"{problem}, so it is not replaced")

    try:
        if not target.is_dir():
            refuse("it is not a bundle")
        data, stated = (read_regular(target / name, MOST_BYTES, follows_links=False) for name in (MANIFEST, MANIFEST_SHA256))
        section = parse_section(data, lambda _: refuse("it is not a bundle"))
        if section.values.get("format") != FORMAT or hashlib.sha256(data).hexdigest().encode() != stated.strip():
            refuse("it is not a bundle")
        listed = section.values.get("files")
        files = listed if isinstance(listed, Mapping) else {}
        foreign = _find_foreign(target, {MANIFEST, MANIFEST_SHA256, *files})
    except FileNotFoundError:
        refuse("it is not a bundle")
    except OSError as error:
        refuse(f"it cannot be read ({error.strerror or error})")
    if foreign is not None:
        refuse(f"it holds {shorten(foreign)}, which is not part of the bundle")
    family, revision = (shorten(section.values.get(name)) for name in ("family", "revision"))
    return f"the bundle of family {family}, revision {revision}, with {len(files)} files"


def _find_foreign(root: Path, known: set[str]) -> str | None:
    """The first file, or link to a folder, that is not known; raises OSError for a folder that cannot be read."""

    def fail(error: OSError) -> NoReturn:
        raise error

    for folder, folders, files in os.walk(root, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (*files, *links):
            path = Path(folder, name).relative_to(root).as_posix()
            if path not in known:
                return path
    return None
