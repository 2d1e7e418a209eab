"""Requests: what to generate, checked before any work is done."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypedDict, TypeVar

import numpy as np

from costroute_rt.error import ConfigError, PromptError
from costroute_rt.source_image import SourceImage
from costroute_rt.value import shorten

if TYPE_CHECKING:
    from os import PathLike

    import numpy.typing as npt
    from PIL.Image import Image
    from typing_extensions import Unpack

    ImageLike = str | PathLike[str] | Image | npt.NDArray[np.uint8] | npt.NDArray[np.bool_] | SourceImage

T = TypeVar("T")
LAST_SEED = 2**63 - 1
DEFAULT_STRENGTH = 0.8
"""Of diffusers' StableDiffusionImg2ImgPipeline; its inpainting pipeline has 1."""
MOST_IMAGES = 10_000
"""Of one request: their pixels are kept until its end."""
_REFUSED = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Control characters other than tab and line breaks, and unpaired surrogates."""


class RequestOptions(TypedDict, total=False):
    """The keywords of `Runtime.generate`, `stream` and `route`: all fields of `Request` but the prompt."""

    negative_prompt: str | None
    max_ms: float | None
    candidate: str | None
    scheduler: str | None
    seed: int | None
    count: int
    height: int | None
    width: int | None
    lam: float
    tolerance: float
    or_fastest: bool
    preview: bool
    plain_prompt: bool
    init_image: ImageLike | None
    strength: float | None
    mask: ImageLike | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to generate; raises PromptError or ConfigError for an invalid field."""

    prompt: str
    negative_prompt: str | None = None
    """What guided candidates steer away from; None, as in diffusers, means the family's default: the empty text or zeros."""
    max_ms: float | None = None
    """Budget from the call to uint8 pixels in host memory, all images together; None means no budget: the best candidate runs."""
    candidate: str | None = None
    """Name of the only candidate to consider."""
    scheduler: str | None = None
    """Scheduler that replaces the candidates' own, by the name that diffusers, AUTOMATIC1111 or ComfyUI has for it (`DPM++ 2M Karras`)."""
    seed: int | None = None
    """0 or more; image i is made from seed + i. None means a random seed, which the result reports."""
    count: int = 1
    """Number of images."""
    height: int | None = None
    """Pixels; None means the family's default."""
    width: int | None = None
    lam: float = 0.0
    """Quality that one millisecond is worth: lambda in q - lambda * c."""
    tolerance: float = 0.0
    """Quality that may be given up for a cheaper candidate."""
    or_fastest: bool = False
    """If no candidate fits the budget, run the fastest in full and report that the budget was missed."""
    preview: bool = False
    """Whether step events carry a rough preview of the image."""
    plain_prompt: bool = False
    """Take both prompts literally, without weights in brackets, and cut long ones, also with models whose prompts have that syntax."""
    init_image: ImageLike | None = None
    """The image to begin with, which becomes a SourceImage: a path, a PIL image or an array. It is scaled to cover the size and cropped."""
    strength: float | None = None
    """How much of `init_image` may change, above 0 to 1: the share of the steps that run. None means 0.8, and 1 with a mask."""
    mask: ImageLike | None = None
    """White where `init_image` is painted anew; all other pixels stay as they are. It is stretched to the image's size."""

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        if self.negative_prompt is not None:
            check_text("negative prompt", self.negative_prompt)
        if self.max_ms is not None:
            object.__setattr__(self, "max_ms", check_number("max_ms", self.max_ms, "a number of milliseconds above 0"))
            if self.max_ms <= 0:
                raise ConfigError("max_ms", self.max_ms, "a number of milliseconds above 0")
        for name in ("lam", "tolerance"):
            value = check_number(name, getattr(self, name), "a finite number, 0 or more")
            if value < 0:
                raise ConfigError(name, value, "a finite number, 0 or more")
            object.__setattr__(self, name, value)
        for name in ("count", "seed", "height", "width"):
            if getattr(self, name) is not None or name == "count":
                object.__setattr__(self, name, check_whole(name, getattr(self, name)))
        if not 1 <= self.count <= MOST_IMAGES:
            raise ConfigError("count", self.count, f"1 to {MOST_IMAGES}")
        if self.candidate is not None:
            check_name("candidate", self.candidate)
        if self.scheduler is not None:
            check_name("scheduler", self.scheduler)
        for name in ("or_fastest", "preview", "plain_prompt"):
            object.__setattr__(self, name, check_flag(name, getattr(self, name)))
        self._check_image()
        most = LAST_SEED - (self.count - 1)
        if self.seed is not None and not 0 <= self.seed <= most:
            raise ConfigError("seed", self.seed, f"a whole number from 0 to {most}")

    def _check_image(self) -> None:
        for name in ("strength", "mask"):
            if self.init_image is None and getattr(self, name) is not None:
                raise ConfigError(name, getattr(self, name), "None without an init_image")
        for name in ("init_image", "mask"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, SourceImage.of(name, getattr(self, name)))
        if self.strength is not None:
            expected = "a number above 0, up to 1"
            object.__setattr__(self, "strength", check_number("strength", self.strength, expected))
            if not 0 < self.strength <= 1:
                raise ConfigError("strength", self.strength, expected)

    def __repr__(self) -> str:
        """The prompt, and the fields that differ from their defaults."""
        changed = {each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default}
        texts = (f"{name}={shorten(value) if isinstance(value, str) else repr(value)}" for name, value in changed.items())
        return f"Request({', '.join(texts)})"

    @property
    def source(self) -> SourceImage | None:
        """The image that the run begins with."""
        return self.init_image if isinstance(self.init_image, SourceImage) else None

    @property
    def source_mask(self) -> SourceImage | None:
        """The mask of `source`."""
        return self.mask if isinstance(self.mask, SourceImage) else None

    @property
    def used_strength(self) -> float | None:
        """The strength, or its default; None without an image to begin with."""
        if self.init_image is None:
            return None
        default = DEFAULT_STRENGTH if self.mask is None else 1.0
        return default if self.strength is None else self.strength

    @property
    def start(self) -> dict[str, object]:
        """The image to begin with and how far it may change, for the settings of the result; None for what there is not."""
        return {
            "strength": self.used_strength,
            "init_image_sha256": None if self.source is None else self.source.sha256,
            "mask_sha256": None if self.source_mask is None else self.source_mask.sha256,
        }

    @property
    def has_negative_prompt(self) -> bool:
        """Whether there is something to steer away from: the negative prompt is neither missing nor blank."""
        return self.negative_prompt is not None and bool(self.negative_prompt.strip())


