"""Prints outcomes as tables with targets or as JSON lines; the command line that all benchmarks share."""

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

from benchmarks.scenario import ABOVE_ZERO, Figure, Measurement, Outcome, Scenario, Target, run_scenario
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
_DECIMALS = {"GB": 2, "score": 4, "share": 3, "ratio": 2, "count": 0, "dB": 1, "s": 3, "ms": 1, "us": 1, "MB": 1}
_MOST_COLUMNS = 9
"""A table with more figures has one figure per line and one scenario per column."""


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per scenario, each on one line")
    parser.add_argument("--bundle", type=Path, help="bundle directory (default: the postcard bundle of the package)")
    parser.add_argument("--home", type=Path, help="engine store (default: $COSTROUTE_HOME or the user's cache directory)")
    parser.add_argument("--quick", action="store_true", help="few repeats, as a smoke test; its figures are not reliable")
    return parser


def run_benchmark(name: str, args: argparse.Namespace, argv: Sequence[str] | None, run: Callable[[], Sequence[Outcome]]) -> int:
    """Runs the benchmark and prints its report; returns exit code 1 if a scenario failed or missed a target, else 0.

    Where a benchmark names no backend, it is ONNX Runtime, whatever was found to be fastest here, or what COSTROUTE_BACKEND names.
    """
    os.environ.setdefault("COSTROUTE_BACKEND", "onnxruntime")
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *(sys.argv[1:] if argv is None else argv)])
    facts = run_facts(command, quick=args.quick)  # read before the work, which raises the load average
    outcomes: list[Outcome] = []

    def collect(_: Scenario) -> Measurement:
        outcomes.extend(run())
        return Measurement(figures=())

    whole = run_scenario(Scenario(name=f"benchmarks.{name}"), collect)
    if whole.error is not None:  # the measurement failed before its scenarios
        outcomes.append(whole)
    lines = [json_line(name, outcome, facts) for outcome in outcomes] if args.json else report_lines(name, outcomes, facts)
    print("\n".join(lines), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def run_facts(command: str, *, quick: bool) -> dict[str, Any]:
    """Device, versions and command: what figures depend on besides the code."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "device": {**device.device_facts(), "load_average": load},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "command": command,
        "quick": quick,
    }


def installed_versions() -> dict[str, str]:
    """Versions of the installed packages that can influence a figure."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


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
    """Device, versions and command, the tables of figures, and a table of targets."""
    machine, versions = facts["device"], facts["versions"]
    lines = [
        f"benchmarks.{benchmark} on {machine['cpu']}, {machine['usable_cores']} cores, {machine['os']}, load {machine['load_average']}",
        ", ".join(f"{name} {number}" for name, number in versions.items()),
        facts["command"],
    ]
    if facts["quick"]:
        lines.append("quick run: figures are not reliable")
    for heading in dict.fromkeys(figure.table for outcome in outcomes for figure in outcome.figures):
        lines += ["", *([f"{heading}:"] if heading else []), *_table_of(outcomes, heading)]
    verdicts = [row for outcome in outcomes for row in _verdicts(outcome)]
    if verdicts:
        lines += ["", *align_columns([("figure", "measured", "target", "verdict"), *verdicts])]
    without_figures = [outcome for outcome in outcomes if not outcome.figures and outcome.error is None]
    notes = [f"{outcome.scenario.name}: {', '.join(outcome.notes.values())}" for outcome in without_figures]
    failed = [f"failed: {outcome.scenario.name}: {outcome.error}" for outcome in outcomes if outcome.error is not None]
    return [*lines, *([""] if notes else []), *notes, *([""] if failed else []), *failed]


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column and texts aligned left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_text = [not any(row[index].lstrip("-")[:1].isdigit() for row in rows[1:]) for index in range(len(widths))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index == 0 or is_text[index] else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def format_value(value: float, unit: str) -> str:
    """A number with its unit and the decimals that are usual for it."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit not in _DECIMALS:
        return f"{value:g}"
    units = {"ratio": "x", "ms": " ms", "us": " us", "s": " s", "dB": " dB", "MB": " MB", "GB": " GB"}
    decimals = 2 if unit == "ms" and abs(value) < 1 else _DECIMALS[unit]
    return f"{value:.{decimals}f}" + units.get(unit, "")


def format_target(target: Target, unit: str) -> str:
    """For example `>= 97.0 %`, `<= 3.0 ms`, `0.90 to 1.10` or `above 0`."""
    if target == ABOVE_ZERO:
        return "above 0"
    if target.low > float("-inf") and target.high < float("inf"):
        return f"{format_value(target.low, unit)} to {format_value(target.high, unit)}"
    return f">= {format_value(target.low, unit)}" if target.low > float("-inf") else f"<= {format_value(target.high, unit)}"


def _table_of(outcomes: Sequence[Outcome], heading: str) -> list[str]:
    """One scenario per line; one figure per line where there are many."""
    names = list(dict.fromkeys(figure.name for outcome in outcomes for figure in outcome.figures if figure.table == heading))
    listed = [
        outcome for outcome in outcomes if any(figure.table == heading for figure in outcome.figures) or (outcome.error and not heading)
    ]
    notes = [] if heading else list(dict.fromkeys(name for outcome in listed for name in outcome.notes))
    rows = [("scenario", *names, *notes)]
    for outcome in listed:
        rows.append((outcome.scenario.name, *(_cell(outcome, name) for name in names), *(outcome.notes.get(name, "") for name in notes)))
    if len(names) > _MOST_COLUMNS:
        rows = [("figure", *rows[0][1:])] + [tuple(row) for row in rows[1:]]
        rows = list(zip(*rows, strict=True))
    return align_columns(rows)


def _cell(outcome: Outcome, name: str) -> str:
    figure = outcome.find(name)
    if figure is None:
        return "failed" if outcome.error is not None else "-"
    text = format_value(figure.value, figure.unit)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ±{format_value((figure.high - figure.low) / 2, figure.unit).split(' ')[0].rstrip('x')}"


def _verdicts(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    rows = []
    missed = outcome.missed_targets()
    for name, target in outcome.scenario.targets.items():
        figure = outcome.find(name)
        unit = figure.unit if figure is not None else ""
        measured = format_value(figure.value, unit) if figure is not None else "missing"
        rows.append((f"{outcome.scenario.name}: {name}", measured, format_target(target, unit), "MISSED" if name in missed else "met"))
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
