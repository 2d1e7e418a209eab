"""The cases: every image that is compared, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.parity.checkpoint import WORD
from benchmarks.parity.model import MODELS, SIDE_PX, Model
from benchmarks.parity.prompt_rule import BREAK, Pieces
from benchmarks.parity.scheduler import COMMON, FEW_STEPS, OWN, Scheduler

PLAIN = "a red fox in the snow, oil painting"
_WORDS = "a red fox in the deep snow of a quiet forest, thick brushwork on canvas, warm light from the left, "
LONG = _WORDS * 5
"""Three chunks."""
LONG_WORD = "fox " * 90
"""Two chunks, without a comma at which the first could end."""
FEW_FROM_IMAGES = ("Euler", "LCM")
FROM_IMAGES = ("Euler", "Euler a", "Heun", "DPM2 a", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 3M", "DPM++ 2S a", "DPM++ SDE", "UniPC", "DDIM")
"""Schedulers of runs that begin at an image: one of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as a user writes it, and as pieces with weights, written out by hand; None for one without syntax that fits one chunk."""

    text: str = PLAIN
    pieces: Pieces | None = None
    negative: str | None = None
    negative_pieces: Pieces = (("", 1.0),)


_NEGATIVE = "blurry, grey"
PROMPTS: dict[str, Prompt] = {
    "negative prompt": Prompt(negative=_NEGATIVE, negative_pieces=((_NEGATIVE, 1.0),)),
    "weights": Prompt(
        text="a (red:1.4) fox in [the snow], (((oil))) painting (dark:0.5)",
        pieces=(
            ("a ", 1.0), ("red", 1.4), (" fox in ", 1.0), ("the snow", 1 / 1.1), (", ", 1.0), ("oil", 1.1**3), (" painting ", 1.0),
            ("dark", 0.5),
        ),
    ),
    "nested weights": Prompt(
        text="(a red (fox:1.5) in:0.8) the snow \\(oil\\)",
        pieces=(("a red ", 0.8), ("fox", 1.2), (" in", 0.8), (" the snow (oil)", 1.0)),
    ),
    "3 chunks": Prompt(text=LONG, pieces=((LONG, 1.0),)),
    "2 chunks without a comma": Prompt(text=LONG_WORD, pieces=((LONG_WORD, 1.0),)),
    "3 chunks, weights, negative prompt": Prompt(
        text=f"(sunset:1.3) {LONG}", pieces=(("sunset", 1.3), (f" {LONG}", 1.0)),
        negative=f"(blurry:1.2), {LONG_WORD}", negative_pieces=(("blurry", 1.2), (f", {LONG_WORD}", 1.0)),
    ),
    "BREAK": Prompt(
        text="a red fox BREAK in the (snow:1.2)", pieces=(("a red fox", 1.0), BREAK, ("in the ", 1.0), ("snow", 1.2)),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image."""

    model: Model
    scheduler: Scheduler = OWN
    steps: int
    size: tuple[int, int] = (SIDE_PX, SIDE_PX)
    """Height and width in pixels."""
    what: str = ""
    """What is particular, for its name."""
    prompt: Prompt = Prompt()
    strength: float | None = None
    """With it, the run begins at an image."""
    has_mask: bool = False
    is_tiny: bool = False
    """Whether the tiny decoder decodes."""

    @property
    def note(self) -> str:
        """What the row of the table says."""
        skip = "diffusers' clip_skip leaves the negative prompt whole: compared with AUTOMATIC1111's rule" if self.model.clip_skip else ""
        paste = "the image's own pixels outside the mask, in both" if self.has_mask else ""
        is_between = self.has_mask and self.scheduler.name.startswith("DPM++ SDE")
        middle = (
            "diffusers puts the image back with the next step's noise in the middle of a step: with that of the middle"
            if is_between
            else ""
        )
        top = "one step of linspace would be timestep 0, which leaves the noise: trailing in both" if self.begins_at_the_top else ""
        return ", ".join(filter(None, (self.scheduler.note, skip, paste, middle, top)))

    @property
    def begins_at_the_top(self) -> bool:
        """Whether it is a single step of a scheduler by name with evenly spaced timesteps, from the highest noise level in ours."""
        spacing = self.scheduler.theirs.get("timestep_spacing", self.model.spacing)
        return bool(self.scheduler.name) and self.steps == 1 and spacing == "linspace" and self.scheduler.levels is None

    @property
    def has_image(self) -> bool:
        """Whether the run begins at an image."""
        return self.strength is not None

    @property
    def name(self) -> str:
        """For example `sdxl, Euler a, 4 steps, 128x192`."""
        scheduler = self.scheduler.name or f"own ({self.model.own['_class_name'].removesuffix('Scheduler')})"
        size = f"{self.size[0]}x{self.size[1]}" if self.size != (SIDE_PX, SIDE_PX) else ""
        count = f"{self.steps} step{'s' if self.steps > 1 else ''}"
        return ", ".join(filter(None, (self.model.name, scheduler, count, self.what, size)))


