"""Command lines drawn from the commands and options that exist, with plausible and odd values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import click

from costroute_rt.cli.main import cli
from tests.fuzz.odd import odd_number, odd_text
from tests.fuzz.place import NAMES

Path = tuple[str, ...]

PLAUSIBLE = {
    "bundle": ("../bundle", "../bundle", "../routed"),
    "prompt": ("a lake", "a red house at night", "word " * 90),
    "prompts": ("lines.txt", "prompts.csv", "-", "../odd/fifo"),
    "labels": ("labels.csv", "heldout.csv", "labels.csv.gz"),
    "output": (
        "out.png",
        "out",
        "out/",
        "out/{line}.webp",
        "{slug}-{seed}.jpg",
        "new/deep/x.png",
        "image.png",
        "image.jpg",
        "{index}.png",
        ".",
    ),
    "html": ("report.html", "new/report.html"),
    "image": ("image.png", "image.jpg", "image.webp"),
    "backend": ("onnxruntime", "onnxruntime", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"),
    "provider": ("auto", "cpu", "cuda", "rocm"),
    "precision": ("auto", "float32", "float16", "bfloat16"),
    "candidate": NAMES,
    "candidates": NAMES,
    "encoder": ("states", "hashed", "../bundle/text_encoder"),
    "estimators": ("knn", "linear", "mean", "transformer"),
    "score": ("score", "cost_ms", "seed", "prompt"),
    "category": ("category", "prompt", "candidate"),
    "scorers": ("fuzz_scorer:brightness", "fuzz_scorer:brightness", "fuzz_scorer:nothing", "postcard"),
    "graphs": ("base/guided_step", "turbo/step", "tiny/vae/decode"),
    "seed": ("7", "0", "123456789012"),
    "first_seed": ("0", "7"),
    "seeds": ("1", "2"),
    "count": ("1", "1", "2", "3"),
    "height": ("64", "64", "96", "128"),
    "width": ("64", "96", "128"),
    "threads": ("1", "2"),
    "max_ms": ("1", "20", "100", "5000"),
    "mean_ms": ("1", "50", "5000"),
    "total_s": ("0.001", "1", "20"),
    "max_gb": ("0", "0.0001", "1"),
    "lam": ("0", "0.001"),
    "tolerance": ("0", "0.1"),
    "anchors": ("1", "2", "50"),
}
"""Values that may work, by the name of the parameter; others get texts and numbers by their type."""
OFTEN = {
    "bundle": 1.0,
    "labels": 0.9,
    "output": 0.7,
    "scorers": 0.95,
    "prompts": 0.35,
    "encoder": 0.7,
    "estimators": 0.3,
    "html": 0.1,
    "allow_fallback": 0.1,
}
"""How often an option is given that may be left out; the others more seldom. The shipped bundle would take minutes to build."""
SELDOM = 0.12
NOT_LONG = {"count": 4, "seeds": 2}
"""Larger numbers are fine for the product, and too long to wait for."""


def leaves(group: click.Group = cli, path: Path = ()) -> Iterator[tuple[Path, click.Command]]:
    """Every command, with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = {path: command for path, command in leaves() if path != ("serve",)}
"""But the server, which does not end by itself; its requests are drawn in tests/cli/server."""


def draw_command(random: Random, odd_paths: Sequence[str], digests: Sequence[str], path: Path | None = None) -> list[str]:
    """The arguments of one command. path: of the command; None means any."""
    path = random.choice(list(COMMANDS)) if path is None else path
    oddness = random.choice((0.0, 0.05, 0.2, 0.6))
    draw = Draw(random, odd_paths, digests, oddness)
    options, arguments = list[list[str]](), list[str]()
    for param in COMMANDS[path].params:
        if isinstance(param, click.Argument):
            arguments += draw.argument(param)
        elif isinstance(param, click.Option):
            options += draw.option(param)
    random.shuffle(options)
    words = [word for option in options for word in option]
    if random.random() < oddness / 4:
        words.insert(
            random.randrange(len(words) + 1), random.choice(("--nope", "-x", "--", "-o", "--json=1", "--help", "-", "", odd_text(random)))
        )
    words = [*arguments, *words] if random.random() < 0.7 else [*words, *(["--"] if random.random() < 0.5 else []), *arguments]
    return [*path, *words]


class Draw:
    """Draws the values of parameters."""

    def __init__(self, random: Random, odd_paths: Sequence[str], digests: Sequence[str], oddness: float) -> None:
        """oddness: share of values that are odd."""
        self._random, self._odd_paths, self._digests, self._oddness = random, odd_paths, digests, oddness

    def argument(self, param: click.Argument) -> list[str]:
        is_given = self._random.random() < (1 - self._oddness / 4 if param.required or param.name == "image" else 0.7)
        return [self.value(param) for _ in range(self._random.choice((1, 1, 2, 3)) if param.nargs == -1 else is_given)]

    def option(self, param: click.Option) -> list[list[str]]:
        """The option's words, as often as it is given."""
        is_must = param.required and self._random.random() < 1 - self._oddness / 5
        if not is_must and self._random.random() > OFTEN.get(str(param.name), SELDOM):
            return []
        times = self._random.choice((1, 1, 2)) if param.multiple else 1 + (self._random.random() < self._oddness / 10)
        return [self._one(param) for _ in range(times)]

    def _one(self, param: click.Option) -> list[str]:
        name = self._random.choice(param.opts)
        if param.is_flag:
            return [name]
        value = self.value(param)
        return [f"{name}={value}"] if name.startswith("--") and self._random.random() < 0.3 else [name, value]

    def value(self, param: click.Parameter) -> str:
        name = str(param.name)
        if self._random.random() >= self._oddness:
            if name == "digests":
                return self._random.choice([*(each[: self._random.choice((4, 12, 32))] for each in self._digests), "abcd"])
            if name in PLAUSIBLE:
                return self._random.choice(PLAUSIBLE[name])
            if isinstance(param.type, click.Choice):
                return str(self._random.choice(param.type.choices))
        if isinstance(param.type, click.Path):
            return self._random.choice(self._odd_paths) if self._random.random() < 0.75 else inside(odd_text(self._random))
        if isinstance(param.type, click.IntRange | click.FloatRange) or self._random.random() < 0.1:
            return self._short(name, odd_number(self._random))
        return inside(odd_text(self._random))

    def _short(self, name: str, number: str) -> str:
        try:
            return number if name not in NOT_LONG or not NOT_LONG[name] < int(number) <= 10_000 else "2"
        except ValueError:
            return number


def changed_by(arguments: list[str]) -> set[str]:
    """Folders that this command may write into."""
    writes = {"gen", "fit-router", "eval-router", "label"}
    return {"user", *({"bundle", "routed"} if arguments and arguments[0] in writes else ())}


def inside(text: str) -> str:
    """The text, which as a path stays in the folder of the case."""
    return text.lstrip("/")
