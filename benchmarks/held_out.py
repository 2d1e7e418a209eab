"""A bundle's router beside labels it has not been fitted to: other captions, other seeds.

The labels are read from a file, or made here: as many captions as asked for, by every candidate, with nine seeds, scored by the
bundle's scorer and kept beside the engines, so that a run that was stopped goes on and the next one finds them. Nine, because with three
it is luck which of several nearly equal candidates is called the best.
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
from benchmarks.scenario import Clock, say
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.bundle.section import canonical_json
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError
from costroute_rt.export.postcard.captions import BANDS, banded, normalise
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.cross_validation import complete_prompts
from costroute_rt.export.router.evaluate import Estimates, split_seeds
from costroute_rt.export.router.job import Source, opened_router
from costroute_rt.export.router.labelling import Progress, Request, fingerprints, label_prompts
from costroute_rt.export.router.prompts import PromptRow
from costroute_rt.export.router.scorers import open_scorers
from costroute_rt.export.router.states import read_states
from costroute_rt.routing.router import Router

DATASET = "held-out-router"
"""A name that neither training data nor a router's captions were ever drawn under."""
CAPTIONS, QUICK_CAPTIONS = 500, 24
SEEDS, QUICK_SEEDS = tuple(range(100, 109)), (100, 101)
SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What a router says of prompts, and what was found; prompts labelled for every candidate only."""

    router: Router
    cells: Cells
    """Its categories are the bands of `captions.BANDS`, its costs are never missing."""
    estimates: Estimates
    halves: Sequence[Cells]
    """The same prompts by two halves of the seeds; nothing where there is one seed."""
    size: str
    """Prompts, candidates and seeds, in words."""
    costs: str
    """Where costs are from, in words."""
    facts: dict[str, object]
    """Where labels and costs are from, for the record."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """--labels and --captions."""
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="held-out labels with a column category (default: made here once, then kept)"
    )
    parser.add_argument("--captions", type=int, default=CAPTIONS, metavar="N", help="how many to label (default: %(default)s)")


def open_held_out(args: argparse.Namespace) -> HeldOut:
    """The router of the bundle, judging held-out labels; prompts it was fitted to are left out of them."""
    bundle = Bundle.open(args.bundle or costroute_rt.shipped_bundle())
    with opened_router(bundle, Source(labels=args.labels or "", home=args.home)) as router:
        return _judge(args, bundle, router)


def _judge(args: argparse.Namespace, bundle: Bundle, router: Router) -> HeldOut:
    names = [str(row["name"]) for row in bundle.pool]
    fitted, wanted = {normalise(prompt) for prompt in router.prompts}, None
    path = args.labels
    if path is None:
        prompts = choose_captions(router.prompts, QUICK_CAPTIONS if args.quick else args.captions)
        wanted = {row.prompt_id for row in prompts}
        path = make_labels(bundle, prompts, args)
    table = Source(labels=path, category="category").open(bundle)
    everything = table.cells(names)
    kept = complete_prompts(everything) & np.array([normalise(text) not in fitted for text in everything.prompts])
    if wanted is not None:
        kept &= np.array([key in wanted for key in everything.prompt_ids])
    if not kept.any():
        raise ConfigError("held-out labels", str(path), "prompts labelled for every candidate that the router was not fitted to")
    cells, costs = with_costs(everything.select(kept), bundle, args.home)
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
    """Equally many captions of each band, none of which the router was fitted to."""
    found = banded(DATASET, -(-count // len(BANDS)), fitted)
    return [
        PromptRow(prompt_id=each.name, prompt=each.text, extra={"category": band}, stated=each.stated)
        for band, members in found.items()
        for each in members
    ]


def make_labels(bundle: Bundle, prompts: Sequence[PromptRow], args: argparse.Namespace) -> Path:
    """The table beside the engines, whole as far as these prompts go; one table for each set of weights and settings."""
    marks = fingerprints(bundle)
    scorer = bundle.components["scorer"].weights
    mark = hashlib.sha256(canonical_json([marks, scorer and bundle.files[scorer].sha256])).hexdigest()[:12]
    path = Store.open(args.home).root / "benchmarks" / f"held-out-{mark}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"{path}: labelling what is missing of {len(prompts)} captions")
    scorers = open_scorers(["postcard"], bundle, args.home)
    request = Request(
        candidates=tuple(marks), seeds=QUICK_SEEDS if args.quick else SEEDS, scorers=tuple(scorers), fingerprints=marks
    )  # fmt: skip
    try:
        with Runtime.open(bundle.root, home=args.home, build=True) as runtime:
            label_prompts(runtime, prompts, path, request, progress=watch())
    finally:
        for each in scorers:
            each.close()
    return path


def watch(clock: Clock = time.monotonic) -> Callable[[Progress], None]:
    """Tells now and then how far labelling is."""
    said = clock()

    def tell(progress: Progress) -> None:
        nonlocal said
        if clock() - said >= SAY_EVERY_S:
            said = clock()
            say(f"  labels: {progress.done} of {progress.total}, about {progress.remaining_s:.0f} s left")

    return tell


def with_costs(cells: Cells, bundle: Bundle, home: Path | None) -> tuple[Cells, str]:
    """The cells with a cost for every candidate, and in words where it is from."""
    if cells.has_cost:
        return cells, "mean cost_ms of the labels"
    with Runtime.open(bundle.root, home=home, build=True) as runtime:
        ms = {option.candidate.name: option.ms for option in runtime.route("a lake").options}
    return replace(cells, cost_ms=np.array([ms[name] for name in cells.candidates]), has_cost=True), "profiled on this device"
