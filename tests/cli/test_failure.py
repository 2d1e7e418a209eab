from __future__ import annotations

import errno
import subprocess
import sys

import click
import pytest

from costroute_rt.cli.failure import exit_code_of
from costroute_rt.error import (
    BackendError,
    BudgetError,
    BundleError,
    CancelledError,
    ConfigError,
    EngineError,
    OutputError,
    PromptError,
    Reason,
)

FAILURES = [
    (ConfigError("steps", 0, "1 or more"), 2),
    (PromptError("the prompt is empty"), 2),
    (BudgetError(1, "turbo@1", 31), 3),
    (BundleError("b", "broken\nin two lines", "copy it again"), 4),
    (EngineError("missing", reason=Reason.MISSING, path="e"), 5),
    (BackendError("cuda", "cpu", "install it"), 6),
    (OutputError("x.png", "read-only"), 7),
    (CancelledError(), 130),
    (OSError(errno.ENOSPC, "No space left on device", "store"), 1),
    (MemoryError(), 1),
    (ZeroDivisionError("division by zero"), 1),
    (KeyboardInterrupt(), 130),
    (click.UsageError("no such option"), 2),
    (click.ClickException("odd"), 1),
]


@pytest.mark.parametrize(("error", "code"), FAILURES, ids=lambda value: type(value).__name__)
def test_every_failure_is_one_line_and_an_exit_code(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert exit_code_of(fail) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_budget_error_names_the_fastest_candidate_and_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise BudgetError(1, "turbo@1", 31)

    exit_code_of(fail)
    assert (
        "turbo@1, needs about 31 ms even on an idle machine; allow more time or ask for the fastest (--or-fastest runs it anyway)"
        in capsys.readouterr().err
    )


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COSTROUTE_TRACEBACK", "1")
    exit_code_of(lambda: 1 // 0)
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_early_gets_no_message() -> None:
    code = "import sys; from costroute_rt.cli.main import main; sys.argv = ['costroute-rt', '--help']; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
