"""Results of a generation: events, timings and images."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from costroute_rt.candidate import Candidate
from costroute_rt.error import ConfigError
from costroute_rt.image_file import QUALITY, Writable, check_format, check_quality, contact_sheet, encode_image, save_image, save_jpeg
from costroute_rt.request import check_whole
from costroute_rt.route import Route
from costroute_rt.value import Value

if TYPE_CHECKING:
    from PIL.Image import Image

PREVIEW_QUALITY = 75


@dataclass(frozen=True, slots=True, eq=False)
class StepEvent(Value):
    """Progress of a request after one denoiser call."""

    index: int
    """Denoiser calls done."""
    total: int
    """Denoiser calls of the whole request as planned now; re-planning changes it."""
    elapsed_ms: float
    remaining_ms: float
    """Expected time until the result, decoding included."""
    preview: Image | None = None
    """Rough preview of the image in progress; None unless the request has `preview`."""

    def __repr__(self) -> str:
        preview = "" if self.preview is None else ", with preview"
        return f"<StepEvent {self.index} of {self.total}, after {self.elapsed_ms:.0f} ms, {self.remaining_ms:.0f} ms to go{preview}>"

    def preview_jpeg(self, *, quality: int = PREVIEW_QUALITY) -> bytes | None:
        """The preview as a JPEG file, such as for a web page; None if there is no preview. quality: 1 to 100."""
        quality = check_quality(quality)
        if self.preview is None:
            return None
        buffer = io.BytesIO()
        save_jpeg(self.preview, buffer, quality)
        return buffer.getvalue()


OnStep = Callable[[StepEvent], "bool | None"]
"""A callback for each denoiser call; returning False cancels the request."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timings(Value):
    """Milliseconds that one request spent in each stage."""

    tokenize_ms: float
    route_ms: float
    text_ms: float
    """Text encoders, and the part of the denoiser that depends on the text alone."""
    swap_ms: float
    """Loading engines that were not resident."""
    denoise_ms: tuple[float, ...]
    """One per denoiser call."""
    decode_ms: float
    waited_ms: float = 0.0
    """Waiting for other requests."""
    total_ms: float
    """Wall-clock time from the call to uint8 pixels in host memory, which is compared with the budget."""
    outside_ms: float
    """The runtime's own part of total_ms outside engine calls and loading: tokenizing, routing, and the loop on the host."""
    encode_ms: float = 0.0
    """Turning the initial image into a latent."""
    caller_ms: float = 0.0
    """The caller's part of total_ms: its callbacks, or the pauses of a stream and the time before its first event.

    Predictions do not include it.
    """

    def __repr__(self) -> str:
        denoise = f"denoise {sum(self.denoise_ms):.1f} in {len(self.denoise_ms)} calls"
        before = f"tokenize {self.tokenize_ms:.1f}, route {self.route_ms:.1f}, text {self.text_ms:.1f}, swap {self.swap_ms:.1f}"
        before += f", encode {self.encode_ms:.1f}" if self.encode_ms else ""
        return f"<Timings {self.total_ms:.0f} ms: {before}, {denoise}, decode {self.decode_ms:.1f}, waited {self.waited_ms:.1f}>"

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`; rounded to microseconds."""
        return {
            name: [round(ms, 3) for ms in value] if isinstance(value, tuple) else round(value, 3) for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result(Value):
    """Images, with the decision, timings and settings that produced them."""

    pixels: npt.NDArray[np.uint8]
    """uint8[count, height, width, 3], sRGB"""
    route: Route
    seed: int
    """Image i was made from seed + i."""
    timings: Timings
    predicted_ms: float
    met: bool | None
    """Whether total_ms was within max_ms; None if there was no budget."""
    steps: tuple[int, ...]
    """Steps of each image that ran."""
    skipped: tuple[int, ...]
    """Denoiser calls of each image that were skipped to keep the deadline."""
    added: tuple[int, ...] = ()
    """Denoiser calls of each image beyond those that were planned, because time was left."""
    made: tuple[Candidate, ...] = ()
    """The candidate that each image became: the chosen one, unless it was changed to another number of steps or decoder on the way."""
    truncated: bool
    """Whether the prompt or negative prompt was longer than the text encoder reads."""
    settings: Mapping[str, Any]
    """What made the first image: the request's values that were used, and candidate, engines and versions. See `image_settings`."""
    notes: tuple[str, ...] = ()
    """What was not done as requested, and other remarks for users, a sentence each."""

    def __repr__(self) -> str:
        count, height, width = self.pixels.shape[:3]
        what = f"{count} image{'' if count == 1 else 's'} {width}x{height} {self.route.chosen.name} seed {self.seed}"
        budget = "" if self.route.max_ms is None else f" of {self.route.max_ms:.0f} ms"
        skipped = f", {self.replanned} step{'' if self.replanned == 1 else 's'} skipped" if self.replanned else ""
        return f"<Result {what}, {self.actual_ms:.0f} ms{budget}{skipped}{', budget missed' if self.met is False else ''}>"

    def _repr_png_(self) -> bytes:
        """The image, or a contact sheet of several, for notebooks."""
        if len(self.pixels) == 1:
            return self.png_bytes()
        buffer = io.BytesIO()
        contact_sheet(self.pixels).save(buffer, "PNG")
        return buffer.getvalue()

    @property
    def actual_ms(self) -> float:
        """The total time, which is comparable with predicted_ms and max_ms."""
        return self.timings.total_ms

    @property
    def replanned(self) -> int:
        """Denoiser calls that were skipped to keep the deadline, all images together."""
        return sum(self.skipped)

    @property
    def fallback(self) -> str | None:
        """Reason why ONNX Runtime on the CPU was used instead (`allow_fallback`), with the fix; None if there was no fallback."""
        return self.settings.get("fallback")

    @property
    def images(self) -> list[Image]:
        """The images, as PIL images that are made anew at each access, so that changing one changes nothing else."""
        from PIL import Image

        return [Image.fromarray(each) for each in self.pixels]

    @property
    def image(self) -> Image:
        """The first image."""
        from PIL import Image

        return Image.fromarray(self.pixels[0])

    def image_settings(self, index: int = 0) -> dict[str, Any]:
        """The settings of image `index`, as `save` writes them into its file: `settings` with its own seed and steps."""
        index = self._check(index)
        own: dict[str, Any] = {"num_inference_steps": self.steps[index], "replanned": self.skipped[index]}
        if self.made:
            own |= {"candidate": self.made[index].name, "decoder": self.made[index].decoder, "added": self.added[index]}
        return {**self.settings, "seed": self.seed + index, **own}

    @overload
    def save(self, target: str | PathLike[str], index: int = 0, *, format: str | None = None, quality: int = QUALITY) -> Path: ...

    @overload
    def save(self, target: Writable, index: int = 0, *, format: str | None = None, quality: int = QUALITY) -> None: ...

    def save(
        self, target: str | PathLike[str] | Writable, index: int = 0, *, format: str | None = None, quality: int = QUALITY
    ) -> Path | None:
        """Write image `index` as PNG, JPEG or WebP, with its settings, which `read_settings` reads; returns the path, if there is one.

        target: a path, whose file is replaced atomically, or an open binary file, which stays open.
        format: png, jpeg or webp; None means by the suffix of the file's name, and PNG for an open file without one.
        quality: 1 to 100, of JPEG and WebP.
        Raises OutputError if the file cannot be written, ConfigError for an invalid argument.
        """
        index = self._check(index)
        return save_image(target, self.pixels[index], self.image_settings(index), format, quality)

    def png_bytes(self, index: int = 0) -> bytes:
        """Image `index` as a PNG file with its settings."""
        return self.image_bytes("png", index)

    def image_bytes(self, format: str, index: int = 0, *, quality: int = QUALITY) -> bytes:
        """Image `index` as a PNG, JPEG or WebP file with its settings; the arguments are those of `save`."""
        index = self._check(index)
        return encode_image(self.pixels[index], self.image_settings(index), check_format(format), quality)

    def _check(self, index: int) -> int:
        found = check_whole("index", index)
        if not 0 <= found < len(self.pixels):
            raise ConfigError("index", index, f"0 to {len(self.pixels) - 1}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data without the pixels, ready for `json.dumps`."""
        return {
            "settings": dict(self.settings),
            "count": len(self.pixels),
            "route": self.route.to_json(),
            "timings": self.timings.to_json(),
            "predicted_ms": round(self.predicted_ms, 3),
            "actual_ms": round(self.actual_ms, 3),
            "max_ms": self.route.max_ms,
            "met": self.met,
            "replanned": self.replanned,
            "truncated": self.truncated,
            "notes": list(self.notes),
        }
