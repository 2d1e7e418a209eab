"""Results of a generation: events, timings and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.route import Route

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Progress of a request after one denoiser call."""

    index: int
    """Denoiser calls done."""
    total: int
    """Denoiser calls of the whole request as planned now; re-planning lowers it."""
    elapsed_ms: float
    remaining_ms: float
    """Expected time until the result, decoding included."""
    preview: Image | None = None
    """Rough preview of the image in progress; None unless the request has `preview`."""


OnStep = Callable[[StepEvent], "bool | None"]
"""Called after each denoiser call of a request; returning False cancels it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
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
    caller_ms: float = 0.0
    """The caller's part of total_ms: its callbacks, or the pauses of a stream. Predictions do not include it."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`; rounded to microseconds."""
        return {
            name: [round(ms, 3) for ms in value] if isinstance(value, tuple) else round(value, 3) for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
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
    replanned: int
    """Denoiser calls that were skipped to keep the deadline."""
    truncated: bool
    """Whether the prompt or negative prompt was longer than the text encoder reads."""
    settings: Mapping[str, Any]
    """The request and the candidate, engines and versions used, as `save` writes them into the file."""

    @property
    def actual_ms(self) -> float:
        """The total time, which is comparable with predicted_ms and max_ms."""
        return self.timings.total_ms

    @property
    def fallback(self) -> str | None:
        """Reason why ONNX Runtime on the CPU was used instead (`allow_fallback`), with the fix; None if there was no fallback."""
        return self.settings.get("fallback")

    @property
    def images(self) -> list[Image]:
        """The images, as new PIL images."""
        from PIL import Image

        return [Image.fromarray(each) for each in self.pixels]

    @property
    def image(self) -> Image:
        """The first image."""
        from PIL import Image

        return Image.fromarray(self.pixels[0])

    def save(self, path: str | Path, index: int = 0) -> Path:
        """Write image `index` as a PNG with its settings (`read_settings` reads them); replaces an existing file atomically.

        Raises OutputError if the file cannot be written, ConfigError for a suffix other than .png or an index out of range.
        """
        from costroute_rt.png import write_png

        if not 0 <= index < len(self.pixels):
            raise ConfigError("index", index, f"0 to {len(self.pixels) - 1}")
        settings = {**self.settings, "seed": self.seed + index}
        return write_png(Path(path), self.pixels[index], settings)

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
        }
