"""Exports a model, opens it in both programs, and compares them case by case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.parity.case import Case, draw_image, draw_mask
from benchmarks.parity.checkpoint import LORA_SCALE, WORD, write_checkpoint, write_lora, write_tiny_decoder, write_word
from benchmarks.parity.model import Model
from benchmarks.parity.peer import Peer
from benchmarks.scenario import log
from costroute_rt import Runtime

Pixels = npt.NDArray[np.uint8]
SEED = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two images of one case, or why there are not two."""

    case: Case
    largest: int | None = None
    """Largest difference of a pixel, in 1/255."""
    spread: float = 0.0
    """Standard deviation of diffusers' image, in 1/255."""
    change: float | None = None
    """Mean difference from diffusers' first image of the model at that size, in 1/255; None for the first one."""
    saturated: float = 0.0
    """Share of its values that are 0 or 255."""
    not_run: str | None = None
    """Why diffusers cannot run it."""
    error: str | None = None

    @property
    def is_good(self) -> bool:
        return self.not_run is not None or (self.error is None and self.largest is not None and self.largest <= 2 and self.is_telling)

    @property
    def is_telling(self) -> bool:
        """Whether its image has contrast, and is hardly ever black or white."""
        return self.spread >= 5 and self.saturated <= 0.1

    @property
    def verdict(self) -> str:
        if self.not_run is not None:
            return "not compared"
        if self.error is not None or not self.is_telling:
            return "FAILED"
        return "equal" if self.is_good else "DIFFERENT"

    @property
    def note(self) -> str:
        telling = (
            "" if self.error or self.not_run or self.is_telling else f"the image has no contrast: {100 * self.saturated:.0f} % saturated"
        )
        return ", ".join(filter(None, (self.error, self.not_run, telling, self.case.scheduler.note)))


def compare_all(cases: Sequence[Case], folder: Path) -> Iterator[Comparison]:
    """The comparisons of all cases; a model that cannot be exported or opened fails all of its cases."""
    for model, group in groupby(cases, lambda case: case.model):
        left = list(group)
        try:
            with open_model(model, folder) as (runtime, peer):
                firsts: dict[tuple[int, int], Pixels] = {}
                log(f"{model.name}: comparing")
                while left:
                    yield compare(left.pop(0), runtime, peer, firsts)
        except Exception as error:
            yield from (Comparison(case=case, error=first_line(error)) for case in left)


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]


@contextmanager
def open_model(model: Model, folder: Path) -> Iterator[tuple[Runtime, Peer]]:
    """Our runtime over the exported bundle, and diffusers' pipeline; the files are kept in the folder."""
    checkpoint = folder / "checkpoints" / model.name
    if not checkpoint.exists():
        log(f"{model.name}: writing")
        write_checkpoint(model, checkpoint)
    more = folder / "more" / model.name
    lora = None if model.lora is None else write_lora(model, checkpoint, more / f"{model.lora}.safetensors")
    word = write_word(model, more / f"{WORD}.safetensors") if model.has_extras else None
    tiny = write_tiny_decoder(model, more / "taesdxl" if model.family == "sdxl" else more / "taesd") if model.has_extras else None
    log(f"{model.name}: exporting")
    bundle = _export(model, checkpoint, folder / "bundles" / model.name, lora, word, tiny)
    log(f"{model.name}: building")
    with Runtime.open(bundle, home=folder / "home", build=True, precision="float32") as runtime:
        yield runtime, Peer(model, checkpoint, lora=lora, word=word, tiny=tiny)


def _export(model: Model, checkpoint: Path, bundle: Path, lora: Path | None, word: Path | None, tiny: Path | None) -> Path:
    from costroute_rt.export.bundle.export import export_model
    from costroute_rt.export.bundle.opening import open_additions, open_model
    from costroute_rt.export.bundle.options import ExportOptions

    source = open_model(str(checkpoint), tiny_decoder=None if tiny is None else str(tiny), offline=True)
    loras = [] if lora is None else [f"{lora}:{LORA_SCALE}"]
    additions = open_additions(source, loras, [] if word is None else [f"{WORD}={word}"])
    options = ExportOptions(steps=model.steps, sizes=SIZES, overwrite=True, kind=model.kind, clip_skip=model.clip_skip)
    export_model(source, bundle, options, additions=additions)
    return bundle


SIZES = ((128, 128), (96, 192), (192, 128), (64, 64))


def compare(case: Case, runtime: Runtime, peer: Peer, firsts: dict[tuple[int, int], Pixels]) -> Comparison:
    """Both images of one case; firsts: diffusers' first image of each size."""
    try:
        ours = _run(case, runtime)
    except Exception as error:
        return Comparison(case=case, error=first_line(error))
    try:
        theirs = peer.run(case, SEED)
    except ImportError as error:
        return Comparison(case=case, not_run=f"diffusers cannot run it here: {first_line(error)}")
    except Exception as error:
        return Comparison(case=case, error=f"diffusers: {first_line(error)}")
    largest = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
    first = firsts.setdefault(case.size, theirs)
    change = None if first is theirs else float(np.abs(first.astype(int) - theirs.astype(int)).mean())
    saturated = float(np.isin(theirs, (0, 255)).mean())
    return Comparison(case=case, largest=largest, spread=float(theirs.std()), change=change, saturated=saturated)


def _run(case: Case, runtime: Runtime) -> Pixels:
    wanted = "tiny" if case.is_tiny else "vae"
    candidate = next(each for each in runtime.candidates if each.num_inference_steps == case.steps and each.decoder == wanted)
    options: dict[str, Any] = {"scheduler": case.scheduler.name or None, "negative_prompt": case.prompt.negative}
    if case.has_image:
        mask = draw_mask(case.size) if case.has_mask else None
        options |= {"init_image": draw_image(case.size), "mask": mask, "strength": case.strength}
    height, width = case.size
    result = runtime.generate(case.prompt.text, candidate=candidate.name, seed=SEED, height=height, width=width, **options)
    return np.asarray(result.pixels[0])
