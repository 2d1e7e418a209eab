"""The command line of `benchmarks.parity`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.parity.bench import Comparison, compare_all
from benchmarks.parity.case import Case, all_cases
from benchmarks.report import align_columns, run_facts
from benchmarks.scenario import log

_SAMPLE = 6
"""One of so many cases is run by --quick."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the cases and prints one table; returns exit code 1 if one of them is not equal."""
    args = _parser().parse_args(argv)
    cases = choose_cases(args.only, quick=args.quick)
    if not cases:
        log(f"no case's name matches {args.only}")
        return 2
    command = shlex.join(["python", "-m", "benchmarks.parity", *(sys.argv[1:] if argv is None else argv)])
    os.environ["HF_HUB_OFFLINE"] = "1"
    facts, started, found = run_facts(command, quick=args.quick), time.monotonic(), []
    place = tempfile.TemporaryDirectory(prefix="costroute-rt-") if args.folder is None else nullcontext(str(args.folder))
    with place as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers and transformers warn of settings that these cases need
        for comparison in compare_all(cases, Path(folder)):
            found.append(comparison)
            log(f"  {comparison.case.name}: {' '.join(filter(None, (comparison.verdict, comparison.note)))}")
            if args.json:
                print(json_line(comparison, facts), flush=True)
    if not args.json:
        print("\n".join(report_lines(found, facts, time.monotonic() - started)))
    return 0 if all(each.is_good for each in found) else 1


def choose_cases(only: str | None, *, quick: bool) -> list[Case]:
    """Those whose name the pattern is found in; quick: a sample of one model."""
    cases = [case for case in all_cases() if only is None or re.search(only, case.name)]
    if not (cases and quick):
        return cases
    return [case for case in cases if case.model == cases[0].model and case.steps == 4][::_SAMPLE]


def report_lines(found: Sequence[Comparison], facts: dict[str, Any], seconds: float) -> list[str]:
    """Machine, versions and command, the table, and a summary."""
    machine = facts["device"]
    rows = [("case", "difference", "spread", "change", "verdict", "note")]
    for each in found:
        largest, spread = ("-", "-") if each.largest is None else (str(each.largest), f"{each.spread:.0f}")
        change = "-" if each.change is None else f"{each.change:.1f}"
        rows.append((each.case.name, largest, spread, change, each.verdict, each.note))
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in dict.fromkeys(each.verdict for each in found)}
    return [
        f"benchmarks.parity on {machine['cpu']}, {machine['usable_cores']} cores, {machine['os']}",
        ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        facts["command"],
        "difference: the largest of a pixel, in 1/255, of which 2 are allowed; spread: standard deviation of diffusers' image;",
        "change: its mean difference from the first image of the model at that size with as many steps",
        "",
        *align_columns(rows),
        "",
        f"{len(found)} cases in {seconds:.0f} s: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}",
    ]


def json_line(each: Comparison, facts: dict[str, Any]) -> str:
    """One comparison as a JSON object on one line."""
    values = {"case": each.case.name, "model": each.case.model.name, "scheduler": each.case.scheduler.name, "steps": each.case.steps}
    numbers = {"difference": each.largest, "spread": round(each.spread, 2), "change": each.change, "saturated": round(each.saturated, 4)}
    return json.dumps(
        {"benchmark": "parity", **values, **numbers, "verdict": each.verdict, "note": each.note, "good": each.is_good, **facts}
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description="Our images beside those of diffusers' pipelines.")
    parser.add_argument("--only", metavar="PATTERN", help="cases in whose name this regular expression is found")
    parser.add_argument(
        "--folder", type=Path, help="keep checkpoints, bundles and engines here for the next run (default: a temporary one)"
    )
    parser.add_argument("--quick", action="store_true", help="a few cases of the first model, as a smoke test")
    parser.add_argument("--json", action="store_true", help="print one JSON object per case, each on one line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
