"""Measures the export, the builds and the images of one model."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.model import write_folder, write_single_file
from benchmarks.peers.program import PROGRAMS, Finished, Program, export_for_genai, make_genai_environment, run_program, run_watched
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, log, median_figure, run_interleaved, run_scenario

PROMPT, SEED, GUIDANCE = "a red house by a lake at sunset", 7, 7.5
GIB = 1.073741824
"""GB."""
Run = tuple[dict[str, Any], Finished]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model, and what is asked of it."""

    model: str
    side_px: int
    steps: int
    """Of the image that counts; the one before it has a step."""
    build_targets: Mapping[str, Target]
    first_step: Target


JOBS = {
    "sd15": Job(
        model="sd15", side_px=512, steps=3, build_targets={"time": Target(high=150.0), "peak memory": Target(high=8.0)},
        first_step=Target(high=3.0),
    ),
    "sdxl": Job(model="sdxl", side_px=1024, steps=2, build_targets={}, first_step=Target()),
}  # fmt: skip


def run(job: Job, work: Path, names: Sequence[str], rounds: int) -> list[Outcome]:
    work.mkdir(parents=True, exist_ok=True)
    bench = _Bench(job, work)
    outcomes = []
    if not bench.bundle.exists():
        scenario = Scenario(name="export", settings={"model": job.model}, targets={"peak memory": Target(high=6 * GIB)})
        outcomes.append(run_scenario(scenario, lambda _: bench.export()))
    for name in names:
        if PROGRAMS[name].is_ours and not bench.home(PROGRAMS[name]).exists():
            scenario = Scenario(name=f"build {name}", settings={"model": job.model}, targets=job.build_targets)
            outcomes.append(run_scenario(scenario, partial(bench.build, PROGRAMS[name])))
    if not rounds:
        return outcomes
    calls = {name: partial(bench.image, name, PROGRAMS[name]) for name in names}
    runs = run_interleaved(calls, warm_up=0, repeats=rounds)
    fastest = _fastest_peers(runs)
    for name in names:
        program = PROGRAMS[name]
        targets = {"first step": job.first_step, "of the fastest peer": Target(high=1.0)} if program.is_ours else {}
        settings = {"model": job.model, "precision": program.precision, "height": job.side_px, "width": job.side_px, "steps": job.steps}
        scenario = Scenario(name=name, settings=settings, repeats=rounds, targets=targets)
        outcomes.append(run_scenario(scenario, partial(summarise, runs[name], fastest.get(program.precision))))
    return outcomes


class _Bench:
    """The files of one job, each made when it is first needed."""

    def __init__(self, job: Job, work: Path) -> None:
        self.job, self.work = job, work
        self.bundle = work / f"{job.model}.bundle"

    def home(self, program: Program) -> Path:
        return self.work / f"{self.job.model}-{program.settings['backend']}-{program.precision}"

    def single_file(self) -> Path:
        path = self.work / f"{self.job.model}.safetensors"
        if not path.exists():
            log(f"writing {path}")
            write_single_file(self.job.model, path.with_suffix(".part.safetensors")).rename(path)
        return path

    def folder(self) -> Path:
        path = self.work / self.job.model
        if not (path / "model_index.json").exists():
            log(f"writing {path}")
            write_folder(self.job.model, path)
        return path

    def export(self) -> Measurement:
        source, side, steps = self.single_file(), self.job.side_px, self.job.steps
        command = ["export", str(source), "-o", str(self.bundle), "--steps", f"1,{steps}", "--size", f"{side}x{side}"]
        done = _costroute(command, self.work)
        written, linked = _sizes(self.bundle)
        return Measurement(
            figures=[*_process_figures(done), Figure(name="written", value=written / 1e9, unit="GB"),
                     Figure(name="linked", value=linked / 1e9, unit="GB")]
        )  # fmt: skip

    def build(self, program: Program, _: Scenario) -> Measurement:
        home, settings = self.home(program), program.settings
        command = ["build-engines", "--bundle", str(self.bundle), "--backend", settings["backend"], "--precision", settings["precision"]]
        try:
            done = _costroute(command, home)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        return Measurement(figures=[*_process_figures(done), Figure(name="store", value=sum(_sizes(home)) / 1e9, unit="GB")])

    def image(self, name: str, program: Program) -> Run:
        log(f"  {name}")
        job = self.job
        settings = {"prompt": PROMPT, "seed": SEED, "output": str(self.work / f"{job.model} {name}.png")}
        if program.is_ours:
            names = {"warm_up": f"{job.model}@1", "candidate": f"{job.model}@{job.steps}"}
            return run_program(sys.executable, program, {**settings, **names, "bundle": str(self.bundle), "home": str(self.home(program))})
        settings |= {"warm_up_steps": 1, "steps": job.steps, "guidance_scale": GUIDANCE, "height": job.side_px, "width": job.side_px}
        if program.file == "with_diffusers":
            return run_program(sys.executable, program, {**settings, "model": str(self.folder())})
        python = make_genai_environment(self.work / "genai")
        model = export_for_genai(python, self.folder(), self.work / f"{job.model}-genai")
        return run_program(python, program, {**settings, "model": str(model)})


def summarise(runs: list[Run] | Exception, peer_s: float | None, _: Scenario) -> Measurement:
    """peer_s: a step of the fastest peer of the same precision."""
    if isinstance(runs, Exception):
        raise runs
    steps = [step for report, _ in runs for step in report["step_s"]]
    figures = [
        median_figure("step", steps, "s"),
        median_figure("decode", [report["decode_s"] for report, _ in runs], "s"),
        median_figure("first step", [report["first_step_s"] for report, _ in runs], "s"),
        median_figure("peak memory", [done.peak_bytes / 1e9 for _, done in runs], "GB"),
    ]
    if peer_s is not None:
        figures.append(Figure(name="of the fastest peer", value=figures[0].value / peer_s, unit="ratio"))
    return Measurement(figures=figures)


def _fastest_peers(runs: Mapping[str, list[Run] | Exception]) -> dict[str, float]:
    """Seconds of a step of the fastest other program, by precision."""
    found: dict[str, float] = {}
    for name, each in runs.items():
        if PROGRAMS[name].is_ours or isinstance(each, Exception):
            continue
        step = median_figure("step", [step for report, _ in each for step in report["step_s"]], "s").value
        found[PROGRAMS[name].precision] = min(step, found.get(PROGRAMS[name].precision, step))
    return found


def _costroute(words: Sequence[str], home: Path) -> Finished:
    log(f"costroute-rt {' '.join(words)}")
    return run_watched([sys.executable, "-m", "costroute_rt.cli", *words], {**os.environ, "COSTROUTE_HOME": str(home)})


def _process_figures(done: Finished) -> list[Figure]:
    return [
        Figure(name="time", value=done.seconds, unit="s"),
        Figure(name="CPU time", value=done.cpu_s, unit="s"),
        Figure(name="peak memory", value=done.peak_bytes / 1e9, unit="GB"),
    ]


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the files that exist here only, and of those that are links to files elsewhere, each file once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    links = Counter(each.st_ino for each in found)
    sizes = {each.st_ino: (each.st_size, each.st_nlink > links[each.st_ino]) for each in found}
    linked = sum(size for size, is_linked in sizes.values() if is_linked)
    return sum(size for size, _ in sizes.values()) - linked, linked
