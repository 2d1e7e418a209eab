"""Time of a new process from its start to its PNG file, with engines already built.

Each run is a separate process. `--help` must not load numpy and importing `costroute_rt` must not load onnxruntime. `costroute-rt gen` with
a candidate of 4 steps must write its PNG and exit within half a second (median of 10). A further process reports the time of each stage:
what is imported, opened, loaded, run for the first time, and what is left at the end.

    python -m benchmarks.cold_start
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, median_figure, run_interleaved, run_scenario
from costroute_rt import Runtime

PROMPT, SEED, STEPS = "a red house by a lake at sunset", "7", 4
REPEATS, QUICK_REPEATS = 10, 2
TOTAL_TARGET = Target(high=0.5)
FORBIDDEN_MODULES = {"--help": "numpy", "import costroute_rt": "onnxruntime"}
"""The module that each of these processes must not load."""
TIMEOUT_S = 120.0
HEAVY_MODULES = ("numpy", "onnxruntime", "PIL", "tokenizers", "click", "torch")

HELP = """
import json, sys
from costroute_rt.cli.main import cli
try:
    cli(["--help"])
except SystemExit:
    pass
"""
IMPORT = """
import json, sys
import costroute_rt
"""
LOADED = f"""
print(json.dumps([name for name in {HEAVY_MODULES!r} if name in sys.modules]), file=sys.stderr)
"""
STAGES = """
import os, time
times = [("interpreter", time.time())]
def lap(name):
    times.append((name, time.time()))
import gc, json, sys
gc.set_threshold(20_000, 10, 10)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
bundle, candidate, prompt, seed, path = json.loads(sys.argv[1])
import numpy
lap("import numpy")
import onnxruntime
lap("import onnxruntime")
import tokenizers, PIL.Image
lap("import tokenizers, PIL")
import click, costroute_rt.cli.main
lap("import click, the commands")
from costroute_rt import Runtime
import costroute_rt.family.assembly, costroute_rt.engines.backends.onnxruntime.backend
lap("import costroute_rt")
import costroute_rt.engines.store.trust as trust
hashed, hash_files = [], trust.sha256_files
def count(paths):
    paths = list(paths)
    hashed.extend(paths)
    return hash_files(paths)
trust.sha256_files = count
runtime = Runtime.open(bundle, preload=False)
lap("open")
resources = runtime._resources
wanted = next(each for each in runtime.candidates if each.name == candidate)
names = [each.engine for each in resources.routing_calls()]
image = resources.main_family.bundle.image
names += [each.engine for each in resources.family(wanted).calls(wanted, (image.height, image.width))]
for name in dict.fromkeys(names):
    resources.engines.get(name)
