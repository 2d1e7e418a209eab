"""Writes tables of captions, which are the prompts for router labels.

    python -m costroute_rt.export.postcard.captions --count 1600 --seed 1 --out captions.csv

writes a table for `costroute-rt label --prompts` with the columns prompt_id, prompt, category (band of the number of stated attributes) and
stated (as JSON). Every category has the same number of captions; categories alternate, so that any part of the table has all of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from costroute_rt.error import CostrouteError, LabelError, OutputError
from costroute_rt.export.postcard.caption import caption
from costroute_rt.export.postcard.scene import Scene, sample_scene

BANDS = {"1-2": (1, 2), "3-4": (3, 4), "5-6": (5, 6), "7+": (7, 99)}
"""Least and greatest number of stated attributes of each category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A text, what it states, and the scene it describes."""

    name: str
    """Name of the scene, which seeds its drawing."""
    text: str
    stated: Scene
    scene: Scene

    @property
    def band(self) -> str:
        return band_of(len(self.stated))


def band_of(stated: int) -> str:
    """The band of a text that states this many attributes."""
    return next(name for name, (low, high) in BANDS.items() if low <= stated <= high)


def captions(dataset: str) -> Iterator[Caption]:
    """Endless captions; number i depends only on the name of the dataset and on i. Texts may repeat."""
    index = 0
    while True:
        name = f"{dataset}-{index}"
        rng = random.Random(name)
        scene = sample_scene(rng)
        text, stated = caption(scene, rng)
        if stated:
            yield Caption(name=name, text=text, stated=stated, scene=scene)
        index += 1


def banded(dataset: str, per_band: int, excluded: Iterable[str] = ()) -> dict[str, list[Caption]]:
    """The first `per_band` captions of each band, without repeated texts and without excluded ones in any letter case."""
    bands: dict[str, list[Caption]] = {name: [] for name in BANDS}
    texts, excluded_texts = set[str](), set(map(normalise, excluded))
    for each in captions(dataset):
        if each.text not in texts and normalise(each.text) not in excluded_texts and len(bands[each.band]) < per_band:
            bands[each.band].append(each)
            texts.add(each.text)
        if all(len(members) >= per_band for members in bands.values()):
            break
    return bands


def normalise(text: str) -> str:
    """Folds case and collapses spaces, so that texts that differ only in these compare equal."""
    return " ".join(text.casefold().split())


def write_captions(path: Path, rows: Iterable[Caption]) -> None:
    """Writes the table; raises OutputError."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("prompt_id", "prompt", "category", "stated"))
            table.writerows((each.name, each.text, each.band, json.dumps(each.stated, separators=(",", ":"))) for each in rows)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def read_texts(path: Path) -> list[str]:
    """Reads the prompts of a table, to exclude them from another one; raises LabelError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [row["prompt"] for row in csv.DictReader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise LabelError(path, f"its prompts cannot be read: {error!r}", "name a CSV with a column prompt") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m costroute_rt.export.postcard.captions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1500, help="number of captions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the captions (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table to write")
    parser.add_argument(
        "--exclude", type=Path, nargs="*", action="extend", default=[], metavar="FILE", help="tables whose prompts are excluded"
    )
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error("--count: expected 1 or more")
    try:
        bands = banded(f"router-{args.seed}", -(-args.count // len(BANDS)), chain(*map(read_texts, args.exclude)))
        alternating = [each for each in chain(*zip_longest(*bands.values())) if each is not None][: args.count]
        write_captions(args.out, alternating)
    except CostrouteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
