"""How an export reports its progress and asks whether to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from costroute_rt.error import CancelledError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportEvent:
    """How far an export is: sent before each part, and in the middle of long ones."""

    part: str
    """What is done now, such as `unet: graphs`."""
    done: int
    """Parts that are done."""
    total: int
    share: float | None = None
    """Finished share of this part, if it is known."""


Progress = Callable[[ExportEvent], object]


class Cancel(Protocol):
    """A threading.Event, or whatever says in this way that the export is to stop."""

    def is_set(self) -> bool: ...


class Reporter:
    """Counts the parts of one export, reports them and stops it when that is asked for."""

    def __init__(self, total: int, progress: Progress | None, cancel: Cancel | None) -> None:
        self._total, self._progress, self._cancel = total, progress, cancel
        self._done, self._part = 0, ""

    def begin(self, part: str) -> None:
        """Report that a part begins; raises CancelledError."""
        self._part = part
        self.share(None)

    def end(self) -> None:
        """Count the part that began last."""
        self._done += 1

    def share(self, share: float | None) -> None:
        """Report the finished share of the part; raises CancelledError."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError("the export was cancelled")
        if self._progress is not None:
            self._progress(ExportEvent(part=self._part, done=self._done, total=self._total, share=share))
