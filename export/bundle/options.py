"""What a user may decide about a bundle besides the model."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from costroute_rt.engines.bundle.manifest import LONGEST_SIDE_PX
from costroute_rt.error import ConfigError
from costroute_rt.export.families.kind import KINDS

_MOST_STEPS = 1000
_MOST_SKIPPED = 12
_MOST_SIZES, _MOST_CANDIDATES = 16, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The settings of `export_model`."""

    copies: bool = False
    """Copy all weights, so that the bundle does not depend on the files they come from; otherwise they are linked where possible."""
    overwrite: bool = False
    """Replace an existing bundle, and nothing else."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(height, width) of the images, the usual one first; empty means the model's own."""
    any_size: bool = False
    """Whether images may have other sizes too, up to twice the usual one; engines for any size are slower."""
    steps: tuple[int, ...] = ()
    """Numbers of steps of the candidates; empty means those of the model's kind."""
    schedulers: tuple[str, ...] = ()
    """Names of schedulers, as diffusers, AUTOMATIC1111 or ComfyUI have them, for candidates with each of them; empty means that of the
    model's kind."""
    clip_skip: int = 0
    """Last layers of the text encoders that are left out."""
    int8: bool = False
    """Add a denoiser with int8 weights, and candidates with it."""
    kind: str | None = None
    """One of `KINDS`; None means that it is found out."""
    guidance_ends: tuple[float, ...] = ()
    """Shares of the steps after which guidance ends, for candidates with each of them; empty means that it never does."""
    guidance_rescale: float | None = None
    """How much guided outputs are brought to the standard deviation of the prompt's, 0 to 1; None means that of the model."""

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise ConfigError("kind", self.kind, f"one of {', '.join(KINDS)}")
        if not isinstance(self.clip_skip, int) or not 0 <= self.clip_skip <= _MOST_SKIPPED:
            raise ConfigError("clip_skip", self.clip_skip, f"a whole number from 0 to {_MOST_SKIPPED}")
        if len(self.sizes) > _MOST_SIZES:
            raise ConfigError("sizes", len(self.sizes), f"{_MOST_SIZES} at most")
        if any(not isinstance(count, int) or not 1 <= count <= _MOST_STEPS for count in self.steps) or len(self.steps) > _MOST_CANDIDATES:
            raise ConfigError("steps", self.steps, f"whole numbers from 1 to {_MOST_STEPS}")
        if any(not 0 < share <= 1 for share in self.guidance_ends) or len(self.guidance_ends) > _MOST_CANDIDATES:
            raise ConfigError("guidance_ends", self.guidance_ends, "shares of the steps, above 0 and up to 1")
        if self.guidance_rescale is not None and not 0 <= self.guidance_rescale <= 1:
            raise ConfigError("guidance_rescale", self.guidance_rescale, "a number from 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """What decides the content of the bundle, for its key."""
        values = asdict(self)
        del values["overwrite"]
        return values


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of `512x768`; raises ConfigError."""
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text.strip())
    if found is None:
        raise ConfigError("size", text, "height and width in pixels, such as 512x768")
    return int(found[1]), int(found[2])


def check_size(size: tuple[int, int], multiple_px: int) -> tuple[int, int]:
    """The size; raises ConfigError for one that the family cannot make."""
    if any(not multiple_px <= side <= LONGEST_SIDE_PX or side % multiple_px for side in size):
        raise ConfigError("size", f"{size[0]}x{size[1]}", f"multiples of {multiple_px} up to {LONGEST_SIDE_PX}")
    return size
