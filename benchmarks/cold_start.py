"""How long a new process takes until its picture is a file, with engines that are built already.

Each run is a process of its own. `--help` must load no numpy and importing `costroute_rt` no onnxruntime; `costroute-rt gen` with a
candidate of 4 steps must end, its PNG written, within a second (median of 10). A run that takes the time of each stage stands beside it.

    python -m benchmarks.cold_start
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measured, Outcome, Scenario, Target, attempt, run_in_turns, spread
from costroute_rt import Runtime

PROMPT, SEED, STEPS = "a red house by a lake at sunset", "7", 4
REPEATS, QUICK_REPEATS = 10, 2
TOTAL_TARGET = Target(high=1.0)
TARGETED_MODULES = {"--help": "numpy", "import costroute_rt": "onnxruntime"}
"""What these processes must not load."""
TIMEOUT_S = 120.0
WATCHED = ("numpy", "onnxruntime", "PIL", "tokenizers", "click", "torch")

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
print(json.dumps([name for name in {WATCHED!r} if name in sys.modules]), file=sys.stderr)
"""
STAGES = """
import time
marks = [("interpreter", time.time())]
import json, sys
bundle, candidate, prompt, seed, path = json.loads(sys.argv[1])
import numpy, onnxruntime, tokenizers, PIL.Image
from costroute_rt import Runtime
marks.append(("imports", time.time()))
runtime = Runtime.open(bundle, preload=False)
marks.append(("open", time.time()))
result = runtime.generate(prompt, seed=seed, candidate=candidate)
marks.append(("generate", time.time()))
result.save(path)
marks.append(("save", time.time()))
runtime.close()
print(json.dumps(marks))
"""
"""As `costroute-rt gen` works: without a budget, engines are loaded by the request that needs them."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("cold_start", __doc__ or "")
    parser.add_argument("--candidate", metavar="NAME", help=f"what to run (default: the last of the pool with {STEPS} steps)")
    args = parser.parse_args(argv)
    return run_benchmark("cold_start", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """Builds the engines, then measures new processes."""
    with Runtime.open(args.bundle, home=args.home, build=True, preload=False) as runtime:
        candidate = args.candidate or [each.name for each in runtime.candidates if each.num_inference_steps == STEPS][-1]
    environment = {**os.environ, **({"COSTROUTE_HOME": str(args.home)} if args.home else {})}
    repeats = QUICK_REPEATS if args.quick else REPEATS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "postcard.png"
        given = ["--bundle", str(args.bundle)] if args.bundle else []
        gen = [sys.executable, "-m", "costroute_rt.cli", "gen", PROMPT, "--seed", SEED, "-o", str(path), *given]
        told = json.dumps([str(args.bundle) if args.bundle else None, candidate, PROMPT, int(SEED), str(path)])
        commands = {
            "--help": python(HELP + LOADED),
            "import costroute_rt": python(IMPORT + LOADED),
            "gen": [*gen, "--candidate", candidate],
            "gen with a budget": [*gen, "--max-ms", "60000", "--candidate", candidate],
            "stages": [*python(STAGES), told],
        }
        calls = {
            name: partial(start, command, environment, None if name in TARGETED_MODULES else path) for name, command in commands.items()
        }
        found = run_in_turns(calls, warm_up=1, repeats=repeats)
    return [attempt(scenario, partial(describe, found)) for scenario in plan(commands, candidate, repeats)]


def plan(names: Iterable[str], candidate: str, repeats: int) -> list[Scenario]:
    """One scenario for each kind of process."""
    settings = {"prompt": PROMPT, "candidate": candidate, "num_inference_steps": STEPS}
    scenarios = []
    for name in names:
        targets = {module: Target(high=0) for module in (TARGETED_MODULES.get(name),) if module}
        if name == "gen":
            targets = {"total": TOTAL_TARGET}
        described = {} if name in TARGETED_MODULES else settings
        scenarios.append(Scenario(name=name, settings=described, warm_up=1, repeats=repeats, targets=targets))
    return scenarios


def python(code: str) -> list[str]:
    """The command that runs `code` in an interpreter like this one."""
    return [sys.executable, "-c", code]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One process, from before its start to after its end."""

    started_s: float
    """Wall clock, which child and parent share."""
    total_s: float
    stdout: str
    stderr: str


def start(command: Sequence[str], environment: Mapping[str, str], writes: Path | None) -> Finished:
    """Runs a process; raises where it fails, or ends well without the file it is to write."""
    if writes is not None:
        writes.unlink(missing_ok=True)
    started_s, clock_s = time.time(), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    total_s = time.perf_counter() - clock_s
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr.strip() or 'nothing on stderr').splitlines()[-1]}")
    if writes is not None and not writes.is_file():
        raise RuntimeError(f"it ended well, but wrote no {writes.name}")
    return Finished(started_s=started_s, total_s=total_s, stdout=done.stdout, stderr=done.stderr)


def describe(found: Mapping[str, list[Finished] | Exception], scenario: Scenario) -> Measured:
    """The figures of one kind of process."""
    runs = found[scenario.name]
    if isinstance(runs, Exception):
        raise runs
    figures = [spread("total", [run.total_s for run in runs], "s")]
    if scenario.name in TARGETED_MODULES:
        loaded = json.loads(runs[0].stderr.strip().splitlines()[-1])
        module = TARGETED_MODULES[scenario.name]
        figures.append(Figure(name=module, value=float(module in loaded), unit="count"))
        return Measured(figures=figures, notes={f"loads of {', '.join(WATCHED)}": ", ".join(loaded) or "none"})
    if scenario.name == "stages":
        each = [stages(run) for run in runs]
        figures += [spread(name, [stage[name] for stage in each], "s") for name in each[0]]
    return Measured(figures=figures)


def stages(run: Finished) -> dict[str, float]:
    """Seconds by stage; what is left at the end is the interpreter's farewell."""
    seconds, before = {}, run.started_s
    for name, at in json.loads(run.stdout):
        seconds[name] = at - before
        before = at
    return {**seconds, "exit": run.started_s + run.total_s - before}


if __name__ == "__main__":
    sys.exit(main())
