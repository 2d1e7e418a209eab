"""The licence of a model: its name, as the model card gives it, and the files to keep with the model."""

from __future__ import annotations

import re
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.weight_file import DOWNLOAD_AGAIN, check_place
from costroute_rt.regular_file import read_regular

UNKNOWN = "unknown"
_NOTICES = ("LICENSE", "LICENCE", "NOTICE", "README")
_MOST_BYTES = 4 << 20
_ENTRY = re.compile(r"^(license|license_name):[ \t]*['\"]?([\w.+ -]{1,80}?)['\"]?[ \t]*$", re.MULTILINE | re.ASCII)


def find_licenses(folder: Path) -> tuple[Path, ...]:
    """The licence and notice files in a folder; raises BundleError for links out of it."""
    found = sorted(path for path in folder.iterdir() if path.name.upper().startswith(_NOTICES) and not path.is_dir())
    for path in found:
        check_place(path, folder)
    return tuple(found)


def license_name(licenses: tuple[Path, ...]) -> str:
    """The licence that a model card among the files names; `unknown` without one. Raises BundleError if the card cannot be read."""
    card = next((path for path in licenses if path.name.upper().startswith("README")), None)
    if card is None:
        return UNKNOWN
    try:
        text = read_regular(card, _MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise BundleError(card, f"it cannot be read: {error.strerror or error}", DOWNLOAD_AGAIN) from error
    return _from_front_matter(text)


def _from_front_matter(text: str) -> str:
    """`license_name` of the YAML at the top of a model card, where `license` says `other`; else `license`."""
    parts = text.split("---", 2)
    if len(parts) < 3 or parts[0].strip("\ufeff \r\n"):
        return UNKNOWN
    entries = dict(_ENTRY.findall(parts[1]))
    name = entries.get("license", UNKNOWN)
    return str(entries.get("license_name", name) if name == "other" else name)