lap("load engines")
result = runtime.generate(prompt, seed=seed, candidate=candidate)
lap("first image")
result.save(path)
lap("save")
runtime.close()
lap("close")
counts = {"modules": len(sys.modules), "engines": len(dict.fromkeys(names)), "files hashed": len(hashed)}
print(json.dumps([times, counts]))
from costroute_rt.cli.start import leave
leave(0)
"""
"""Does what `costroute-rt gen` does, one thing after the other."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("cold_start", __doc__ or "")
    parser.add_argument("--candidate", metavar="NAME", help=f"candidate to run (default: the last of the pool with {STEPS} steps)")
    args = parser.parse_args(argv)
    return run_benchmark("cold_start", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """Builds the engines, then times new processes of each kind, interleaved."""
    with Runtime.open(args.bundle, home=args.home, build=True, preload=False) as runtime:
        candidate = args.candidate or [each.name for each in runtime.candidates if each.num_inference_steps == STEPS][-1]
    environment = {**os.environ, **({"COSTROUTE_HOME": str(args.home)} if args.home else {})}
    repeats = QUICK_REPEATS if args.quick else REPEATS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "postcard.png"
        bundle_option = ["--bundle", str(args.bundle)] if args.bundle else []
        gen = [sys.executable, "-m", "costroute_rt.cli", "gen", PROMPT, "--seed", SEED, "-o", str(path), *bundle_option]
        stage_arguments = json.dumps([str(args.bundle) if args.bundle else None, candidate, PROMPT, int(SEED), str(path)])
        commands = {
            "--help": python(HELP + LOADED),
            "import costroute_rt": python(IMPORT + LOADED),
            "gen": [*gen, "--candidate", candidate],
            "gen with a budget": [*gen, "--max-ms", "60000", "--candidate", candidate],
            "stages": [*python(STAGES), stage_arguments],
        }
        calls = {
            name: partial(time_process, command, environment, None if name in FORBIDDEN_MODULES else path)
            for name, command in commands.items()
        }
        runs = run_interleaved(calls, warm_up=1, repeats=repeats)
    return [run_scenario(scenario, partial(summarise, runs)) for scenario in make_scenarios(commands, candidate, repeats)]


def make_scenarios(names: Iterable[str], candidate: str, repeats: int) -> list[Scenario]:
    """One scenario per kind of process."""
    settings = {"prompt": PROMPT, "candidate": candidate, "num_inference_steps": STEPS}
    scenarios = []
    for name in names:
        targets = {f"loads {module}": Target(high=0) for module in (FORBIDDEN_MODULES.get(name),) if module}
        if name == "gen":
            targets = {"total": TOTAL_TARGET}
        own_settings = {} if name in FORBIDDEN_MODULES else settings
        scenarios.append(Scenario(name=name, settings=own_settings, warm_up=1, repeats=repeats, targets=targets))
    return scenarios


def python(code: str) -> list[str]:
    """The command that runs `code` in this Python interpreter."""
    return [sys.executable, "-c", code]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRun:
    """One finished process."""

    started_s: float
    """Wall clock, comparable with the times that the process prints."""
    total_s: float
    stdout: str
    stderr: str


def time_process(command: Sequence[str], environment: Mapping[str, str], output: Path | None) -> ProcessRun:
    """Runs a process; raises RuntimeError where it fails or does not write `output`."""
    if output is not None:
        output.unlink(missing_ok=True)
    started_s, clock_s = time.time(), time.perf_counter()
    done = run_process(command, environment, TIMEOUT_S)
    total_s = time.perf_counter() - clock_s
    if output is not None and not output.is_file():
        raise RuntimeError(f"the process succeeded but did not write {output.name}")
    return ProcessRun(started_s=started_s, total_s=total_s, stdout=done.stdout, stderr=done.stderr)


def summarise(runs_by_name: Mapping[str, list[ProcessRun] | Exception], scenario: Scenario) -> Measurement:
    """Times of one kind of process, and the modules it loads or the time of its stages."""
    runs = runs_by_name[scenario.name]
    if isinstance(runs, Exception):
        raise runs
    figures = [median_figure("total", [run.total_s for run in runs], "s")]
    if scenario.name in FORBIDDEN_MODULES:
        loaded = json.loads(runs[0].stderr.strip().splitlines()[-1])
        module = FORBIDDEN_MODULES[scenario.name]
        figures.append(Figure(name=f"loads {module}", value=float(module in loaded), unit="count"))
        return Measurement(figures=figures, notes={"heavy modules loaded": ", ".join(loaded) or "none"})
    if scenario.name == "stages":
        each = [stages(run) for run in runs]
        figures += [median_figure(name, [stage[name] for stage in each], "s") for name in each[0]]
        figures += [Figure(name=name, value=count, unit="count") for name, count in json.loads(runs[-1].stdout)[1].items()]
    return Measurement(figures=figures)


def stages(run: ProcessRun) -> dict[str, float]:
    """Seconds by stage; the rest, from the last printed time to the end of the process, is the stage `exit`."""
    seconds, before = {}, run.started_s
    for name, at in json.loads(run.stdout)[0]:
        seconds[name] = at - before
        before = at
    return {**seconds, "exit": run.started_s + run.total_s - before}


if __name__ == "__main__":
    sys.exit(main())
