"""What is measured: a model, its images, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.scenario import Target

ANY = Target()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One kind of image of a model."""

    name: str
    """Empty if the model has only one."""
    model: str
    """Name of its diffusers folder."""
    steps: int
    guidance_scale: float
    warm_up: str
    candidate: str
    """Candidates of the bundle, of which the first has `warm_up_steps`."""
    warm_up_steps: int = 1
    tiny: str = ""
    """The candidate with the tiny decoder; empty if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model, and what is asked of it."""

    model: str
    side_px: int
    images: tuple[Image, ...]
    repeats: int = 1
    """Images that count in each process."""
    figure: str = "step"
    """What programs are compared by: `image` or `step`."""
    export_targets: Mapping[str, Target]
    build_targets: Mapping[str, Target]
    first_step: Target = ANY


def _full_size(family: str, steps: int) -> tuple[Image, ...]:
    return (Image(name="", model=family, steps=steps, guidance_scale=7.5, warm_up=f"{family}@1", candidate=f"{family}@{steps}"),)


def _postcard(denoiser: str, steps: int, guidance_scale: float) -> Image:
    guided = "guided" if guidance_scale > 1 else "unguided"
    name = f"{denoiser}@{steps}"
    return Image(
        name=f"{steps} {guided} steps", model=denoiser, steps=steps, guidance_scale=guidance_scale, warm_up=name, candidate=name,
        warm_up_steps=steps, tiny=f"{name}-tiny",
    )  # fmt: skip


GIB = 1.073741824
"""GB."""
JOBS = {
    "postcard": Job(
        model="postcard", side_px=256, repeats=9, figure="image", export_targets={}, build_targets={},
        images=(
            _postcard("postcard-turbo", 2, 1.0), _postcard("postcard-base", 4, 3.0), _postcard("postcard-base", 8, 3.0),
            _postcard("postcard-base", 16, 3.0),
        ),
    ),
    "sd15": Job(
        model="sd15", side_px=512, images=_full_size("sd15", 3), export_targets={"peak memory": Target(high=6 * GIB)},
        build_targets={"time": Target(high=150.0), "peak memory": Target(high=8.0)}, first_step=Target(high=3.0),
    ),
    "sdxl": Job(
        model="sdxl", side_px=1024, images=_full_size("sdxl", 2), export_targets={"peak memory": Target(high=6 * GIB)}, build_targets={},
    ),
}  # fmt: skip
