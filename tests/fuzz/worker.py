"""The process in which cases run one after the other; it says on a pipe what it does, because a case may end it."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.kinds import KINDS, draw_kind
from tests.fuzz.place import Place

MEMORY_BYTES, FILE_BYTES = 12 << 30, 1 << 30


def run_case(seed: int, number: int, kind: str | None, template: Path, work: Path, report: Any) -> None:
    """One case, which depends on seed, number and kind alone; kind: None means that it is drawn too."""
    random = Random(f"{seed}/{number}")
    kind = kind or draw_kind(random, number)
    report(start=number, kind=kind)
    started, place = time.perf_counter(), Place.make(template, work / f"case-{number}")
    case = Case(random, template, place, lambda text: report(note=text))
    try:
        KINDS[kind][1](case)
    except BaseException as error:  # of the fuzz test itself, or worse
        case.problems.append("fuzz test: " + "".join(traceback.format_exception(error))[-3000:])
    finally:
        place.remove()
    report(end=number, problems=case.problems, codes=case.codes, s=time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--seed", "--first", "--pipe"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--template", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--kind", default=None)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    warnings.simplefilter("ignore")
    pipe = os.fdopen(given.pipe, "w", encoding="utf-8", errors="backslashreplace")

    def report(**values: Any) -> None:
        pipe.write(json.dumps(values) + "\n")
        pipe.flush()

    number = given.first
    while True:
        run_case(given.seed, number, given.kind, given.template, given.work, report)
        number += 1


if __name__ == "__main__":
    main()
