"""`python -m tests.fuzz --seconds 3600`: tries odd commands, files, environments and calls, and prints what ends badly."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.fuzz.fuzz import Failure, Summary, fuzz
from tests.fuzz.kinds import KINDS
from tests.fuzz.place import make_template


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=None, help="default: by the clock")
    parser.add_argument("--only", type=int, default=None, metavar="CASE", help="repeat this case of the seed")
    parser.add_argument("--kind", choices=list(KINDS), default=None, help="only cases of this kind")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends with the summary, as Ctrl-C does
    seed = time.time_ns() % 10**9 if given.seed is None else given.seed
    sys.stdout.write(f"seed {seed}\n")

    def show(failure: Failure) -> None:
        sys.stdout.write(f"\n{failure.describe()}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="costroute-fuzz-") as folder:
        template, work = make_template(Path(folder) / "template"), Path(folder) / "work"
        work.mkdir()
        first, most = (0, None) if given.only is None else (given.only, 1)
        summary = Summary(seed, given.kind)
        with suppress(KeyboardInterrupt):
            fuzz(summary, template, work, seconds=given.seconds, first=first, most=most, on_failure=show)
    sys.stdout.write(f"\n{summary.describe()}\n")
    return bool(summary.failures)


if __name__ == "__main__":
    sys.exit(main())
