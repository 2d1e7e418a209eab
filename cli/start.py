"""Where the `costroute-rt` command starts: a Python that cannot even load the command line is reported in one line too."""

from __future__ import annotations

import sys

_BACKEND_MISSING = 6
"""Exit code of a library that is missing or damaged, as in `costroute_rt.error`."""


def main() -> None:
    try:
        from costroute_rt.cli.main import main as run
    except Exception as error:
        text = " ".join(_describe(error).split())
        sys.stderr.write(f"error: {text if text.isprintable() else ascii(text)[1:-1]}\n")
        sys.exit(_BACKEND_MISSING)
    run()


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
