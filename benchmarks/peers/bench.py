"""Measures the export, the builds and the images of one model."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import costroute_rt
from benchmarks.peer import link_diffusers_files
from benchmarks.peers.environment import make_environment, make_form
from benchmarks.peers.job import Image, Job
from benchmarks.peers.model import write_folder, write_single_file
from benchmarks.peers.program import PROGRAMS, Finished, Program, run_program, run_watched
from benchmarks.scenario import (
    Figure,
    Measurement,
    Outcome,
    Scenario,
    Target,
    log,
    median_figure,
    run_interleaved,
    run_scenario,
)
from costroute_rt import Bundle

PROMPT, SEED = "a red house by a lake at sunset", 7
Run = tuple[dict[str, Any], Finished]
Runs = list[Run] | Exception
Ceiling = Mapping[str, float]
"""Operations a second by precision, and those of a `step`."""


def run(job: Job, work: Path, names: Sequence[str], rounds: int) -> list[Outcome]:
    work.mkdir(parents=True, exist_ok=True)
    bench = _Bench(job, work)
    outcomes = []
    if not bench.bundle.exists():
        scenario = Scenario(name="export", settings={"model": job.model}, targets=job.export_targets)
        outcomes.append(run_scenario(scenario, lambda _: bench.export()))
    for name in names:
        if PROGRAMS[name].is_ours and not bench.home(PROGRAMS[name]).exists():
            scenario = Scenario(name=f"build {name}", settings={"model": job.model}, targets=job.build_targets)
            outcomes.append(run_scenario(scenario, partial(bench.build, PROGRAMS[name])))
    if rounds:
        for image in job.images:
            outcomes += compare(bench, image, names, rounds)
    return outcomes


def compare(bench: _Bench, image: Image, names: Sequence[str], rounds: int) -> list[Outcome]:
    """One row for each program, from processes that run one after the other, round by round."""
    job = bench.job
    has_peers = not all(PROGRAMS[name].is_ours for name in names)
    before = bench.ceiling(image) if has_peers else {}
    runs = run_interleaved({name: partial(bench.image, name, image) for name in names}, warm_up=0, repeats=rounds)
    ceiling = _fastest(before, bench.ceiling(image)) if has_peers else {}
    fastest = fastest_peers(runs, job.figure)
    outcomes = []
    for name in names:
        program = PROGRAMS[name]
        targets = {"first step": job.first_step, "of the fastest peer": Target(high=1.0)} if program.is_ours else {}
        settings = {"model": job.model, "precision": program.precision, "height": job.side_px, "width": job.side_px}
        settings |= {"num_inference_steps": image.steps, "guidance_scale": image.guidance_scale}
        scenario = Scenario(name=", ".join(filter(None, (name, image.name))), settings=settings, repeats=rounds, targets=targets)
        measure = partial(summarise, runs[name], job.figure, fastest.get(program.precision), ceiling, program.precision)
        outcomes.append(run_scenario(scenario, measure))
    return outcomes


class _Bench:
    """The files of one job, each made when it is first needed."""

    def __init__(self, job: Job, work: Path) -> None:
        self.job, self.work = job, work
        self.bundle = costroute_rt.shipped_bundle() if job.model == "postcard" else work / f"{job.model}.bundle"

    def home(self, program: Program) -> Path:
        return self.work / f"{self.job.model}-{program.settings['backend']}-{program.precision}"

    def single_file(self) -> Path:
        """The model as one file of weights; raises RuntimeError for the shipped family, which has no such form."""
        if self.job.model == "postcard":
            raise RuntimeError("there is no single file of the shipped family, whose networks are of no known size")
        path = self.work / f"{self.job.model}.safetensors"
        if not path.exists():
            log(f"writing {path}")
            write_single_file(self.job.model, path.with_suffix(".part.safetensors")).rename(path)
        return path

    def folder(self, image: Image) -> Path:
        """The image's model as diffusers saves it."""
        path = self.work / image.model
        if not (path / "model_index.json").exists():
            log(f"writing {path}")
            if self.job.model == "postcard":
                _write_postcard(path)
            else:
                write_folder(image.model, path)
        return path

    def export(self) -> Measurement:
        source, side = self.single_file(), self.job.side_px
        steps = ",".join(str(each) for each in sorted({1, *(image.steps for image in self.job.images)}))
        done = _costroute(["export", str(source), "-o", str(self.bundle), "--steps", steps, "--size", f"{side}x{side}"], self.work)
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

    def image(self, name: str, image: Image) -> Run:
        log(f"  {name} {image.name}".rstrip())
        program, job = PROGRAMS[name], self.job
        output = self.work / f"{image.candidate} {name}.png"
        settings = {**program.settings, "prompt": PROMPT, "seed": SEED, "repeats": job.repeats, "output": str(output)}
        if program.is_ours:
            if program.tiny and not image.tiny:
                raise RuntimeError("the model has no tiny decoder")
            warm_up, candidate = (image.tiny, image.tiny) if program.tiny else (image.warm_up, image.candidate)
            settings |= {"warm_up": warm_up, "candidate": candidate}
            settings |= {"bundle": str(self.bundle), "home": str(self.home(program))}
            return run_program(sys.executable, program.file, settings)
        settings |= {"warm_up_steps": image.warm_up_steps, "steps": image.steps, "guidance_scale": image.guidance_scale}
        python, model = self.peer(program, image)
        settings |= {"model": str(model), "height": job.side_px, "width": job.side_px}
        return run_program(python, program.file, settings)

    def peer(self, program: Program, image: Image) -> tuple[str, Path]:
        """A peer's interpreter, and the model in the form that it reads."""
        if program.environment == "stable-diffusion.cpp":
            model = self.single_file()
            return make_environment(program.environment, self.work), model
        python = make_environment(program.environment, self.work)
        return python, make_form(program.environment, python, self.folder(image), self.work)

    def ceiling(self, image: Image) -> Ceiling:
        """The fastest of torch and OpenVINO by precision; empty if it cannot be measured."""
        settings = {"model": str(self.folder(image)), "height": self.job.side_px, "width": self.job.side_px}
        try:
            python = make_environment("diffusers", self.work)
            found: Ceiling = run_program(python, "ceiling", {**settings, "guided": image.guidance_scale > 1})[0]
        except RuntimeError as error:
            log(f"the speed of a matrix product was not measured: {error}")
            return {}
        try:
            return _fastest(found, run_program(sys.executable, "ceiling_openvino", {})[0])
        except RuntimeError as error:
            log(f"the speed of a matrix product in OpenVINO was not measured: {error}")
            return found


