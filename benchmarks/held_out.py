"""A bundle's router with held-out labels: captions and seeds that it was not fitted to.

The labels are read from a file, or made here: the requested number of captions by every candidate with nine seeds, scored by the bundle's
scorer. They are kept in the engine store, so that an interrupted run continues and later runs reuse them. Nine seeds, because with three
the best of several nearly equal candidates is decided by noise.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import costroute_rt
from benchmarks.scenario import Clock, log
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.section import canonical_json
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError
from costroute_rt.export.postcard.captions import BANDS, banded, normalise
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import complete_prompts
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.evaluate import split_seeds
from costroute_rt.export.router.job import Source, opened_router
from costroute_rt.export.router.labelling import Progress, Request, fingerprints, label_prompts
from costroute_rt.export.router.prompts import PromptRow
from costroute_rt.export.router.scorers import open_scorers
from costroute_rt.export.router.states import read_states
from costroute_rt.routing.router import Router

DATASET = "held-out-router"
"""Name of the captions; neither training data nor any router's labels use it."""
CAPTIONS, QUICK_CAPTIONS = 500, 24
SEEDS, QUICK_SEEDS = tuple(range(100, 109)), (100, 101)
LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Labels and the router's estimates, for the prompts that are labelled for every candidate."""

    router: Router
    cells: Cells
    """Categories are the bands of `captions.BANDS`; every candidate has a cost."""
    estimates: Estimates
    halves: Sequence[Cells]
    """The same prompts, with each half of the seeds; empty where there is only one seed."""
    size: str
    """Numbers of prompts, candidates and seeds, as text."""
    costs: str
    """Source of the costs, as text."""
    facts: dict[str, object]
    """Source of labels and costs, for the settings of scenarios."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --labels and --captions."""
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="held-out labels with a column `category` (default: made once and kept in the engine store)",
    )
    parser.add_argument("--captions", type=int, default=CAPTIONS, metavar="N", help="number of captions to label (default: %(default)s)")


def open_held_out(args: argparse.Namespace) -> HeldOut:
    """The bundle's router with held-out labels, without the prompts that the router was fitted to."""
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    with opened_router(Pool.of_bundle(bundle), Source(labels=args.labels or "", home=args.home)) as router:
        return _estimate(args, bundle, router)


def _estimate(args: argparse.Namespace, bundle: Bundle, router: Router) -> HeldOut:
    names = [str(row["name"]) for row in bundle.pool]
    fitted, wanted = {normalise(prompt) for prompt in router.prompts}, None
    path = args.labels
    if path is None:
        prompts = choose_captions(router.prompts, QUICK_CAPTIONS if args.quick else args.captions)
        wanted = {row.prompt_id for row in prompts}
        path = make_labels(bundle, prompts, args)
    table = Source(labels=path, category="category").open(Pool.of_bundle(bundle))
    all_cells = table.cells(names)
    kept = complete_prompts(all_cells) & np.array([normalise(text) not in fitted for text in all_cells.prompts])
    if wanted is not None:
        kept &= np.array([key in wanted for key in all_cells.prompt_ids])
    if not kept.any():
        raise ConfigError("held-out labels", str(path), "prompts labelled for every candidate that the router was not fitted to")
    cells, costs = with_costs(all_cells.select(kept), bundle, args.home)
    halves = split_seeds(lambda seeds: table.cells(names, seeds=seeds), table.seeds)
    if halves:
        shared = np.isin(halves[0].prompt_ids, cells.prompt_ids)
        halves = [replace(half.select(shared), cost_ms=cells.cost_ms, has_cost=True) for half in halves] if shared.any() else []
    states = read_states(bundle, cells.prompts, home=args.home) if router.needs_states else None
    mean, error, trust = router.estimate(cells.prompts, states)
    facts = {"labels": path.name, "labels_sha256": table.sha256, "captions": len(cells), "left_out": int((~kept).sum())}
    return HeldOut(
        router=router,
        cells=cells,
        estimates=Estimates(mean=mean, standard_error=error, trust=trust, average=router.average.mean),
        halves=halves,
        size=f"{len(cells)} prompts x {len(names)} candidates x {len(table.seeds)} seeds",
        costs=costs,
        facts={**facts, "seeds": list(table.seeds), "costs": costs},
    )


def choose_captions(fitted: Sequence[str], count: int) -> list[PromptRow]:
    """The same number of captions of each band, none of which the router was fitted to."""
    bands = banded(DATASET, -(-count // len(BANDS)), fitted)
    return [
        PromptRow(prompt_id=each.name, prompt=each.text, extra={"category": band}, stated=each.stated)
        for band, members in bands.items()
        for each in members
    ]


def make_labels(bundle: Bundle, prompts: Sequence[PromptRow], args: argparse.Namespace) -> Path:
    """Labels these prompts, as far as they are not labelled yet; returns the table, one per set of weights and settings."""
    prints = fingerprints(bundle)
    scorer = [bundle.files[path].sha256 for path in bundle.components["scorer"].weights]
    digest = hashlib.sha256(canonical_json([prints, *scorer])).hexdigest()[:12]
    path = Store.open(args.home).root / "benchmarks" / f"held-out-{digest}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    log(f"labelling {len(prompts)} captions, except those already in {path}")
    scorers = open_scorers(["postcard"], bundle, args.home)
    request = Request(
        candidates=tuple(prints), seeds=QUICK_SEEDS if args.quick else SEEDS, scorers=tuple(scorers), fingerprints=prints
    )  # fmt: skip
    try:
        with Runtime.open(bundle.root, home=args.home, build=True) as runtime:
            label_prompts(runtime, prompts, path, request, progress=log_labelling())
    finally:
        for each in scorers:
            each.close()
    return path


def log_labelling(clock: Clock = time.monotonic) -> Callable[[Progress], None]:
    """A progress callback that logs every LOG_EVERY_S seconds."""
    logged = clock()

    def callback(progress: Progress) -> None:
        nonlocal logged
        if clock() - logged >= LOG_EVERY_S:
            logged = clock()
            log(f"  labels: {progress.done} of {progress.total}, about {progress.remaining_s:.0f} s left")

    return callback


def with_costs(cells: Cells, bundle: Bundle, home: Path | None) -> tuple[Cells, str]:
    """The cells with a cost for every candidate, and the source of the costs as text."""
    if cells.has_cost:
        return cells, "mean cost_ms of the labels"
    with Runtime.open(bundle.root, home=home, build=True) as runtime:
        ms = {option.candidate.name: option.ms for option in runtime.route("a lake").options}
    return replace(cells, cost_ms=np.array([ms[name] for name in cells.candidates]), has_cost=True), "profiled on this device"
