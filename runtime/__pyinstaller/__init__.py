"""For applications frozen by PyInstaller, which finds this package by its entry point and needs no options then."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The directory with the hooks, for PyInstaller."""
    return [str(Path(__file__).parent)]


def is_needed(module: str) -> bool:
    """Whether an application that opens a runtime can load this module; those for exporting and for the command line stay out."""
    return not module.startswith(("costroute_rt.export", "costroute_rt.cli", "costroute_rt.__pyinstaller"))
