"""Captions in numbers: the prompts that labels are made for.

    python -m costroute_rt.export.postcard.captions --count 1600 --seed 1 --out captions.csv

writes a table with the columns prompt_id, prompt, category (how much is asked: number of stated attributes) and stated (as JSON), which
`costroute-rt label --prompts` reads. Every category gets the same number of captions, and every stretch of the table holds all of them.
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
    """Of the scene; with it the scene can be drawn again."""
    text: str
    stated: Scene
    scene: Scene

    @property
    def band(self) -> str:
        return band_of(len(self.stated))


def band_of(stated: int) -> str:
    """Which of BANDS a text belongs to that states so many attributes."""
    return next(name for name, (low, high) in BANDS.items() if low <= stated <= high)


def captions(dataset: str) -> Iterator[Caption]:
    """Captions without end; number i depends on the name of the dataset and i alone. Texts may repeat."""
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
    """The first `per_band` captions of each band, no text twice and none of those excluded, in whatever letter case."""
    found: dict[str, list[Caption]] = {name: [] for name in BANDS}
    texts, left_out = set[str](), set(map(normalise, excluded))
    for each in captions(dataset):
        if each.text not in texts and normalise(each.text) not in left_out and len(found[each.band]) < per_band:
            found[each.band].append(each)
            texts.add(each.text)
        if all(len(members) >= per_band for members in found.values()):
            break
    return found


def normalise(text: str) -> str:
    """The same for texts that differ in letter case and spaces alone."""
    return " ".join(text.casefold().split())


def write_captions(path: Path, found: Iterable[Caption]) -> None:
    """The table; raises OutputError."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("prompt_id", "prompt", "category", "stated"))
            table.writerows((each.name, each.text, each.band, json.dumps(each.stated, separators=(",", ":"))) for each in found)
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def read_texts(path: Path) -> list[str]:
    """The prompts of a table, to leave them out of another; raises LabelError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [row["prompt"] for row in csv.DictReader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise LabelError(path, f"its prompts cannot be read: {error!r}", "name a CSV with a column prompt") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m costroute_rt.export.postcard.captions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1500, help="captions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another number, other captions (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table to write")
    parser.add_argument(
        "--exclude", type=Path, nargs="*", action="extend", default=[], metavar="FILE", help="leave out the prompts of these tables"
    )
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error("--count: expected 1 or more")
    try:
        found = banded(f"router-{args.seed}", -(-args.count // len(BANDS)), chain(*map(read_texts, args.exclude)))
        in_turn = [each for each in chain(*zip_longest(*found.values())) if each is not None][: args.count]
        write_captions(args.out, in_turn)
    except CostrouteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
