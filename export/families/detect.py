"""Which kind of model it is: by its pipeline, by its scheduler, and by words in its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from costroute_rt.export.checkpoint.lora.kind import kind_of_lora, steps_of_lora
from costroute_rt.export.checkpoint.lora.lora import Lora
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.export.families.kind import BASE, DMD2, HYPER, KINDS, LCM, LIGHTNING, TURBO, Kind

_WORDS = {"turbo": TURBO, "lightning": LIGHTNING, "lcm": LCM, "hyper": HYPER, "dmd": DMD2}
_SCHEDULERS = {"LCMScheduler": LCM, "TCDScheduler": HYPER}
_DENOISER = "unet"
_PLAIN = ("sd", "xl", "sdxl", "v", "fp", "bf", "f", "base")
"""Words in the names of files that authors of methods publish."""


class Detected(NamedTuple):
    """A kind, the number of steps that the name says, and where it was found."""

    kind: Kind
    named_steps: int | None
    reason: str


def detect_kind(source: Source, asked: str | None = None, loras: Sequence[Lora] = ()) -> Detected:
    """The kind of a model.

    asked: its name, if the user says it: one of `KINDS`. loras: that are added to the model; they decide before its own name.
    """
    steps = next(filter(None, (*map(steps_of_lora, loras), find_steps(source.name))), None)
    if asked is not None:
        return Detected(KINDS[asked], steps, "as given")
    for lora in loras:
        if (name := kind_of_lora(lora)) is not None:
            return Detected(KINDS[name], steps, f"by the LoRA {lora.name}")
    for word in split_words(source.name):
        if word in _WORDS:
            return Detected(_WORDS[word], steps, f"`{word}` in the name {source.name}")
    if takes_guidance(source):
        return Detected(LCM, steps, "its denoiser takes the guidance scale as an input")
    by_scheduler = _by_scheduler(source.scheduler)
    if by_scheduler is not None:
        return Detected(by_scheduler, steps, f"its scheduler is {source.scheduler['_class_name']}")
    return Detected(BASE, None, "nothing says that it is distilled")


def takes_guidance(source: Source) -> bool:
    """Whether the denoiser takes the guidance scale as an input (`timestep_cond`)."""
    return source.networks[_DENOISER].config.get("time_cond_proj_dim") is not None


def is_original(name: str, kind: Kind) -> bool:
    """Whether a name is that of the weights of the method's authors (`sd_xl_turbo_1.0_fp16`), not of a model made from them."""
    return all(word in (*_PLAIN, kind.name) or word.isdigit() for word in split_words(name))


def split_words(name: str) -> list[str]:
    """The words of a name in small letters: `SDXLTurbo_v2-4step` -> sdxl, turbo, v, 2, 4, step."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)
    return [part.lower() for part in parts]


def find_steps(name: str) -> int | None:
    """The number of steps that a name says, such as 4 in `lightning_4step`."""
    for number, word in pairwise(split_words(name)):
        if number.isdigit() and word in ("step", "steps") and 1 <= len(number) <= 2 and int(number):
            return int(number)
    return None


def _by_scheduler(scheduler: Any) -> Kind | None:
    kind = _SCHEDULERS.get(str(scheduler.get("_class_name")))
    is_turbo = scheduler.get("_class_name") == "EulerAncestralDiscreteScheduler" and scheduler.get("timestep_spacing") == "trailing"
    return kind or (TURBO if is_turbo else None)
