"""The experiment of the CATImage paper (arXiv 2506.14753), on your models, prompts and scorers, on this machine.

Labels every candidate on the prompts (stopped runs continue), keeps some prompts aside, fits a router to the others, and draws the
deferral curve on those kept aside, with 95 % intervals, beside every single candidate, random mixing and each uniform reduction in the
pool (fewer steps, guidance stopped early, other precisions and decoders), and the share of prompts that each candidate gets by complexity.

    python -m benchmarks.paper --pool desk.pool --prompts coco.csv --scorer clip:models/clip --out paper
    python -m benchmarks.paper --prompts captions.csv --category category --out paper

Prompts are a CSV (or .csv.gz) with a column prompt. The folder OUT gets labels.csv, fitted.csv, held-out.csv, the pool (or bundle) with
the fitted router, and for each scorer a page and two plots: paper-SCORER.html, deferral-SCORER.svg, complexity-SCORER.svg.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import costroute_rt
from benchmarks.held_out import log_labelling
from benchmarks.postcard_router import TITLES, finite_figures
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, log, run_scenario
from costroute_rt import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.error import ConfigError
from costroute_rt.export.router import curve, deferral
from costroute_rt.export.router.band import interval_band
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.complexity import shares_by_complexity
from costroute_rt.export.router.cross_validation import complete_prompts
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.evaluate import Evaluation, evaluate, split_seeds
from costroute_rt.export.router.job import Source, fit_pool, opened_router, write_text
from costroute_rt.export.router.labelling import Request, label_prompts, pool_fingerprints, score_columns
from costroute_rt.export.router.prompts import PromptRow, read_prompts
from costroute_rt.export.router.report import write_page
from costroute_rt.export.router.scorers import open_scorers
from costroute_rt.export.router.share_plot import plot_complexity
from costroute_rt.export.router.uniform import UniformReduction, find_reductions

COUNT, QUICK_COUNT = 500, 60
SEEDS, QUICK_SEEDS = 3, 1
RESAMPLES, QUICK_RESAMPLES = 2000, 100
_LARGEST_FIELD = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One scorer's evaluation with what the plots show."""

    evaluation: Evaluation
    shares: dict[str, dict[str, float]]
    reductions: list[UniformReduction]
    cells: Cells
    files: tuple[Path, ...]


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("paper", __doc__ or "")
    parser.add_argument("--pool", type=Path, metavar="FOLDER", help="pool of bundles, instead of --bundle")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="CSV of prompts: column prompt")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for labels, router, pages and plots")
    parser.add_argument("--scorer", action="append", metavar="NAME", help="as in `costroute-rt label`; may be repeated (default: postcard)")
    parser.add_argument("--count", type=int, metavar="N", help=f"prompts, drawn from the file (default: {COUNT})")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"images of each prompt and candidate (default: {SEEDS})")
    parser.add_argument("--held-out", type=float, default=0.3, metavar="SHARE", help="share of the prompts kept aside (default: 0.3)")
    parser.add_argument("--category", metavar="COLUMN", help="column with the complexity (default: thirds by number of words)")
    args = parser.parse_args(argv)
    if not 0 < args.held_out < 1:
        parser.error("--held-out must be between 0 and 1")
    for option in ("count", "seeds"):
        if (value := getattr(args, option)) is not None and value < 1:
            parser.error(f"--{option} must be 1 or more")
    return run_benchmark("paper", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per scorer."""
    pool = Pool.open(args.pool) if args.pool else Pool.of_bundle(Bundle.open(args.bundle or costroute_rt.shipped_bundle()))
    columns = label(args, pool)
    fitted, held_out = split(args.out / "labels.csv", args.held_out)
    outcomes = []
    for name, column in columns.items():
        scenario = Scenario(name=name, settings={"score": column, "prompts": args.prompts.name, "seeds": seeds_of(args)})
        outcomes.append(run_scenario(scenario, partial(measure, args, pool, fitted, held_out, name, column)))
    return outcomes


def label(args: argparse.Namespace, pool: Pool) -> dict[str, str]:
    """Adds the labels that are missing to OUT/labels.csv; returns the column of each scorer, by its name."""
    prompts = choose_prompts(read_prompts(args.prompts), args.count or (QUICK_COUNT if args.quick else COUNT))
    args.out.mkdir(parents=True, exist_ok=True)
    marks = pool_fingerprints(pool)
    if not marks:
        raise ConfigError("pool", str(pool.root), "one with a bundle: there is nothing to make images with")
    judging = next((bundle for bundle in pool.bundles.values() if "scorer" in bundle.components), next(iter(pool.bundles.values())))
    scorers = open_scorers(args.scorer or ["postcard"], judging, args.home)
    try:
        log(f"labelling {len(prompts)} prompts with {len(marks)} candidates, except what {args.out / 'labels.csv'} has already")
        request = Request(candidates=tuple(marks), seeds=tuple(range(seeds_of(args))), scorers=tuple(scorers), fingerprints=marks)
        with Source(labels="", home=args.home).runtime(pool) as runtime:
            label_prompts(runtime, prompts, args.out / "labels.csv", request, progress=log_labelling())
        return dict(zip([scorer.name for scorer in scorers], score_columns(scorers), strict=True))
    finally:
        for each in scorers:
            each.close()


def seeds_of(args: argparse.Namespace) -> int:
    return int(args.seeds or (QUICK_SEEDS if args.quick else SEEDS))


def choose_prompts(prompts: Sequence[PromptRow], count: int) -> list[PromptRow]:
    """`count` of the prompts, the same ones in each run, in the order of the file."""
    ranked = sorted(range(len(prompts)), key=lambda index: _rank(prompts[index].prompt_id))
    return [prompts[index] for index in sorted(ranked[:count])]


def split(labels: Path, share: float) -> tuple[Path, Path]:
    """Writes the rows of a table to two tables beside it by their prompt, `share` of the prompts to the second: fitted, held-out."""
    csv.field_size_limit(_LARGEST_FIELD)
    fitted, held_out = labels.with_name("fitted.csv"), labels.with_name("held-out.csv")
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("prompt")
    texts = sorted({_normal(row[place]) for row in rows[1:]}, key=_rank)
    aside = set(texts[: max(1, round(share * len(texts)))])
    for path, is_aside in ((fitted, False), (held_out, True)):
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if (_normal(row[place]) in aside) == is_aside)])
    return fitted, held_out


def measure(args: argparse.Namespace, pool: Pool, fitted: Path, held_out: Path, name: str, column: str, scenario: Scenario) -> Measurement:
    """Fits to one scorer's labels, draws its page and plots; returns the figures."""
    routed = args.out / f"{file_stem(name)}.{'bundle' if pool.is_bundle else 'pool'}"
    fit_pool(pool, Source(labels=fitted, score=column, home=args.home), routed, force=True, say=log)
    source = Source(labels=held_out, score=column, category=args.category, home=args.home)
    drawn = draw(args, Pool.of_bundle(Bundle.open(routed)) if pool.is_bundle else Pool.open(routed), source, name)
    evaluation, best = drawn.evaluation, curve.best_single(drawn.cells.cost_ms, drawn.cells.mean.mean(0))
    figures = [figure for key in TITLES for figure in finite_figures(key, evaluation.figures["router"][key])]
    for heading, rows in drawn.shares.items():
        table = f"share of prompts of kind {heading}"
        figures += [Figure(name=candidate, value=value, unit="share", table=table) for candidate, value in rows.items()]
    reductions = {each.label: describe_reduction(each, drawn.cells) for each in drawn.reductions}
    notes = {
        "held out": f"{evaluation.prompts} prompts",
        "routes on": str(evaluation.facts["routes_on"]),
        "best single candidate": f"{drawn.cells.candidates[best]}, {drawn.cells.cost_ms[best]:.0f} ms",
        **reductions,
        "files": ", ".join(map(str, drawn.files)),
    }
    return Measurement(figures=figures, notes=notes)


def draw(args: argparse.Namespace, pool: Pool, source: Source, name: str) -> Drawn:
    """Evaluates the pool's router on the labels kept aside, and writes the page and the plots."""
    table, names = source.open(pool), [str(row["name"]) for row in pool.rows]
    found = table.cells(names)
    cells = found.select(complete_prompts(found))
    with opened_router(pool, source) as router:
        reader = pool.bundles[pool.states_bundle] if router.needs_states and pool.states_bundle else None
        states = None if reader is None else source.states(reader, cells.prompts, log)
        mean, error, trust = router.estimate(cells.prompts, states)
    estimates = Estimates(mean=mean, standard_error=error, trust=trust, average=router.average.mean)
    halves = split_seeds(lambda seeds: table.cells(names, seeds=seeds), table.seeds)
    resamples = QUICK_RESAMPLES if args.quick else RESAMPLES
    facts = {"routes_on": router.routes_on, "reason": router.reason}
    evaluation = evaluate(cells, estimates, halves=halves, resamples=resamples, facts=facts)
    routed = curve.route(estimates.mean, cells.cost_ms)
    cost_ms = dict(zip(cells.candidates, map(float, cells.cost_ms), strict=True))
    reductions, shares = find_reductions(pool.rows, cost_ms), shares_by_complexity(routed, cells)
    others = {"upper bound (oracle on other seeds)": evaluation.curves["oracle"]} if "oracle" in evaluation.curves else {}
    band = interval_band(routed, cells, resamples=resamples)
    plots = {
        "deferral": deferral.plot_deferral(routed, band, cells, reductions, others),
        "complexity": plot_complexity(shares, cost_ms),
    }
    files = []
    for kind, svg in plots.items():
        files.append(args.out / f"{kind}-{file_stem(name)}.svg")
        write_text(files[-1], svg)
    about = "The router beside every single candidate, random mixing and uniform reductions, which treat all prompts alike."
    sections = [
        ("Deferral curve", about, plots["deferral"]),
    ]
    reason = f"Routes on {router.routes_on}: {router.reason}"
    page = write_page(evaluation, title=f"Routing by {name}", reason=reason, sections=sections)
    files.append(args.out / f"paper-{file_stem(name)}.html")
    write_text(files[-1], page)
    return Drawn(evaluation=evaluation, shares=shares, reductions=reductions, cells=cells, files=tuple(files))


def describe_reduction(reduction: UniformReduction, cells: Cells) -> str:
    """`turbo@1 0.612 at 40 ms, turbo@2 ...`"""
    quality, places = cells.mean.mean(0), {name: index for index, name in enumerate(cells.candidates)}
    return ", ".join(f"{name} {quality[places[name]]:.3f} at {cells.cost_ms[places[name]]:.0f} ms" for name in reduction.candidates)


def file_stem(name: str) -> str:
    """A scorer's name as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _rank(text: str) -> str:
    """An order of texts that looks random and is the same everywhere."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
