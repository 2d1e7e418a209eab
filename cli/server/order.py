"""Orders: what a client asks for, read from any of the protocols."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from costroute_rt.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of a client."""

    request: Request
    """`max_ms` counts from `arrived_s`."""
    arrived_s: float
    """When its first byte was read, by `time.perf_counter`."""
    format: str = "png"
    """Of the image files: png, jpeg or webp."""
    quality: int = 90
    """1 to 100, of JPEG and WebP."""
    is_kept: bool = False
    """Whether it can be asked for after its end, and goes on when the client leaves."""
    partial_images: int = 0
    """Previews that are kept until they are sent, spread over the steps."""
    client: str = ""
    """Name that a client chose, to follow all of its jobs in one stream."""
    owner: object = None
    """Who may ask for its progress without knowing its number."""
    task: str = ""
    """Name that an A1111 client chose for it."""
    hints: frozenset[str] = frozenset()
    """Fields that are only hints, "size" or "scheduler", as many clients send the same value always: left out if no candidate takes it."""

    notes: tuple[str, ...] = ()
    """What was not done as the client asked, known before it begins."""

    @property
    def source_bytes(self) -> int:
        """Memory of the images that it begins with."""
        return sum(each.pixels.nbytes for each in (self.request.source, self.request.source_mask) if each is not None)

    def without_images(self) -> Order:
        """The same after its end, when nobody needs these images any more."""
        return replace(self, request=replace(self.request, init_image=None, mask=None, strength=None))

    def with_note(self, note: str) -> Order:
        return replace(self, notes=(*self.notes, note))

    def spent_ms(self, now_s: float) -> float:
        """Time since its arrival."""
        return max(0.0, (now_s - self.arrived_s) * 1000)

    def left_ms(self, now_s: float) -> float | None:
        """What is left of the budget; None without one."""
        return None if self.request.max_ms is None else self.request.max_ms - self.spent_ms(now_s)

    def without(self, hint: str) -> Order:
        """The same without a hint, and with a note about it."""
        request, usual = self.request, dict[str, Any](scheduler=None) if hint == "scheduler" else {"height": None, "width": None}
        found = request.scheduler if hint == "scheduler" else f"{request.width}x{request.height}"
        kept = replace(self, request=replace(request, **usual), hints=self.hints - {hint})
        return kept.with_note(f"no candidate takes the {hint} {found}, so the usual one was used")
