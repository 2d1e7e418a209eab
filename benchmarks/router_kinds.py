"""Routing of prompts unlike all labelled ones, and what a router may read of a prompt.

    python -m benchmarks.router_kinds left-out    each kind of prompt in turn left out of the fit: routing must not lose on it
    python -m benchmarks.router_kinds encoders    encoders side by side: words, tags, states of a text encoder, sentence encoders

The labels are the public human scores of `benchmarks.router`, read from --data. A router is fitted as `fit-router` does it and routes as
the runtime does, with shrinkage and trust. The gain of a kind is over the candidate that the averages of the other kinds choose, so that it
is 0 where the prompt does not decide. Intervals and standard errors are over prompts, equal texts together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import costroute_rt
from benchmarks.report import make_parser, run_benchmark
from benchmarks.router import QUICK_PROMPTS
from benchmarks.scenario import Figure, Measurement, Outcome, Scenario, Target, interval_figure, log, median_figure, run_scenario
from benchmarks.score_table import DATA, TABLES, label_table
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import CrossValidation, cross_validate, split_folds
from costroute_rt.export.router.curve import bootstrap_mean
from costroute_rt.export.router.fit import fit_router
from costroute_rt.export.router.job import Source, opened_sentence_encoder
from costroute_rt.export.router.states import read_states
from costroute_rt.export.router.tagging import add_tags
from costroute_rt.routing.array import FloatArray, IntArray
from costroute_rt.routing.prompt_encoder import HashedEncoder, PromptEncoder, StatesEncoder, TextStates
from costroute_rt.routing.router import POOL_FIELDS, Router

FOLDS = 5
ENCODER_TABLES = ("geckonum", "agiqa3k align", "tifa160")
TIMED_PROMPTS = 100
MEAN, WORST, BY_KIND = "gain, mean over kinds", "worst kind, in standard errors", "gain by kind left out"
LEFT_OUT_TARGETS = {MEAN: Target(low=0.010), "gain, mean over prompts": Target(low=0.010), WORST: Target(low=-1.5)}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return run_benchmark("router_kinds", args, argv, partial({"left-out": run_left_out, "encoders": run_encoders}[args.what], args))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("router_kinds", __doc__ or "")
    parser.add_argument("what", choices=["left-out", "encoders"], help="what to measure")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="folder of the score tables (default: %(default)s)")
    parser.add_argument("--tags", action="store_true", help="left-out: with tags as features beside the words")
    parser.add_argument("--clusters", action="store_true", help="left-out: fit without the table's categories, by clusters of tags")
    parser.add_argument(
        "--encoder", action="append", default=[], metavar="FOLDER", type=Path, help="encoders: a sentence encoder or CLIP model as well"
    )
    return parser.parse_args(argv)


def run_left_out(args: argparse.Namespace) -> list[Outcome]:
    """The scenario on GeckoNum's twelve kinds; marked as skipped where the table is missing."""
    settings = {"labels": TABLES["geckonum"].about, "encoder": "hashed+tags" if args.tags else "hashed"}
    settings["kinds while fitting"] = "clusters of tags" if args.clusters else "categories"
    scenario = Scenario(name="a kind left out, geckonum", settings=settings, targets=LEFT_OUT_TARGETS)
    skipped = _missing(args, "geckonum")
    return [skipped or run_scenario(scenario, partial(measure_left_out, args))]


def measure_left_out(args: argparse.Namespace, scenario: Scenario) -> Measurement:
    """Routes each kind by a router fitted to the others; for comparison, random folds by routers fitted to the rest."""
    cells = _read(args, "geckonum")
    names, kind = np.unique(cells.categories or (), return_inverse=True)
    gains, far, trust = _route_by(args, cells, kind.ravel())
    figures, rows = [], []
    for number, name in enumerate(names):
        own, groups = gains[kind == number], cells.groups[kind == number]
        rows.append((float(own.mean()), standard_error(own, groups)))
        figures.append(replace(interval_figure(str(name), bootstrap_mean(own, groups), "score"), table=BY_KIND))
    means, errors = np.array(rows).T
    worst = (means / np.maximum(errors, 1e-12)).min()
    known, _, _ = _route_by(args, cells, split_folds(cells.groups, FOLDS, seed=1))
    summary = [
        Figure(name=MEAN, value=float(means.mean()), unit="score"),
        interval_figure("gain, mean over prompts", bootstrap_mean(gains, cells.groups), "score"),
        Figure(name=WORST, value=float(worst)),
        Figure(name="kinds below 0", value=float((means < 0).sum()), unit="count"),
        Figure(name="trust in a kind left out", value=float(trust.mean()), unit="share"),
        Figure(name="effect counted in kinds left out", value=float(np.mean(far)), unit="share"),
        interval_figure("gain on random folds", bootstrap_mean(known, cells.groups), "score"),
    ]
    return Measurement(figures=[*summary, *figures])


def _route_by(args: argparse.Namespace, cells: Cells, part: IntArray) -> tuple[FloatArray, list[float], FloatArray]:
    """Each prompt's gain by a router fitted without its part; the routers' shrinkage far from their labels; each prompt's trust."""
    gains, far, trust = np.zeros(len(cells)), [], np.zeros(len(cells))
    for number in np.unique(part):
        started, test = time.monotonic(), part == number
        router = fit(cells.select(~test), has_tags=args.tags, has_kinds=not args.clusters)
        kept = cells.select(test)
        estimate, _, trust[test] = router.estimate(kept.prompts, None)
        gains[test] = gain_over_averages(kept, estimate, router.average.mean)
        far.append(router.shrinkage.far)
        log(f"  part {number + 1} of {part.max() + 1}, {time.monotonic() - started:.0f} s: {gains[test].mean():+.4f}")
    return gains, far, trust


