"""Each error says what failed, what was found and what to do, and has an exit code of its own."""

from __future__ import annotations

import pytest

from costroute_rt import error

CASES = [
    (error.ConfigError("threads", 0, "1 or more"), 2, "threads is 0: expected 1 or more"),
    (error.PromptError("the prompt is empty"), 2, "the prompt is empty"),
    (
        error.BudgetError(5, "tiny@1", 11.6),
        3,
        "nothing fits in 5 ms: the fastest candidate, tiny@1, needs about 12 ms (--or-fastest runs it anyway)",
    ),
    (error.LabelError("/l.csv", "line 3: score is nan", "label again"), 2, "/l.csv: line 3: score is nan (label again)"),
    (error.BundleError("/b", "it is damaged", "copy it again"), 4, "/b: it is damaged (copy it again)"),
    (error.EngineError("/e", "it is stale", "costroute-rt build-engines"), 5, "/e: it is stale (costroute-rt build-engines)"),
    (error.StoreFullError("/e", "there is no room", "free some"), 5, "/e: there is no room (free some)"),
    (error.BackendError("provider cuda", "only cpu", "pip install x"), 6, "asked for provider cuda, found only cpu (pip install x)"),
    (error.OutputError("/o.png", "the disk is full"), 7, "cannot write /o.png: the disk is full"),
    (error.CancelledError(), 130, "cancelled"),
]


@pytest.mark.parametrize(("raised", "exit_code", "text"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_text_and_exit_code(raised: error.CostrouteError, exit_code: int, text: str) -> None:
    assert (raised.exit_code, str(raised)) == (exit_code, text)
    assert isinstance(raised, error.CostrouteError)
