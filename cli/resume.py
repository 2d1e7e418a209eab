"""Resuming a run: an existing image is kept only if its own settings are those that are wanted now."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costroute_rt.cli.choice import ImageChoice
    from costroute_rt.engines.bundle.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the settings of every image of a run must be."""

    sources: Mapping[str, tuple[str, str, int, int]] = field(default_factory=dict)
    """Family, revision, height and width of the images of each candidate."""
    candidate: str | None
    """None allows any."""
    negative_prompt: str | None
    may_ignore_negative: bool
    """Whether an image without guidance, which ignores negative prompts, is what this run would make."""
    plain_prompt: bool = False
    start: Mapping[str, object] = field(default_factory=dict)
    """Settings of the image to begin with; empty without one."""
    scheduler: str | None = None
    """The requested name; None for the candidate's own scheduler."""

    @classmethod
    def of(cls, pool: Pool, image: ImageChoice, *, is_timed: bool) -> Wanted:
        """What this pool would make for these options. is_timed: whether there is a budget, within which guidance may not fit."""
        from costroute_rt.request import Request

        rows = [(bundle, row) for bundle in pool.bundles.values() for row in bundle.pool]
        has_guided = any(row["guidance_scale"] > 1 for _, row in rows)
        has_negative = bool(image.negative_prompt and image.negative_prompt.strip())
        return cls(
            sources={
                row["name"]: (bundle.family, bundle.revision, image.height or bundle.image.height, image.width or bundle.image.width)
                for bundle, row in rows
            },
            candidate=image.candidate,
            negative_prompt=image.negative_prompt,
            may_ignore_negative=not (has_guided and has_negative) or is_timed or image.candidate is not None,
            plain_prompt=image.plain_prompt,
            start=Request(prompt="a", init_image=image.init_image, strength=image.strength, mask=image.mask).start,
            scheduler=image.scheduler,
        )

    def allows(self, settings: Mapping[str, Any], prompt: str, seed: int | None) -> bool:
        """Whether an image with these settings is the wanted one. seed: None means any."""
        name = settings.get("candidate")
        found = tuple(settings.get(key) for key in ("family", "revision", "height", "width"))
        known = self.sources.values() if not isinstance(name, str) or name not in self.sources else [self.sources[name]]
        if found not in known:
            return False
        expected: dict[str, Any] = {"prompt": prompt}
        expected |= {} if seed is None else {"seed": seed}
        expected |= {} if self.candidate is None else {"candidate": self.candidate}
        if settings.get("plain_prompt", False) != self.plain_prompt or settings.get("requested_scheduler") != self.scheduler:
            return False
        if any(settings.get(name) != self.start.get(name) for name in ("strength", "init_image_sha256", "mask_sha256")):
            return False
        return all(settings.get(name) == value for name, value in expected.items()) and self._allows_negative(settings)

    def _allows_negative(self, settings: Mapping[str, Any]) -> bool:
        found, ignored = settings.get("negative_prompt"), settings.get("ignored")
        has_ignored = isinstance(ignored, Mapping) and "negative_prompt" in ignored
        is_unguided = settings.get("guidance_scale") is None or has_ignored
        return found == self.negative_prompt or (found is None and is_unguided and self.may_ignore_negative)


def read_existing(path: Path) -> Mapping[str, Any] | None:
    """The settings of the image at `path`; None if nothing is there, {} for an image of ours that is incomplete.

    Raises OutputError if something else is there.
    """
    from costroute_rt import read_settings
    from costroute_rt.error import ConfigError, OutputError, Reason

    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):  # also for a link to a missing file, which the image will replace
        return None
    except (OSError, ValueError) as error:
        raise OutputError(path, (error.strerror if isinstance(error, OSError) else None) or str(error)) from error
    if stat.S_ISDIR(mode):
        raise OutputError(path, "it is a directory")
    foreign = OutputError(path, "it exists and was not made by costroute-rt", reason=Reason.FOREIGN)
    if not stat.S_ISREG(mode):
        raise foreign
    try:
        settings = read_settings(path)
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError):
            raise OutputError(path, "it exists and cannot be read, to see whether it is the wanted image") from error
        raise foreign from error
    return settings if _is_complete(path) else {}


def find_seed(settings: Mapping[str, Any], index: int, last_seed: int) -> int | None:
    """The seed of a prompt's first image, by the settings of image `index`; None if they hold no usable seed."""
    seed = settings.get("seed")
    return seed - index if isinstance(seed, int) and not isinstance(seed, bool) and index <= seed <= last_seed else None


def _is_complete(path: Path) -> bool:
    """Whether the image can be read to its end."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            image.verify() if image.format == "PNG" else image.load()
    except Exception:  # Pillow raises half a dozen kinds for damaged files
        return False
    return True
