"""The check of engines by their images: those of less precision, or with int8 weights, against float32 engines of exact weights.

Each engine was compared with its graph when it was built; here all engines of a candidate run one after the other. It is done once for an
engine of the step; the result is kept with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from costroute_rt.candidate import Candidate
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.image_result import find_image_result, keep_image_result
from costroute_rt.engines.building.lookup import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.image_gate import ImageGate
from costroute_rt.engines.bundle.size import has_one_size
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import candidate_calls
from costroute_rt.family.engine_source import EngineSource
from costroute_rt.family.family import Family
from costroute_rt.generation.image_gate import LARGE_PX, compare_images, gate_size

_EXACT = "float32"
_FEW_STEPS = 2
"""Of the one image where engines take large images only, of which a step may take seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """How close the images of one denoiser's engines are to what they should be."""

    engine: str
    """That of the step, which has the result."""
    reference: str | None = None
    """What they were compared with; None if they were not."""
    latent_psnr_db: float | None = None
    ssim: float | None = None
    quarantined: str | None = None
    """Why the engine must not be used."""
    skipped: str | None = None
    """Why its images were not compared; None if they were, now or earlier."""


def check_images(bundle: Bundle, store: Store, setup: Setup, on_run: Callable[[], object] = lambda: None) -> list[ImageReport]:
    """Compare the images of each denoiser whose engines round more than float32 ones; empty if none does.

    on_run: called before each run of an engine; what it raises ends the work. Raises EngineError, BackendError.
    """
    family = Family.open(bundle)
    return [_check(family, store, setup, candidate, exact, on_run) for candidate, exact in _choose(family, setup)]


def _choose(family: Family, setup: Setup) -> Iterator[tuple[Candidate, str]]:
    """For each denoiser to check, its candidate with the most steps, and the component to compare with."""
    bundle = family.bundle
    for name in dict.fromkeys(each.denoiser for each in family.pool):
        candidate = max((each for each in family.pool if each.denoiser == name), key=lambda each: each.num_inference_steps)
        gate = bundle.quality_gates.get(name)
        is_int8 = bundle.components[name].weight_precision == "int8"
        if is_int8 or setup.precision != _EXACT:
            yield candidate, gate.reference if is_int8 and gate is not None else name


def _check(family: Family, store: Store, setup: Setup, candidate: Candidate, exact: str, on_run: Callable[[], object]) -> ImageReport:
    bundle, source = family.bundle, EngineSource(family.bundle, store, setup)
    names = _names(bundle, candidate)
    step = next(name for name in names if name.rpartition("/")[2] in ("step", "guided_step"))
    stored = store.peek(engine_key(bundle, step, setup))
    report = ImageReport(engine=step)
    if stored is not None and (known := find_image_result(stored)) is not None:
        return replace(report, latent_psnr_db=known[0], ssim=known[1], quarantined=stored.quarantined)
    if not source.is_ready(names):
        return replace(report, skipped="not all of its engines are built, measured and good")
    other = replace(candidate, denoiser=exact, name=f"{candidate.name} of {exact}")
    reference = _find_reference(bundle, store, setup, _names(bundle, other))
    if reference is None or (reference.setup == setup and exact == candidate.denoiser):
        return replace(report, skipped=f"there are no {_EXACT} engines of {exact} to compare with")
    gate = _compare(family, source, candidate, reference, other, on_run)
    keep_image_result(bundle, store, step, setup, gate)
    return replace(report, reference=gate.reference, latent_psnr_db=gate.latent_psnr_db, ssim=gate.ssim, quarantined=gate.problem)


def _compare(
    family: Family, source: EngineSource, candidate: Candidate, reference: EngineSource, exact: Candidate, on_run: Callable[[], object]
) -> ImageGate:
    image = family.bundle.image
    is_fixed = has_one_size(family.bundle) or source.setup.tool().needs_ranges or reference.setup.tool().needs_ranges
    size = (image.height, image.width) if is_fixed else gate_size(family, candidate)
    effort = {"images": 1, "most_steps": _FEW_STEPS} if size[0] * size[1] > LARGE_PX else {}
    what = f"{exact.denoiser} on {reference.setup}"
    return compare_images(family, candidate, source.open, exact, reference.open, size=size, reference=what, on_run=on_run, **effort)


def _find_reference(bundle: Bundle, store: Store, setup: Setup, names: list[str]) -> EngineSource | None:
    """Float32 engines of these names that are ready: of the same backend and provider, else of ONNX Runtime on the CPU."""
    exact = (replace(setup, precision=_EXACT), Setup(threads=setup.threads))
    ready = (EngineSource(bundle, store, each) for each in exact)
    return next((source for source in ready if source.is_ready(names)), None)


def _names(bundle: Bundle, candidate: Candidate) -> list[str]:
    return [call.engine for call in candidate_calls(bundle, candidate)]
