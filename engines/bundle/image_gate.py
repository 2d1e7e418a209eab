"""The result of comparing a component's images with those of another one, as a manifest keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from costroute_rt.engines.bundle.manifest import LONGEST_SIDE_PX, Component
from costroute_rt.engines.bundle.section import Section

MIN_LATENT_PSNR_DB, MIN_SSIM = 25.0, 0.85
"""Worst values of an image. On the postcard family, whose weights are trained, int8 weights reach 60 dB and 0.999, engines that also round
what they are multiplied by 51 dB and 0.997, bfloat16 engines 31 to 48 dB and 0.88 to 0.998. Weights of 3 bits fall to 20 dB and 0.78,
those of 2 bits to 15 dB and 0.3."""
_MOST_COUNT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGate:
    """How close images are to what they should be: the worst of several, made from the same prompts and seeds."""

    reference: str
    """What made the images to compare with: a component of the bundle, or a setup of engines."""
    latent_psnr_db: float
    """Of the latent after the last row; the peak is the range of the reference."""
    ssim: float
    """Of the pixels."""
    images: int
    height: int
    """Of the images, in pixels."""
    width: int
    num_inference_steps: int
    min_latent_psnr_db: float = MIN_LATENT_PSNR_DB
    min_ssim: float = MIN_SSIM

    @property
    def problem(self) -> str | None:
        """Why what made the images must not be used; None if they are close enough."""
        if self.latent_psnr_db >= self.min_latent_psnr_db and self.ssim >= self.min_ssim:
            return None
        found = f"latent PSNR {self.latent_psnr_db:.1f} dB and SSIM {self.ssim:.3f}"
        return f"its images differ from those of {self.reference}: {found}, expected {self.min_latent_psnr_db:g} dB and {self.min_ssim:g}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_image_gates(manifest: Section, components: Mapping[str, Component]) -> dict[str, ImageGate]:
    """The section `quality_gates` by component, empty if there is none; fails for entries that are wrong, or that say that it must not be
    used."""
    gates = dict(manifest.sections("quality_gates")) if "quality_gates" in manifest.values else {}
    return {name: _read(name, section, components) for name, section in gates.items()}


def _read(name: str, section: Section, components: Mapping[str, Component]) -> ImageGate:
    names = [each.name for each in fields(ImageGate)]
    unknown = sorted(section.values.keys() - set(names))
    if unknown:
        section.fail(f"manifest {section.at(unknown[0])} is not known: expected {', '.join(names)}")
    reference = section.text("reference")
    for component in (name, reference):
        if component not in components:
            section.fail(f"manifest {section.place} names {component!r}, which is not a component of this bundle")
    gate = ImageGate(
        reference=reference,
        latent_psnr_db=section.number("latent_psnr_db"),
        ssim=section.number("ssim"),
        images=section.integer("images", minimum=1, maximum=_MOST_COUNT),
        height=section.integer("height", minimum=1, maximum=LONGEST_SIDE_PX),
        width=section.integer("width", minimum=1, maximum=LONGEST_SIDE_PX),
        num_inference_steps=section.integer("num_inference_steps", minimum=1, maximum=_MOST_COUNT),
        min_latent_psnr_db=section.number("min_latent_psnr_db"),
        min_ssim=section.number("min_ssim"),
    )
    if gate.problem is not None:
        section.fail(f"its component {name} must not be used: {gate.problem}")
    return gate