def make_request(prompt: str | Request, **options: Unpack[RequestOptions]) -> Request:
    """A request for `prompt` with these options; if `prompt` is a request, a copy of it with these options replaced."""
    return replace(prompt, **options) if isinstance(prompt, Request) else Request(prompt=prompt, **options)


def check_prompt(prompt: object) -> str:
    """The prompt, checked; raises PromptError if it is empty or has control characters, ConfigError if it is not text."""
    text = check_text("prompt", prompt)
    if not text.strip():
        raise PromptError("the prompt is empty: describe the image")
    return text


def check_list(name: str, values: Iterable[T]) -> list[T]:
    """The values in their order; raises ConfigError for a single text, for values without an order, and for what has no values."""
    if isinstance(values, str | bytes | bytearray | memoryview | Mapping | Set):
        raise ConfigError(name, values, "a list, not a single text or values without an order")
    try:
        items = iter(values)
    except TypeError as error:  # arrays of no dimension have __iter__ too
        raise ConfigError(name, values, "a list") from error
    return list(items)


def check_text(name: str, text: object) -> str:
    """`text`, checked; it may be empty. Raises ConfigError if it is not text, PromptError if it has control characters."""
    if not isinstance(text, str):
        raise ConfigError(name, text, "text")
    refused = _REFUSED.search(text)
    if refused:
        code = ord(refused.group())
        what = "half of a surrogate pair" if code >= 0xD800 else "a control character"
        raise PromptError(f"the {name} has {what}, U+{code:04X}, at position {refused.start()}: remove it")
    return text


def check_name(name: str, value: object) -> str:
    """`value`, the name of something; raises ConfigError if it is not text."""
    if not isinstance(value, str):
        raise ConfigError(name, value, "a name")
    return value


def check_flag(name: str, value: object) -> bool:
    """`value` as a bool, NumPy's included; raises ConfigError if it is neither."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        raise ConfigError(name, value, "True or False")
    return bool(value)


def check_callback(name: str, value: object) -> None:
    """Raises ConfigError if `value` is neither None nor a function."""
    if value is not None and not callable(value):
        raise ConfigError(name, value, "a function, or None")


def check_event(name: str, value: object) -> None:
    """Raises ConfigError if `value` is neither None nor an event, of whatever library."""
    if value is not None and not callable(getattr(value, "is_set", None)):
        raise ConfigError(name, value, "a threading.Event, or None")


def check_whole(name: str, value: object) -> int:
    """`value` of any integer type as an int; raises ConfigError if it is not a whole number."""
    if isinstance(value, (bool, np.bool_)):  # NumPy before 2.3 takes its own for a whole number, with a warning
        raise ConfigError(name, value, "a whole number")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(name, value, "a whole number") from error


def check_spent(spent_ms: object) -> float:
    """The time of a budget that has passed, in milliseconds; raises ConfigError if it is not a number of 0 or more."""
    expected = "a finite number of milliseconds, 0 or more"
    found = check_number("spent_ms", spent_ms, expected)
    if found < 0:
        raise ConfigError("spent_ms", spent_ms, expected)
    return found


def check_number(name: str, value: object, expected: str) -> float:
    """`value` of any numeric type as a float; raises ConfigError if it is not a finite number."""
    try:
        if not isinstance(value, (bool, np.bool_, str)) and math.isfinite(value):  # type: ignore[arg-type]
            return float(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError, ValueError):
        pass
    raise ConfigError(name, value, expected)
