"""Times, qualities and errors as people read them."""

from __future__ import annotations

import re

from costroute_rt import BudgetError, CostrouteError, PromptError, Reason


def show_time(ms: float) -> str:
    """340 ms, 2.4 s, 24 s, 3 min 5 s."""
    seconds = max(0.0, ms) / 1000
    if seconds < 0.995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.{2 if seconds < 2 else 1 if seconds < 20 else 0}f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def show_left(seconds: float) -> str:
    """What is left of a longer wait, without digits that would only flicker."""
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


def show_quality(value: float) -> str:
    """Scores of most metrics are below 1, those of a few are tens."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def sentence(text: str) -> str:
    """With a capital letter, a full stop, and times as `show_time` writes them."""
    text = re.sub(r"(\d+(?:\.\d+)?) ms", lambda found: show_time(float(found[1])), text.strip())
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else f"{text}."


def explain(error: BaseException) -> str:
    """What went wrong and what helps, in plain words."""
    if isinstance(error, BudgetError):
        return _explain_budget(error)
    if isinstance(error, PromptError):
        return f"This prompt cannot be used: {error}."
    if isinstance(error, CostrouteError):
        return sentence(str(error))
    if isinstance(error, MemoryError):
        return "There is not enough memory. Close other programs and try again."
    return f"Something unexpected happened ({type(error).__name__}: {error}). The details are in the log."


def _explain_budget(error: BudgetError) -> str:
    needs = f"the fastest candidate, {error.fastest}, needs {show_time(error.fastest_ms)}"
    start = f"Nothing can be made in {show_time(error.max_ms)} now: {needs}"
    if error.reason is Reason.QUEUE:
        return f"{start}, {show_time(error.queue_ms)} of it to wait for other images. Try again soon, or allow more time."
    if error.reason is Reason.LOAD:
        return f"{start}, because this computer was slower lately. Try again soon, or allow more time."
    return f"Nothing can be made in {show_time(error.max_ms)}: {needs}. Allow more time."
