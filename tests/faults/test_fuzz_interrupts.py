"""Found by the fuzz test: Ctrl-C while the command line was being loaded ended in a traceback."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from costroute_rt.cli import start

MODULE = "costroute_rt.cli.main"


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process outlive the command."""
    monkeypatch.setattr(start, "leave", lambda code: None)


class Failing:
    """Raises an error when the command line is imported."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def find_spec(self, name: str, *_: Any) -> None:
        if name == MODULE:
            raise self._error


@pytest.fixture
def fail_import(monkeypatch: pytest.MonkeyPatch) -> Any:
    def fail(error: BaseException) -> None:
        monkeypatch.delitem(sys.modules, MODULE, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Failing(error), *sys.meta_path])

    return fail


def test_an_interrupt_while_the_command_line_is_loaded(fail_import: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fail_import(KeyboardInterrupt())
    with pytest.raises(SystemExit) as caught:
        start.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "error: cancelled\n"


def test_an_interrupt_outside_of_any_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{MODULE}.main", interrupt)
    with pytest.raises(SystemExit) as caught:
        start.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "error: cancelled\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ImportError("a library is damaged"), 6)])
def test_the_exit_code_is_the_same_if_stderr_is_closed(
    fail_import: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    fail_import(error)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as caught:
        start.main()
    assert caught.value.code == code
