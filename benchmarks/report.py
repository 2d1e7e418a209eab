"""Outcomes as a table with their targets, or as JSON lines; and the command line all benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.scenario import ABOVE_ZERO, Figure, Measured, Outcome, Scenario, Target, attempt
from costroute_rt.engines.machine import device

_PACKAGES = (
    "costroute-rt",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tokenizers",
    "pillow",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "diffusers",
    "transformers",
    "optimum",
    "optimum-onnx",
)
_DECIMALS = {"GB": 2, "score": 4, "share": 3, "ratio": 2, "count": 0, "dB": 1, "s": 3, "ms": 1, "MB": 1}
_WIDEST = 9
"""Figures beside each other; a table with more of them is turned."""


def make_parser(name: str, about: str) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per scenario, one a line")
    parser.add_argument("--bundle", type=Path, help="bundle directory (default: the postcard family that ships with the package)")
    parser.add_argument("--home", type=Path, help="directory of the engines (default: $COSTROUTE_HOME, else the user's cache directory)")
    parser.add_argument("--quick", action="store_true", help="few repeats, to see that everything runs; its figures say little")
    return parser


def run_benchmark(name: str, args: argparse.Namespace, argv: Sequence[str] | None, run: Callable[[], Sequence[Outcome]]) -> int:
    """Runs, reports on stdout and returns the exit code: 1 where a scenario failed or a figure fell short."""
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *(sys.argv[1:] if argv is None else argv)])
    facts = circumstances(command, quick=args.quick)  # before the benchmark itself keeps the machine busy
    outcomes: list[Outcome] = []

    def collect(_: Scenario) -> Measured:
        outcomes.extend(run())
        return Measured(figures=())

    whole = attempt(Scenario(name=f"benchmarks.{name}"), collect)
    if whole.error is not None:  # what every scenario needs is not there
        outcomes.append(whole)
    lines = [json_line(name, outcome, facts) for outcome in outcomes] if args.json else report_lines(name, outcomes, facts)
    print("\n".join(lines), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def circumstances(command: str, *, quick: bool) -> dict[str, Any]:
    """What a figure depends on beside the code: device, versions, command."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "device": {**device.device_facts(), "load_average": load},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "command": command,
        "quick": quick,
    }


def installed_versions() -> dict[str, str]:
    """Versions of what takes part, where it is installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def json_line(benchmark: str, outcome: Outcome, facts: dict[str, Any]) -> str:
    """One outcome as a JSON object on one line."""
    scenario = outcome.scenario
    return json.dumps(
        {
            "benchmark": benchmark,
            "scenario": {
                "name": scenario.name,
                "settings": dict(scenario.settings),
                "warm_up": scenario.warm_up,
                "repeats": scenario.repeats,
            },
            "figures": [_figure_json(figure, scenario.targets.get(figure.name)) for figure in outcome.figures],
            "notes": dict(outcome.notes),
            "missing": [name for name in scenario.targets if outcome.find(name) is None],
            "error": outcome.error,
            "good": outcome.is_good,
            **facts,
        },
        ensure_ascii=False,
    )


def report_lines(benchmark: str, outcomes: Sequence[Outcome], facts: dict[str, Any]) -> list[str]:
    """Where it ran, the figures, and the verdicts."""
    about, versions = facts["device"], facts["versions"]
    lines = [
        f"benchmarks.{benchmark} on {about['cpu']}, {about['usable_cores']} cores, {about['os']}, load {about['load_average']}",
        ", ".join(f"{name} {number}" for name, number in versions.items()),
        facts["command"],
    ]
    if facts["quick"]:
        lines.append("a quick run: its figures say little")
    for heading in dict.fromkeys(figure.table for outcome in outcomes for figure in outcome.figures):
        lines += ["", *([f"{heading}:"] if heading else []), *_table_of(outcomes, heading)]
    verdicts = [row for outcome in outcomes for row in _verdicts(outcome)]
    if verdicts:
        lines += ["", *align([("target", "found", "wanted", ""), *verdicts])]
    plain = [outcome for outcome in outcomes if not outcome.figures and outcome.error is None]
    lines += [f"{outcome.scenario.name}: {', '.join(outcome.notes.values())}" for outcome in plain]
    failed = [f"failed: {outcome.scenario.name}: {outcome.error}" for outcome in outcomes if outcome.error is not None]
    return [*lines, *([""] if failed else []), *failed]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other, the first one to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = [not any(row[index][:1].isdigit() for row in rows[1:]) for index in range(len(widths))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index == 0 or words[index] else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def show(value: float, unit: str) -> str:
    """A number with as many decimals as its unit deserves."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit not in _DECIMALS:
        return f"{value:g}"
    units = {"ratio": "x", "ms": " ms", "s": " s", "dB": " dB", "MB": " MB", "GB": " GB"}
    return f"{value:.{_DECIMALS[unit]}f}" + units.get(unit, "")


def show_target(target: Target, unit: str) -> str:
    """`>= 97.0 %`, `<= 3.0 ms`, `0.90 to 1.10` or, for the least low end there is, `above 0`."""
    if target == ABOVE_ZERO:
        return "above 0"
    if target.low > float("-inf") and target.high < float("inf"):
        return f"{show(target.low, unit)} to {show(target.high, unit)}"
    return f">= {show(target.low, unit)}" if target.low > float("-inf") else f"<= {show(target.high, unit)}"


def _table_of(outcomes: Sequence[Outcome], heading: str) -> list[str]:
    """Scenarios down and figures across, or the other way round where there are many figures."""
    names = list(dict.fromkeys(figure.name for outcome in outcomes for figure in outcome.figures if figure.table == heading))
    shown = [
        outcome for outcome in outcomes if any(figure.table == heading for figure in outcome.figures) or (outcome.error and not heading)
    ]
    notes = [] if heading else list(dict.fromkeys(name for outcome in shown for name in outcome.notes))
    rows = [("scenario", *names, *notes)]
    for outcome in shown:
        rows.append((outcome.scenario.name, *(_cell(outcome, name) for name in names), *(outcome.notes.get(name, "") for name in notes)))
    if len(names) > _WIDEST:
        rows = [("figure", *rows[0][1:])] + [tuple(row) for row in rows[1:]]
        rows = list(zip(*rows, strict=True))
    return align(rows)


def _cell(outcome: Outcome, name: str) -> str:
    figure = outcome.find(name)
    if figure is None:
        return "failed" if outcome.error is not None else "-"
    text = show(figure.value, figure.unit)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ±{show((figure.high - figure.low) / 2, figure.unit).split(' ')[0].rstrip('x')}"


def _verdicts(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    rows = []
    short = outcome.shortfalls()
    for name, target in outcome.scenario.targets.items():
        figure = outcome.find(name)
        unit = figure.unit if figure is not None else ""
        found = show(figure.value, unit) if figure is not None else "nothing"
        rows.append((f"{outcome.scenario.name}: {name}", found, show_target(target, unit), "SHORT" if name in short else "met"))
    return rows


def _figure_json(figure: Figure, target: Target | None) -> dict[str, Any]:
    value: dict[str, Any] = {"name": figure.name, "value": round(figure.value, 6), "unit": figure.unit}
    if figure.low is not None and figure.high is not None:
        value |= {"low": round(figure.low, 6), "high": round(figure.high, 6)}
    if target is not None:
        ends = {"at_least": target.low, "at_most": target.high}
        value["target"] = {name: end for name, end in ends.items() if abs(end) < float("inf")}
        value["met"] = target.admits(figure.value)
    return value
