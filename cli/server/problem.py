"""What goes wrong with a request, in OpenAI's form of an error, with its status and headers."""

from __future__ import annotations

import logging
from typing import Any

from costroute_rt.error import (
    BudgetError,
    BusyError,
    CancelledError,
    ConfigError,
    CostrouteError,
    EngineError,
    PromptError,
    Reason,
    StateError,
)

_log = logging.getLogger(__name__)
INVALID, REFUSED, FAILED = "invalid_request_error", "rate_limit_error", "server_error"
_LOAD_RETRY_MS = 1000.0
_NAMES = {"height x width": "height", "negative prompt": "negative_prompt"}
"""Names in the library's messages, as clients send them."""


class Problem(Exception):
    """An answer other than the wanted one."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        retry_after_ms: float | None = None,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """retry_after_ms: when the same request may be served; None means that it need not be sent again."""
        super().__init__(message)
        self.status, self.code, self.message, self.type, self.param = status, code, message, type, param
        self.retry_after_ms, self.details, self._headers = retry_after_ms, details or {}, headers or {}
        self.may_retry = retry_after_ms is not None
        """Whether clients that repeat requests by themselves should."""

    def to_json(self) -> dict[str, Any]:
        """The body of the answer, as OpenAI has it; our own keys come after its four."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code, **self.details}
        if self.retry_after_ms is not None:
            error["retry_after_ms"] = round(self.retry_after_ms)
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        found = dict(self._headers)
        if self.retry_after_ms is not None:
            found["retry-after-ms"] = str(max(1, round(self.retry_after_ms)))
            found["retry-after"] = str(max(1, -int(-self.retry_after_ms // 1000)))
        if not self.may_retry:
            found["x-should-retry"] = "false"
        return found

    def once(self) -> Problem:
        """The same answer, after which no client repeats the request by itself: its deadline would be another one."""
        self.may_retry = False
        return self


def invalid(param: str, message: str, *, code: str = "invalid_value") -> Problem:
    """The answer to a value that is wrong."""
    return Problem(400, code, message, param=param)


def problem_of(error: BaseException) -> Problem:
    """The answer to a request that ended with this error; errors that were not raised on purpose are logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BudgetError):
        return _over_budget(error)
    if isinstance(error, BusyError):
        return Problem(429, "queue_full", _without_command(error), type=REFUSED, retry_after_ms=error.retry_after_ms)
    if isinstance(error, PromptError):
        return invalid("prompt", str(error), code="invalid_prompt")
    if isinstance(error, ConfigError):
        return invalid(_NAMES.get(error.name, error.name), str(error))
    if isinstance(error, CancelledError):
        return Problem(409, "cancelled", "the request was cancelled")
    if isinstance(error, StateError):
        return shutting_down()
    if isinstance(error, EngineError):
        return _about_engine(error)
    if isinstance(error, CostrouteError):
        return Problem(500, _code_of(error), str(error), type=FAILED)
    if isinstance(error, MemoryError):
        return Problem(500, "out_of_memory", "this machine has no memory left for the request", type=FAILED)
    _log.error("a request failed", exc_info=error)
    return Problem(500, "internal_error", f"unexpected {type(error).__name__}: a fault of the server, which its log describes", type=FAILED)


def shutting_down() -> Problem:
    return Problem(503, "shutting_down", "the server is about to end and takes no new requests", type=FAILED)


def _over_budget(error: BudgetError) -> Problem:
    reason = error.reason or Reason.TOO_SLOW
    details = {"max_ms": error.max_ms, "fastest": error.fastest, "needed_ms": round(error.fastest_ms, 1), "reason": reason.value}
    if error.reason is Reason.TOO_SLOW:
        return Problem(422, "max_ms_too_small", str(error), param="max_ms", details=details)
    code = "queue_too_long" if error.reason is Reason.QUEUE else "machine_busy"
    retry_ms = error.queue_ms or _LOAD_RETRY_MS
    return Problem(429, code, str(error), type=REFUSED, param="max_ms", details=details, retry_after_ms=retry_ms)


def _about_engine(error: EngineError) -> Problem:
    if error.reason is Reason.SIZE_MISSING:
        return invalid("height", str(error), code="size_not_available")
    if error.reason is Reason.IMAGES_MISSING:
        return invalid("init_image", str(error), code="init_image_not_available")
    return Problem(500, _code_of(error), str(error), type=FAILED)


def _code_of(error: CostrouteError) -> str:
    return (
        f"engine_{error.reason.value}" if isinstance(error, EngineError) else type(error).__name__.removesuffix("Error").lower() + "_error"
    )


def _without_command(error: BusyError) -> str:
    return f"the queue is full: {error.waiting} requests wait; try again in about {error.retry_after_ms:.0f} ms"
