"""Where the `costroute-rt` command starts: one line also for a Python that cannot load the command line, and for Ctrl-C meanwhile."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress

_CANCELLED = 130
_BACKEND_MISSING = 6
"""Exit code of a library that is missing or damaged, as in `costroute_rt.error`."""


_SHORT = {"gen", "route"}
"""Commands that start, make something and end. NumPy's matrix library makes a thread for each core when it is loaded, which spin at their
first product; these commands have no product that gains from it."""
_COLLECT_EVERY = 20_000
"""New objects between two searches for unreachable ones: at the usual 700, starting alone searches hundreds of times and finds nothing."""


def main() -> None:
    gc.set_threshold(_COLLECT_EVERY, 10, 10)
    if _SHORT & set(sys.argv[1:2]):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        _run()
    except SystemExit as end:
        leave(end.code)
        raise


def leave(code: object) -> None:
    """End the process here, if it has nothing left to do: taking apart the interpreter and its libraries takes up to 50 ms.

    Returns where Python has to end it: a thread still runs, or the output of a successful command cannot be written, which is an error.
    """
    if not isinstance(code, int):
        return
    try:
        _flush()
        if threading.active_count() > 1 or sys.flags.inspect:
            return
        atexit._run_exitfuncs()  # some of them print
        _flush()
    except ValueError:  # closed, which Python reports at its end
        return
    except OSError:  # standard output is full: an error keeps its own code, a success becomes one
        if code == 0:
            return
    os._exit(code & 0xFF)


def _flush() -> None:
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except OSError:  # its messages are lost, but what the command made is not
            sys.stderr = None
    if sys.stdout is not None:
        sys.stdout.flush()


def _run() -> None:
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