def _fastest(one: Ceiling, other: Ceiling) -> Ceiling:
    return {name: max(value, other.get(name, value)) for name, value in one.items()}


def _write_postcard(path: Path) -> None:
    """The shipped family as diffusers' pipeline reads it, with the denoiser of that name."""
    link_diffusers_files(Bundle.open(costroute_rt.shipped_bundle()), path)
    denoiser = path / f"unet_{path.name.removeprefix('postcard-')}"
    if denoiser.exists():
        shutil.rmtree(path / "unet")
        denoiser.rename(path / "unet")


def summarise(runs: Runs, figure: str, peer_s: float | None, ceiling: Ceiling, precision: str, _: Scenario) -> Measurement:
    """figure: what programs are compared by; peer_s: that of the fastest peer of the same precision."""
    if isinstance(runs, Exception):
        raise runs
    figures = [
        median_figure(name, [value for report, _ in runs for value in _values(report, name)], "s") for name in ("image", "step", "decode")
    ]
    figures += [
        median_figure("first step", [report["first_step_s"] for report, _ in runs], "s"),
        median_figure("peak memory", [done.peak_bytes / 1e9 for _, done in runs], "GB"),
    ]
    values = {each.name: each.value for each in figures}
    if peer_s is not None:
        figures.append(Figure(name="of the fastest peer", value=values[figure] / peer_s, unit="ratio"))
    precision = str(runs[0][0].get("precision", precision))
    if precision in ceiling:
        share = ceiling["step"] / values["step"] / ceiling[precision]
        figures.append(Figure(name="share of a matrix product's speed", value=share, unit="share"))
    engines = sorted({report["engines"] for report, _ in runs if "engines" in report})
    return Measurement(figures=figures, notes={"engines": ", ".join(engines)} if engines else {})


def _values(report: Mapping[str, Any], figure: str) -> list[float]:
    found = report[f"{figure}_s"]
    return list(found) if isinstance(found, list) else [found]


def fastest_peers(runs: Mapping[str, Runs], figure: str) -> dict[str, float]:
    """Seconds of that figure of the fastest other program, by precision; `auto`: of any precision."""
    found: dict[str, float] = {}
    for name, each in runs.items():
        if PROGRAMS[name].is_ours or isinstance(each, Exception):
            continue
        seconds = median_figure(figure, [value for report, _ in each for value in _values(report, figure)], "s").value
        for precision in (PROGRAMS[name].precision, "auto"):
            found[precision] = min(seconds, found.get(precision, seconds))
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
