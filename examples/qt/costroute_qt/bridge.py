"""A runtime for a window: what takes time runs in other threads, and what comes of it arrives as a signal in the window's own thread.

The runtime has its own threads for jobs, so one more is enough, in which it is opened and prompts are routed, one after the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QImage

from costroute_rt import CancelledError, CostrouteError, StateError

if TYPE_CHECKING:
    from costroute_rt import Job, OpenEvent, RequestOptions, Result, Route, Runtime, StepEvent

_log = logging.getLogger(__name__)

OpenRuntime = Callable[[Callable[["OpenEvent"], None], threading.Event], "Runtime"]
"""Opens a runtime; takes the callback for its progress, and the event that cancels the opening."""
Keep = Callable[["Result"], Path]
"""Puts a result where it is kept, in the thread of the job, and returns the file; raises CostrouteError."""


class Bridge(QObject):
    """The runtime, seen from a window. Its methods return at once and are for the window's thread; `close` waits."""

    opening = Signal(object)
    """An OpenEvent."""
    opened = Signal()
    not_opened = Signal(object)
    """The error."""
    routed = Signal(object)
    """The Route of what `ask` was last given, or the error."""
    accepted = Signal(object)
    """The Route of the image that is generated now."""
    stepped = Signal(object, object)
    """A StepEvent, and its preview as a QImage or None."""
    generated = Signal(object, object, object)
    """A Result, its image as a QImage, and its file, or the error that kept it from being written."""
    not_generated = Signal(object)
    """The error, or None if the image was cancelled."""

    _route_ended = Signal(object)
    _job_ended = Signal(object)

    def __init__(self, open_runtime: OpenRuntime, keep: Keep) -> None:
        super().__init__()
        self._open_runtime, self._keep = open_runtime, keep
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="costroute-qt")
        self._cancel = threading.Event()
        self._runtime: Runtime | None = None
        self._job: Job | None = None
        self._is_over = threading.Event()
        """Whether the last job's thread has nothing more to do."""
        self._is_over.set()
        self._asked: tuple[str, RequestOptions] | None = None
        self._is_routing = False
        self._route_ended.connect(self._show_route)
        self._job_ended.connect(self._show_end)

    @property
    def is_ready(self) -> bool:
        """Whether a runtime is open."""
        return self._runtime is not None

    @property
    def is_generating(self) -> bool:
        return self._job is not None

    def open(self) -> None:
        """Open the runtime, building its engines if need be; ends with `opened` or `not_opened`."""
        self._worker.submit(self._open)

    def ask(self, prompt: str, **options: Any) -> None:
        """Route a prompt; ends with `routed`. Of questions that come faster than answers only the latest is answered."""
        self._asked = (prompt, options)  # type: ignore[assignment]
        self._route_next()

    def generate(self, prompt: str, **options: Any) -> None:
        """Draw an image; ends with `generated` or `not_generated`. One at a time."""
        if self._runtime is None or self.is_generating:
            return
        try:
            self._job = self._runtime.submit(prompt, preview=True, on_step=self._step, on_route=self.accepted.emit, **options)
        except Exception as error:
            self.not_generated.emit(error)
            return
        self._is_over.clear()
        self._job.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel the image; `not_generated` follows after the step that runs."""
        if self._job is not None:
            self._job.cancel()

    def close(self) -> None:
        """End everything; returns when no thread is left at work. A step that runs ends first."""
        self._cancel.set()
        self.cancel()
        self._worker.shutdown(cancel_futures=True)
        if self._runtime is not None:
            self._runtime.close()
        self._is_over.wait()

    # In the worker's thread

    def _open(self) -> None:
        try:
            self._runtime = self._open_runtime(self.opening.emit, self._cancel)
        except CancelledError:
            return
        except Exception as error:
            _log.exception("the runtime was not opened")
            self.not_opened.emit(error)
        else:
            self.opened.emit()

    def _route(self, prompt: str, options: RequestOptions) -> None:
        assert self._runtime is not None
        try:
            route: Any = self._runtime.route(prompt, **options)
        except StateError:  # it was closed
            return
        except Exception as error:
            route = error
        self._route_ended.emit(route)

    # In the job's thread

    def _step(self, event: StepEvent) -> None:
        self.stepped.emit(event, None if event.preview is None else _to_qimage(event.preview.tobytes(), *event.preview.size))

    def _end(self, job: Job) -> None:
        error = job.exception()
        try:
            self._job_ended.emit(self._finish(job.result()) if error is None else error)
        finally:
            self._is_over.set()

    def _finish(self, result: Result) -> tuple[Result, QImage, Path | CostrouteError]:
        height, width = result.pixels.shape[1:3]
        try:
            kept: Path | CostrouteError = self._keep(result)
        except CostrouteError as error:
            kept = error
        return result, _to_qimage(result.pixels[0].tobytes(), width, height), kept

    # In the window's thread

    def _route_next(self) -> None:
        if self._asked is None or self._is_routing or self._runtime is None or self._cancel.is_set():
            return
        (prompt, options), self._asked = self._asked, None
        self._is_routing = True
        self._worker.submit(self._route, prompt, options)

    def _show_route(self, route: Route | Exception) -> None:
        self._is_routing = False
        if self._asked is None:
            self.routed.emit(route)
        self._route_next()

    def _show_end(self, outcome: tuple[Result, QImage, Path | CostrouteError] | BaseException) -> None:
        self._job = None
        if isinstance(outcome, tuple):
            self.generated.emit(*outcome)
        else:
            self.not_generated.emit(None if isinstance(outcome, (CancelledError, StateError)) else outcome)


def _to_qimage(pixels: bytes, width: int, height: int) -> QImage:
    """pixels: RGB, row by row. The copy owns its memory."""
    return QImage(pixels, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