def draw_image(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8[height, width, 3]: the image that runs begin at."""
    down, right = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(down / (9 + 4 * channel)) + np.cos(right / (7 + 5 * channel)) for channel in range(3)]
    return np.asarray(128 + 55 * np.stack(waves, -1), dtype=np.uint8)


def draw_mask(size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """bool[height, width]: where it is painted anew; its edges lie within cells of the latent."""
    mask = np.zeros(size, dtype=np.bool_)
    mask[size[0] // 4 + 3 : size[0] - 11, size[1] // 3 : size[1] * 3 // 4] = True
    return mask


def all_cases() -> Iterator[Case]:
    """Model by model, so that each is exported once."""
    for model in MODELS:
        yield from (Case(model=model, steps=steps) for steps in model.steps)
        if model.name in ("sd15", "sd21-v", "sd21-zero-snr", "sdxl", "sd-turbo", "sdxl-turbo"):
            yield from _scheduled(model, COMMON)
        elif not model.timesteps and not model.has_extras and not model.clip_skip:
            yield from _scheduled(model, tuple(each for each in COMMON if each.name in FEW_STEPS))
        yield from (Case(model=model, steps=4, size=size) for size in ((96, 192), (192, 128), (64, 64)))
        yield from _prompted(model)
        yield from _from_images(model)
        if model.has_extras:
            yield Case(model=model, steps=4, what="textual inversion", prompt=Prompt(text=f"a {WORD} fox"))
            pieces = (("a ", 1.0), (WORD, 1.3), (" fox", 1.0))
            yield Case(model=model, steps=4, what="textual inversion, weights", prompt=Prompt(text=f"a ({WORD}:1.3) fox", pieces=pieces))
            yield from (Case(model=model, steps=steps, what="tiny decoder", is_tiny=True) for steps in model.steps)


def _scheduled(model: Model, schedulers: tuple[Scheduler, ...]) -> Iterator[Case]:
    for scheduler in schedulers:
        if scheduler.only in ("", model.family):
            yield from (Case(model=model, scheduler=scheduler, steps=steps) for steps in model.steps)


def _from_images(model: Model) -> Iterator[Case]:
    """Image to image, inpainting, and inpainting from noise alone."""
    if model.has_extras or model.clip_skip or model.timesteps:
        return
    for scheduler in (OWN, *(each for each in COMMON if each.name in (FROM_IMAGES if model.is_guided else FEW_FROM_IMAGES))):
        for steps in (4, 20):
            yield Case(model=model, scheduler=scheduler, steps=steps, what="image to image", strength=0.6)
            yield Case(model=model, scheduler=scheduler, steps=steps, what="inpainting", strength=0.8, has_mask=True)
    for size in ((128, 128), (96, 192)):
        yield Case(model=model, steps=4, what="inpainting from noise", strength=1.0, has_mask=True, size=size)
        yield Case(model=model, steps=4, what="image to image, nearly all", strength=0.99, size=size)


def _prompted(model: Model) -> Iterator[Case]:
    for what, prompt in PROMPTS.items():
        if model.is_guided or prompt.negative is None:
            yield Case(model=model, steps=4, what=what, prompt=prompt)
