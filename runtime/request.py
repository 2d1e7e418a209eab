"""A request, checked before any work is done for it."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

from costroute_rt.engines.bundle.bundle import ImageSpec
from costroute_rt.engines.bundle.size import check_bundle_size
from costroute_rt.error import ConfigError
from costroute_rt.family.prompt import check_prompt, check_text

LAST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants; fields as `Runtime.generate` has them. Raises PromptError or ConfigError for what cannot be done."""

    prompt: str
    negative_prompt: str = ""
    max_ms: float | None = None
    candidate: str | None = None
    count: int = 1
    height: int
    width: int
    lam: float = 0.0
    tolerance: float = 0.0
    or_fastest: bool = False

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        check_text("negative prompt", self.negative_prompt)
        if self.max_ms is not None and not (_is_finite(self.max_ms) and self.max_ms > 0):
            raise ConfigError("max_ms", self.max_ms, "a number of milliseconds above 0")
        for name in ("lam", "tolerance"):
            value = getattr(self, name)
            if not (_is_finite(value) and value >= 0):
                raise ConfigError(name, value, "a finite number, 0 or more")
            object.__setattr__(self, name, float(value))
        if check_whole("count", self.count) < 1:
            raise ConfigError("count", self.count, "1 or more")
        object.__setattr__(self, "count", int(self.count))
        if self.max_ms is not None:
            object.__setattr__(self, "max_ms", float(self.max_ms))


def check_size(image: ImageSpec, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width of the images in pixels, the bundle's own where None; raises ConfigError for a size it cannot make."""
    return check_bundle_size(
        image,
        image.height if height is None else check_whole("height", height),
        image.width if width is None else check_whole("width", width),
    )


def check_seed(seed: int | None, count: int) -> int | None:
    """The seed, where it and those of all `count` images are in range; raises ConfigError."""
    if seed is None:
        return None
    whole = check_whole("seed", seed)
    if not 0 <= whole <= LAST_SEED - (count - 1):
        raise ConfigError("seed", seed, f"a whole number from 0 to {LAST_SEED - (count - 1)}")
    return whole


def check_whole(name: str, value: object) -> int:
    """`value` as an int, where it is a whole number of any integer type; raises ConfigError."""
    if isinstance(value, bool):
        raise ConfigError(name, value, "a whole number")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(name, value, "a whole number") from error


def _is_finite(value: object) -> bool:
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        return False
