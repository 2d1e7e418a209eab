"""Where images go: the names of files, decided before anything is generated."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costroute_rt.cli.prompt_file import Line

SLUG_LENGTH = 48
LAST_SEED = 2**63 - 1
RANDOM_SEEDS = 2**32
"""Random seeds are below this, which is short enough to be copied by hand."""
_FIELD = re.compile(r"\{(slug|seed|line|index)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Images to make of one prompt."""

    prompt: str
    seed: int
    """Image `index` is made from seed + index."""
    indices: tuple[int, ...]
    """Which of the prompt's images are to be made, from 0."""
    line: int = 1
    """Line of the file that holds the prompt."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of files, made from one pattern."""

    pattern: str
    may_make_folders: bool

    @classmethod
    def of(cls, output: str | None, *, count: int, many: bool) -> Names:
        """The names that `--output` (a folder, a file, a pattern or nothing) means. many: whether there are several prompts.

        Raises ConfigError if it cannot be the name of an image.
        """
        return cls(_pattern(output, many=many, count=count), many)

    @property
    def fields(self) -> frozenset[str]:
        """The fields in the pattern."""
        return frozenset(_FIELD.findall(self.pattern))

    def path(self, job: Job, index: int) -> Path:
        """The file of one image."""
        values = {"slug": slug_of(job.prompt), "seed": str(job.seed + index), "line": f"{job.line:04d}", "index": str(index + 1)}
        return Path(_FIELD.sub(lambda match: values[match[1]], self.pattern))

    def check_fields(self, lines: Iterable[Line], seed: int | None) -> Iterator[Line]:
        """The lines; raises ConfigError if there are several and the pattern gives all of them the same name. seed: of all lines."""
        lines = iter(lines)
        if self.fields.isdisjoint({"line", "slug", "seed"} if seed is None else {"line", "slug"}):
            first = list(islice(lines, 2))
            if len(first) > 1:
                from costroute_rt.error import ConfigError

                raise ConfigError(
                    "--output", self.pattern, "a folder, or a pattern that gives each line another name, such as 'out/{line}.png'"
                )
            yield from first
        yield from lines

    @property
    def folder(self) -> Path | None:
        """The folder of all images; None if it differs from image to image."""
        folder = Path(self.pattern).parent
        return None if _FIELD.search(str(folder)) else folder

    def check_folder(self, path: Path) -> None:
        """Raises OutputError, before any work, if the folder of `path` cannot take files."""
        _check_folder(path.parent, may_be_made=self.may_make_folders)


def draw_seed(count: int) -> int:
    """A random seed for the first of `count` images."""
    from random import SystemRandom

    return SystemRandom().randrange(RANDOM_SEEDS - count + 1)


def slug_of(prompt: str) -> str:
    """`a-red-house-by-a-lake`: the prompt's ASCII letters and digits, cut at a word; `image` where none are left."""
    plain = unicodedata.normalize("NFKD", prompt[: 8 * SLUG_LENGTH]).encode("ascii", "ignore").decode().lower()
    slug = ""
    for word in re.findall(r"[a-z0-9]+", plain):
        if slug and len(slug) + 1 + len(word) > SLUG_LENGTH:
            break
        slug = f"{slug}-{word}"[:SLUG_LENGTH] if slug else word[:SLUG_LENGTH]
    return slug or "image"


def _pattern(output: str | None, *, many: bool, count: int) -> str:
    """The pattern of names that `output` (a folder, a file, a pattern or nothing) means."""
    from costroute_rt.error import ConfigError
    from costroute_rt.image_file import SUFFIXES

    name = "{line}-{slug}" if many else "{slug}-{seed}"
    if many and count > 1:
        name += "-{index}"
    if output is None:
        return f"{name}.png"
    if os.path.isdir(output) or output.endswith(("/", os.sep)) or (many and not Path(output).suffix):
        return os.path.join(output, f"{name}.png")
    suffix = Path(output).suffix
    if suffix.lower() not in SUFFIXES:
        raise ConfigError("--output", output, f"a folder that exists or a name that ends in {', '.join(SUFFIXES)}")
    if count > 1 and not re.search(r"\{(seed|index)\}", output):
        return f"{output.removesuffix(suffix)}-{{index}}{suffix}"
    return output


def _check_folder(folder: Path, *, may_be_made: bool) -> None:
    """OutputError now rather than after the work, where a folder cannot take files."""
    from costroute_rt.error import OutputError

    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        if not may_be_made or isinstance(error, ValueError) or os.path.lexists(folder):
            raise OutputError(folder, "no such folder") from error
        return _check_folder(folder.parent, may_be_made=True)
    except NotADirectoryError as error:
        raise OutputError(folder, "a part of this path is a file") from error
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    if not is_folder:
        raise OutputError(folder, "not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(folder, "no permission to write there")
    return None
