"""What commands show while engines are built, measured and loaded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import CancelledError, OpenEvent
from costroute_rt.cli import progress
from costroute_rt.cli.progress import OpeningLine
from costroute_rt.engines.store.store import Store
from tests.cli.conftest import Run


def event(stage: str, done: int, engine: str | None = "tiny/vae/decode", **more: Any) -> OpenEvent:
    values: dict[str, Any] = {"share": None, "elapsed_s": 0.0, "remaining_s": None, "total": 4, **more}
    return OpenEvent(stage=stage, engine=engine, done=done, **values)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "is_on_terminal", lambda: True)


def shown(capsys: pytest.CaptureFixture[str], events: list[OpenEvent]) -> str:
    """What an opening with these events writes on stderr."""
    with OpeningLine("first use: building") as line:
        for each in events:
            line(each)
    return capsys.readouterr().err


def test_a_pipe_gets_one_line_for_a_build_and_none_for_loading(capsys: pytest.CaptureFixture[str]) -> None:
    events = [event("build", 0, remaining_s=12.4), event("build", 1), event("measure", 2), event("load", 3), event("load", 4, None)]
    assert shown(capsys, events) == "first use: building engines for this machine, about 12 s to go\n"
    assert shown(capsys, [event("load", 0), event("warm_up", 1), event("warm_up", 4, None)]) == ""
    assert shown(capsys, [event("build", 0)]) == "first use: building engines for this machine\n"


def test_a_terminal_gets_a_line_with_a_bar_and_the_time_to_go_that_is_cleared(capsys: pytest.CaptureFixture[str], terminal: None) -> None:
    found = shown(capsys, [event("build", 1, share=0.5, remaining_s=90.0), event("measure", 2, None), event("load", 4, None)])
    lines = [line for line in found.split("\r") if line]
    assert lines == [
        "[#######-------------] 1/4 building tiny/vae/decode 50%, 1 min 30 s to go",
        "[##########----------] 2/4 measuring all engines",
    ]
    assert found.endswith("\r")


def test_a_terminal_shows_loading_only_if_it_takes_long(capsys: pytest.CaptureFixture[str], terminal: None) -> None:
    assert shown(capsys, [event("load", 0, remaining_s=0.5), event("warm_up", 4, None)]) == ""
    assert "loading tiny/vae/decode, 30 s to go" in shown(capsys, [event("load", 0, remaining_s=30.0)])


def stop(last: OpenEvent, error: Any) -> None:
    """An opening that is stopped after this event."""

    def run() -> None:
        with OpeningLine("building") as line:
            line(last)
            raise error

    with pytest.raises(error):
        run()


@pytest.mark.parametrize("error", [KeyboardInterrupt, CancelledError])
def test_a_stopped_build_says_that_what_is_done_is_kept(capsys: pytest.CaptureFixture[str], error: Any) -> None:
    stop(event("build", 1), error)
    assert "engines that are done are kept" in capsys.readouterr().err


def test_a_stopped_load_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    stop(event("load", 1), KeyboardInterrupt)
    assert capsys.readouterr().err == ""


def test_commands_show_what_they_build_and_measure(run: Run, home: Path, tiny_bundle: Path, terminal: None) -> None:
    built = run("build-engines", "--bundle", tiny_bundle)
    assert built.exit_code == 0, built.output
    assert "building tiny/vae/decode" in built.stderr
    assert "measuring all engines" in built.stderr
    measured = run("profile", "--bundle", tiny_bundle)
    assert re.search(r"\[-+\] 0/6 measuring tiny/text_encoder/encode, \d+ s to go", measured.stderr)
    again = run("build-engines", "--bundle", tiny_bundle)
    assert again.stderr == ""


def test_an_interrupted_build_is_one_line_and_exit_code_130(
    run: Run, home: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = OpeningLine.__call__

    def interrupt(line: OpeningLine, each: OpenEvent) -> None:
        real(line, each)
        if each.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(OpeningLine, "__call__", interrupt)
    for command in (("build-engines",), ("gen", "a lake")):
        found = run(*command, "--bundle", tiny_bundle)
        assert found.exit_code == 130
        assert found.stderr.splitlines()[-1] == "error: cancelled"
        assert "engines that are done are kept" in found.stderr
    assert len(Store.open(home).engines()) >= 2


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT, which Windows does not have")
def test_ctrl_c_ends_a_build_and_a_second_run_continues(home: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    (gate / "model.onnx").touch()  # the first build goes on, the second waits until it is interrupted
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell starts background jobs without it
    code += "from tests import gated_backend; gated_backend.install(setattr); from costroute_rt.cli.main import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, "build-engines", "--backend", "gated", "--bundle", str(tiny_bundle)]
    environment = {**os.environ, "COSTROUTE_TEST_GATE": str(gate), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    while not Store.open(home).engines():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: cancelled"
    store = Store.open(home)
    assert [stored.key.graph for stored in store.engines()] == ["tiny/text_encoder/encode"]
    (gate / "all").touch()
    first = store.engines()[0].built_at
    done = subprocess.run(command, stderr=subprocess.PIPE, env=environment, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(store.engines()) == 5
    assert not list(store.folder.glob(".*"))  # what an interrupt left while a folder was made or removed, the second run removes
    assert next(each.built_at for each in store.engines() if each.key.graph == "tiny/text_encoder/encode") == first
