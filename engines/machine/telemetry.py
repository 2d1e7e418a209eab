"""Usage reports of the libraries that we load: off, unless the user decided otherwise. Nothing of ours reports anything.

The one function that imports a library turns its reports off before the import: a library that is loaded already has read its settings.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)

ONNXRUNTIME = ("ORT_DISABLE_TELEMETRY",)
"""ONNX Runtime 1.32 and later write a file in the user's cache directory and look up a host when a session is opened."""
HUB = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
"""huggingface_hub, transformers and diffusers; any of these variables is the user's decision."""


def opt_out(variables: tuple[str, ...]) -> bool:
    """Set the first of `variables` in the environment of this process, unless the user has set one; returns whether it was set now."""
    if any(os.environ.get(name) for name in variables):
        return False
    os.environ[variables[0]] = "1"
    return True


def opt_out_hub() -> None:
    """The same for the torch side: the hub's libraries, and ONNX Runtime, which optimum imports."""
    opt_out(ONNXRUNTIME)
    loaded = sys.modules.get("huggingface_hub.constants")
    if opt_out(HUB) and loaded is not None:
        _log.debug("huggingface_hub was imported before this package: diffusers may keep its setting")
        vars(loaded)[HUB[0]] = True


@contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """Hide the package `openvino_telemetry` while the block imports OpenVINO, which then uses its stub without reports.

    Importing OpenVINO writes two files to ~/intel and sends an event, and no variable turns that off. A user who ran `opt_in_out --opt_in`
    has decided otherwise.
    """
    name = "openvino_telemetry"
    if "openvino" in sys.modules or _has_openvino_consent():
        _log.debug("OpenVINO's usage reports are left as they are: it is loaded already, or the user agreed to them")
        yield
        return
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's mark of a module that must not be imported
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _has_openvino_consent() -> bool:
    """Whether the user's consent file says yes."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", "")) / "Intel Corporation"
    else:
        folder = Path(os.path.expanduser("~")) / "intel"
    try:
        return (folder / "openvino_telemetry").read_text(encoding="utf-8").strip() == "1"
    except (OSError, ValueError):
        return False
