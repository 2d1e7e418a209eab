"""What a generation gives back."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Progress, after one call of the denoiser."""

    index: int
    """Rows done."""
    total: int
    """Rows of the whole request as planned now; re-planning lowers it."""
    elapsed_ms: float
    remaining_ms: float
    """Expected, decoding included."""
    preview: Image | None = None
    """The (first) image as it would come out, roughly; None unless asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the milliseconds of one request went."""

    tokenize_ms: float
    route_ms: float
    text_ms: float
    """Text encoder."""
    swap_ms: float
    """Loading engines that were not resident."""
    denoise_ms: tuple[float, ...]
    """One per denoiser call."""
    decode_ms: float
    total_ms: float
    """Wall clock from the prompt to uint8 pixels in host memory; what a budget is compared with."""
    outside_ms: float
    """The part of total_ms outside engine calls and loading: tokenizing, routing, the loop on the host, and the caller's callbacks."""
    waited_ms: float = 0.0
    """Before that, while another request had the runtime; not in total_ms."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`; rounded to microseconds."""
        return {
            name: [round(ms, 3) for ms in value] if isinstance(value, tuple) else round(value, 3) for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Images, and everything there is to say about how they came to be."""

    pixels: npt.NDArray[np.uint8]
    """uint8[count, height, width, 3], sRGB"""
    route: Route
    seed: int
    """Image i was made from seed + i."""
    timings: Timings
    predicted_ms: float
    met: bool | None
    """Whether total_ms kept within max_ms; None where there was no budget."""
    replanned: int
    """Rows left out to keep the deadline."""
    truncated: bool
    """Whether the prompt or negative prompt was longer than the text encoder reads."""
    settings: Mapping[str, Any]
    """What was asked and what was used, as `save` writes it into the file."""

    @property
    def actual_ms(self) -> float:
        """What is compared with predicted_ms and max_ms."""
        return self.timings.total_ms

    @property
    def fallback(self) -> str | None:
        """Why ONNX Runtime on the CPU stands in for what was asked for (`allow_fallback`), and what mends that; None: it does not."""
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
        """Write image `index` as a PNG that says how it was made (`read_settings`); an existing file is replaced at once or not at all.

        Raises OutputError where it cannot be written, ConfigError for another suffix than .png or an index out of range.
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
