"""Where the `costroute-rt` command starts: one line also for a Python that cannot load the command line, and for Ctrl-C meanwhile."""

from __future__ import annotations

import sys
from contextlib import suppress

_CANCELLED = 130
_BACKEND_MISSING = 6
"""Exit code of a library that is missing or damaged, as in `costroute_rt.error`."""


def main() -> None:
    try:
        try:
            from costroute_rt.cli.main import main as run
        except Exception as error:
            text = " ".join(_describe(error).split())
            _say(f"error: {text if text.isprintable() else ascii(text)[1:-1]}")
            sys.exit(_BACKEND_MISSING)
        run()
    except KeyboardInterrupt:  # before the command line handles it, or after
        _say("error: cancelled")
        sys.exit(_CANCELLED)


def _say(text: str) -> None:
    with suppress(OSError, AttributeError):  # stderr is closed: then it is None
        sys.stderr.write(f"{text}\n")


def _describe(error: Exception) -> str:
    """What is missing or damaged, with what fixes it; plainer where not even that can be found out."""
    try:
        from costroute_rt.cli.command import fix_command
        from costroute_rt.engines.machine.installation import explain

        damage = explain(error)
        if damage is not None:
            command = fix_command(damage)
            return f"{damage} ({command})" if command else str(damage)
    except Exception:  # a library that this needs is damaged too
        pass
    return f"costroute-rt cannot be started: {type(error).__name__}: {error}"
