"""Routing between independent models, by the commands that users type.

    python -m benchmarks.pool
    python -m benchmarks.pool --geckonum scores_geckonum.csv.gz

The bundle's denoisers become one bundle each. A pool of these is labelled, fitted and evaluated on captions that it was not fitted to, and
so is the one bundle with the same labels: both must have the same gain. With --geckonum, the models of that table (columns prompt_id,
prompt, model, score; CC BY 4.0, google-deepmind/geckonum_benchmark_t2i) become a pool without bundles, fitted to four fifths of its prompts
and evaluated on the rest.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import costroute_rt
from benchmarks.process import run_process
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import ABOVE_ZERO, Figure, Measurement, Outcome, Scenario, Target, log, run_scenario
from benchmarks.split_bundle import split_bundle

CAPTIONS, QUICK_CAPTIONS = (400, 200), (32, 8)
"""To fit to, and to evaluate on."""
SEEDS, QUICK_SEEDS = 3, 1
SAME = Target(low=0.0, high=0.0)
PARTS = 5
"""One part of a table's prompts is for the evaluation."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("pool", __doc__ or "")
    parser.add_argument(
        "--geckonum", type=Path, metavar="FILE", help="table of scores of seven models; that scenario is left out without it"
    )
    parser.add_argument("--captions", type=int, nargs=2, metavar="N", help="captions to fit to, and to evaluate on (default: 400 200)")
    parser.add_argument("--seeds", type=int, metavar="N", help="images of each by each candidate (default: 3)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where pools and labels are kept, so that a stopped run goes on")
    args = parser.parse_args(argv)
    return run_benchmark("pool", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        usual = (QUICK_CAPTIONS, QUICK_SEEDS) if args.quick else (CAPTIONS, SEEDS)
        captions, seeds = tuple(args.captions or usual[0]), args.seeds or usual[1]
        split = Scenario(
            name="one bundle and three",
            settings={"captions": captions, "seeds": seeds},
            targets={"difference of gains": SAME, "difference of areas": SAME},
        )
        outcomes = [run_scenario(split, partial(measure_split, args, work))]
        if args.geckonum is not None:
            elsewhere = Scenario(name="labels made elsewhere", targets={"gain, low end": ABOVE_ZERO})
            outcomes.append(run_scenario(elsewhere, partial(measure_elsewhere, args, work)))
        return outcomes


def command(args: argparse.Namespace, *words: object) -> Any:
    """What `costroute-rt WORDS --json` prints."""
    environment = {**os.environ, **({} if args.home is None else {"COSTROUTE_HOME": str(args.home)})}
    log(f"costroute-rt {' '.join(map(str, words))}")
    done = run_process([sys.executable, "-m", "costroute_rt.cli", *map(str, words), "--json"], environment)
    return json.loads(done.stdout)


def measure_split(args: argparse.Namespace, work: Path, scenario: Scenario) -> Measurement:
    whole, pool = args.bundle or costroute_rt.shipped_bundle(), work / "parts.pool"
    if not pool.exists():
        command(args, "pool", *split_bundle(whole, work / "parts"), "-o", pool)
    scorer = () if args.bundle is None else ("--scorer", "benchmarks.pool:brightness")
    labels = {}
    for name, count in zip(("fit", "heldout"), scenario.settings["captions"], strict=True):
        labels[name], prompts = work / f"{name}.csv", work / f"{name}-captions.csv"
        write_captions(prompts, f"pool-{name}", count)
        how = ("--prompts", prompts, "--labels", labels[name], "--seeds", scenario.settings["seeds"], *scorer)
        command(args, "label", "--pool", pool, *how)
    encoder = ("--labels", labels["fit"], "--encoder", "states")
    command(args, "fit-router", "--pool", pool, *encoder)
    command(args, "fit-router", "--bundle", whole, *encoder, "-o", work / "one", "--force")
    one = command(args, "eval-router", "--bundle", work / "one", "--labels", labels["heldout"])
    several = command(args, "eval-router", "--pool", pool, "--labels", labels["heldout"])
    figures = []
    for name, title in (("gain", "gain"), ("area", "area above random mixing")):
        first, second = (found["figures"]["router"][name] for found in (one, several))
        figures += [_interval(f"{title} of the bundle", first), _interval(f"{title} of the pool", second)]
        figures.append(Figure(name=f"difference of {name}s", value=round(second["value"] - first["value"], 12), unit="score"))
    return Measurement(figures=figures, notes={"routes on": several["router"]["routes_on"]})


def brightness(pixels: Any, prompt: str) -> float:
    """A score for bundles without a scorer of their own; only the routing is compared."""
    return float(pixels.mean() / 255) * (1 + len(prompt) % 7)


def write_captions(path: Path, dataset: str, count: int) -> None:
    from costroute_rt.export.postcard.captions import BANDS, banded

    bands = banded(dataset, -(-count // len(BANDS)))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "prompt", "category", "stated"])
        for band, members in bands.items():
            writer.writerows([each.name, each.text, band, json.dumps(each.stated)] for each in members)


def measure_elsewhere(args: argparse.Namespace, work: Path, _: Scenario) -> Measurement:
    fit, heldout = work / "elsewhere-fit.csv", work / "elsewhere-heldout.csv"
    write_parts(args.geckonum, fit, heldout)
    pool = work / "elsewhere.pool"
    command(args, "pool", "--labels", fit, "-o", pool, "--force")
    fitted = command(args, "fit-router", "--pool", pool, "--labels", fit)
    found = command(args, "eval-router", "--pool", pool, "--labels", heldout)
    route = command(args, "route", "two red apples and a blue cup on a table", "--pool", pool)
    gain = found["figures"]["router"]["gain"]
    return Measurement(
        figures=[
            _interval("gain", gain),
            Figure(name="gain, low end", value=gain["low"], unit="score"),
            Figure(name="models", value=len(route["options"]), unit="count"),
            Figure(name="prompts", value=found["prompts"], unit="count"),
            Figure(name="router", value=found["router_ms"], unit="ms"),
        ],
        notes={"routes on": fitted["routes_on"], "one prompt": route["chosen"]},
    )


def write_parts(source: Path, fit: Path, heldout: Path) -> None:
    """The table with the column candidate, divided by prompts."""
    with open(fit, "w", newline="", encoding="utf-8") as first, open(heldout, "w", newline="", encoding="utf-8") as second:
        writers = [csv.writer(first), csv.writer(second)]
        for writer in writers:
            writer.writerow(["prompt_id", "prompt", "candidate", "score"])
        for row in read_rows(source):
            is_heldout = zlib.crc32(row["prompt_id"].encode()) % PARTS == 0
            writers[is_heldout].writerow([row["prompt_id"], row["prompt"], row["model"], row["score"]])


def read_rows(source: Path) -> Iterator[Mapping[str, str]]:
    with gzip.open(source, "rt", encoding="utf-8", newline="") if source.suffix == ".gz" else open(source, newline="") as file:
        yield from csv.DictReader(file)


def _interval(name: str, interval: Mapping[str, float]) -> Figure:
    return Figure(name=name, value=interval["value"], unit="score", low=interval["low"], high=interval["high"])


if __name__ == "__main__":
    sys.exit(main())
