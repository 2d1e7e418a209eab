"""Whether the disk has room for a bundle, before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from costroute_rt.error import OutputError, Reason
from costroute_rt.export.bundle.plan import ExportPlan

_GRAPHS_BYTES = 32 << 20
"""Graphs, tokenizers and the manifest, at most."""


def check_room_for(plan: ExportPlan, target: Path, *, copies: bool) -> None:
    """Raise OutputError if the disk of `target`, whose folder exists, has less room than the bundle is expected to take."""
    written, _ = plan.expected_bytes(target.parent, copies=copies)
    free, needed = shutil.disk_usage(target.parent).free, written + _GRAPHS_BYTES
    if written and free < needed:
        raise OutputError(target, f"the disk has {free >> 20} MiB free, the bundle needs {needed >> 20} MiB", reason=Reason.FULL)
