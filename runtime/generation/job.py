"""Jobs: requests that run in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from costroute_rt.error import BusyError, ConfigError
from costroute_rt.generation.queue import WAKE_S
from costroute_rt.request import check_number

if TYPE_CHECKING:
    from costroute_rt.generation.queue import Place
    from costroute_rt.generation.stream import Stream
    from costroute_rt.result import OnStep, Result, StepEvent
    from costroute_rt.route import Route

_log = logging.getLogger(__name__)


class Job:
    """A submitted request. It runs by itself; its methods may be called from any thread."""

    def __init__(
        self, stream: Stream, on_step: OnStep | None, *, on_route: Callable[[Route], object] | None = None, pauses: bool = True
    ) -> None:
        """Starts it. on_step, on_route, pauses: as for `Stream.run`, called in the job's thread."""
        self._stream, self._on_step, self._on_route, self._pauses = stream, on_step, on_route, pauses
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._callbacks: list[Callable[[Job], object]] = []
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._progress: StepEvent | None = None
        try:
            threading.Thread(target=self._run, name="costroute-rt job", daemon=True).start()
        except BaseException as error:
            stream.close()
            if isinstance(error, RuntimeError):  # the system's limit of threads
                raise BusyError(threading.active_count(), 0, 1000.0) from error
            raise

    def __repr__(self) -> str:
        at = "waiting" if self._progress is None else f"step {self._progress.index} of {self._progress.total}"
        return f"<Job {'done' if self.done else at}>"

    @property
    def done(self) -> bool:
        """Whether the request has ended: with a result, an error, or cancelled."""
        return self._done.is_set()

    @property
    def progress(self) -> StepEvent | None:
        """The last event; None before the first denoiser call has ended."""
        return self._progress

    @property
    def route(self) -> Route | None:
        """The decision as it stands; None until the request is accepted."""
        return self._stream.route

    @property
    def place(self) -> Place | None:
        """Where the request stands in the queue; None once its work has begun, and after its end."""
        return self._stream.place

    def cancel(self) -> bool:
        """Cancel the request: at once if it waits, else after the denoiser call that is running. Returns False if it has ended."""
        if self.done:
            return False
        self._stream.close()
        return True

    def result(self, timeout: float | None = None) -> Result:
        """The result, when the request has ended.

        timeout: seconds to wait at most; then TimeoutError is raised and the request goes on. Raises what `generate` would raise.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        assert self._result is not None
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that `result` would raise, when the request has ended; None if it has a result."""
        if timeout is not None:
            timeout = min(check_number("timeout", timeout, "a finite number of seconds, or None"), threading.TIMEOUT_MAX)
        while not self._done.wait(WAKE_S if timeout is None else timeout):
            if timeout is not None:
                raise TimeoutError(f"the request has not ended after {timeout:g} s")
        return self._error

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """Call `callback(job)` when the request has ended, in the job's thread; at once if it has ended already."""
        if not callable(callback):
            raise ConfigError("callback", callback, "a function")
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        _call(callback, self)

    def _run(self) -> None:
        try:
            self._result = self._stream.run(self._note, on_route=self._on_route, pauses=self._pauses and self._on_step is not None)
        except BaseException as error:  # it is raised by `result`
            self._error = error
        with self._lock:
            self._done.set()
        for callback in self._callbacks:
            _call(callback, self)

    def _note(self, event: StepEvent) -> bool | None:
        self._progress = event
        return None if self._on_step is None else self._on_step(event)


def _call(callback: Callable[[Job], object], job: Job) -> None:
    try:
        callback(job)
    except Exception:  # nobody else would see it
        _log.exception("a callback of a job failed")
