"""Where images go: the names of files, decided before anything is generated."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SLUG_LENGTH = 48
FIELDS = ("slug", "seed", "line", "index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt to generate, its first seed, and a file for each image."""

    prompt: str
    line: int
    seed: int
    paths: tuple[Path, ...]


def slug_of(prompt: str) -> str:
    """`a-red-house-by-a-lake`: the prompt's ASCII letters and digits, cut at a word; `image` where none are left."""
    plain = unicodedata.normalize("NFKD", prompt[: 8 * SLUG_LENGTH]).encode("ascii", "ignore").decode().lower()
    slug = ""
    for word in re.findall(r"[a-z0-9]+", plain):
        if slug and len(slug) + 1 + len(word) > SLUG_LENGTH:
            break
        slug = f"{slug}-{word}"[:SLUG_LENGTH] if slug else word[:SLUG_LENGTH]
    return slug or "image"


def plan_jobs(prompts: Sequence[tuple[int, str]], seeds: Sequence[int], count: int, output: str | None, *, many: bool) -> list[Job]:
    """Names every image of every (line, prompt); ConfigError where two would share a name, OutputError where none can be written."""
    from costroute_rt.error import ConfigError

    pattern = _pattern(output, many=many, count=count)
    jobs = [
        Job(prompt=prompt, line=line, seed=seed, paths=tuple(_fill(pattern, prompt, line, seed, index) for index in range(count)))
        for (line, prompt), seed in zip(prompts, seeds, strict=True)
    ]
    paths = [path for job in jobs for path in job.paths]
    if len(set(paths)) < len(paths):
        raise ConfigError("--output", output, "a folder, or a pattern that gives each image another name, such as 'out/{line}-{index}.png'")
    for folder in {path.parent for path in paths}:
        _check_folder(folder, may_be_made=many)
    return jobs


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


def _fill(pattern: str, prompt: str, line: int, seed: int, index: int) -> Path:
    values = {"slug": slug_of(prompt), "seed": str(seed + index), "line": f"{line:04d}", "index": str(index + 1)}
    return Path(re.sub(r"\{(" + "|".join(FIELDS) + r")\}", lambda match: values[match[1]], pattern))


def _check_folder(folder: Path, *, may_be_made: bool) -> None:
    """OutputError now rather than after the work, where a folder cannot take files."""
    from costroute_rt.error import OutputError

    if not folder.exists() and may_be_made:
        return _check_folder(folder.parent, may_be_made=True)
    if not folder.exists():
        raise OutputError(folder, "no such folder")
    if not folder.is_dir():
        raise OutputError(folder, "not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(folder, "no permission to write there")
    return None