def fit(cells: Cells, *, has_tags: bool, has_kinds: bool) -> Router:
    """A router for the table's candidates, by hashed words."""
    encoder: PromptEncoder = HashedEncoder()
    pool = [dict.fromkeys(POOL_FIELDS, "") | {"name": name} for name in cells.candidates]
    known = cells if has_kinds else replace(cells, categories=None)
    return fit_router(known, add_tags(encoder, cells.prompts, None) if has_tags else encoder, None, pool=pool, labels={})


def gain_over_averages(cells: Cells, estimate: FloatArray, average: FloatArray) -> FloatArray:
    """float64[prompts]: label of the routed candidate less that of the one with the best average; 0 where one of them is missing."""
    rows = np.arange(len(cells))
    gains: FloatArray = np.nan_to_num(cells.mean[rows, estimate.argmax(1)] - cells.mean[rows, int(average.argmax())])
    return gains


def standard_error(values: FloatArray, groups: IntArray) -> float:
    """Of the mean; the values of a group are not independent."""
    away = np.bincount(np.unique(groups, return_inverse=True)[1].ravel(), values - values.mean())
    return float(np.sqrt((away**2).sum() * len(away) / max(1, len(away) - 1)) / len(values))


def run_encoders(args: argparse.Namespace) -> list[Outcome]:
    """One scenario per table and encoder."""
    outcomes = []
    for table in ENCODER_TABLES:
        skipped = _missing(args, table)
        if skipped is not None:
            outcomes.append(skipped)
            continue
        cells = _read(args, table)
        with ExitStack() as stack:
            for name, encoder, states in _encoders(args, cells, stack):
                for tagged in (False, True):
                    own = add_tags(encoder, cells.prompts, states) if tagged else encoder
                    scenario = Scenario(name=f"{table}, {name}{'+tags' if tagged else ''}", settings={"width": own.width})
                    outcomes.append(run_scenario(scenario, partial(measure_encoder, cells, own, states)))
    return outcomes


def _encoders(args: argparse.Namespace, cells: Cells, stack: ExitStack) -> Iterator[tuple[str, PromptEncoder, TextStates | None]]:
    """Each encoder by name, with the states that it reads."""
    yield "hashed", HashedEncoder(), None
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    states = read_states(bundle, cells.prompts, home=args.home)
    yield f"states of {bundle.root.name}", StatesEncoder(states.states.shape[2]), states
    for folder in args.encoder:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield folder.name, stack.enter_context(opened_sentence_encoder(folder, scratch, Source(labels="", home=args.home))), None


def measure_encoder(cells: Cells, encoder: PromptEncoder, states: TextStates | None, scenario: Scenario) -> Measurement:
    """What cross-validation finds with these features."""
    features = encoder.encode(cells.prompts, states)
    found = cross_validate(cells, features)
    figures = [
        interval_figure("gain", found.gain, "score"),
        Figure(name="slope", value=found.slope.value, unit="ratio"),
        Figure(name="error explained", value=explained(cells, found), unit="share"),
        *([] if found.leave_category_out is None else [interval_figure("gain, kind left out", found.leave_category_out, "score")]),
        median_figure("time", _times(encoder, cells, states), "ms"),
    ]
    return Measurement(figures=figures, notes={"estimator": str(found.chosen)})


def explained(cells: Cells, found: CrossValidation) -> float:
    """Share of the squared differences between candidates, beyond averages, that held-out predictions explain."""
    known = cells.count > 0

    def centred(values: FloatArray) -> FloatArray:
        inner = np.where(known, values, 0.0)
        return np.where(known, inner - inner.sum(1, keepdims=True) / known.sum(1, keepdims=True), 0.0)

    away, left = centred(cells.mean - found.average), centred(cells.mean - found.estimate)
    return float(1 - (left**2).sum() / (away**2).sum())


def _times(encoder: PromptEncoder, cells: Cells, states: TextStates | None) -> list[float]:
    """Milliseconds to encode one prompt whose states are known."""
    times = []
    for row in range(min(len(cells), TIMED_PROMPTS)):
        own = None if states is None else states.select([row])
        started = time.perf_counter()
        encoder.encode(cells.prompts[row : row + 1], own)
        times.append(1000 * (time.perf_counter() - started))
    return times


def _read(args: argparse.Namespace, table: str) -> Cells:
    with label_table(TABLES[table].rows(args.data)) as labels:
        cells = labels.cells()
    return cells.select(np.random.default_rng(0).permutation(len(cells))[:QUICK_PROMPTS]) if args.quick else cells


def _missing(args: argparse.Namespace, table: str) -> Outcome | None:
    missing = [file for file in TABLES[table].files if not (args.data / file).is_file()]
    if not missing:
        return None
    scenario = Scenario(name=table, settings={"data": str(args.data)})
    return Outcome(scenario=scenario, notes={"skipped": f"skipped: {', '.join(missing)} not found in {args.data}"})


if __name__ == "__main__":
    sys.exit(main())
