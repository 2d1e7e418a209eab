"""The command as a process: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import invoke
from tests.cli.server.conftest import wait_until

COMMAND = [sys.executable, "-m", "costroute_rt.cli", "serve"]
needs_signals = pytest.mark.skipif(os.name == "nt", reason="sends signals, which Windows has not")
Start = Callable[..., tuple["subprocess.Popen[str]", dict[str, Any]]]


@pytest.fixture
def start(tiny_bundle: Path, built: Path) -> Iterator[Start]:
    """Starts `serve --port 0` on the tiny bundle; returns the process and the line that it prints."""
    processes = list[subprocess.Popen[str]]()

    def run(*options: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        command = [*COMMAND, "--port", "0", "--bundle", str(tiny_bundle), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def ask(address: dict[str, Any], method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", address["port"], timeout=60)
    headers = {"Authorization": f"Bearer {address['token']}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@needs_signals
def test_one_line_tells_where_it_is_and_sigterm_finishes_what_was_accepted(start: Start) -> None:
    process, address = start("--warm")
    assert set(address) == {"url", "port", "token", "link", "pid"}
    assert (address["pid"], address["url"]) == (process.pid, f"http://127.0.0.1:{address['port']}")
    status, job = ask(address, "POST", "/v1/jobs", {"prompt": "a lake", "count": 10})
    assert status == 202
    process.send_signal(signal.SIGTERM)
    last = [ask(address, "GET", f"/v1/jobs/{job['id']}")[1]["state"]]
    while last[-1] in ("queued", "running"):
        last.append(ask(address, "GET", f"/v1/jobs/{job['id']}")[1]["state"])
    assert last[-1] == "done"
    assert process.wait(60) == 0
    assert process.communicate()[1] == ""


@needs_signals
def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    process, address = start()
    ask(address, "POST", "/v1/jobs", {"prompt": "a lake", "count": 10})
    process.send_signal(signal.SIGINT)
    wait_until(lambda: process.poll() is not None or ask(address, "GET", "/readyz")[0] == 503)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@needs_signals
def test_it_ends_with_its_parent(start: Start) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process, _ = start("--parent-pid", str(parent.pid))
    assert process.poll() is None
    parent.kill()
    assert process.wait(60) == 0
    parent.communicate()


def test_a_token_of_ones_own(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-of-my-own\n")
    _, address = start("--token-file", str(file))
    assert address["token"] == "a-token-of-my-own"
    assert ask(address, "GET", "/v1/pool")[0] == 200


def test_text_for_people(tiny_bundle: Path, built: Path) -> None:
    process = subprocess.Popen([*COMMAND, "--port", str(free_port()), "--bundle", str(tiny_bundle)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.kill()
    process.communicate()
    assert lines[0].startswith("page:           http://127.0.0.1:")
    assert "/?token=" in lines[0]
    assert "/v1, key " in lines[1]
    assert "/t/" in lines[2]


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_runtime_that_cannot_be_opened(tiny_bundle: Path, home: Path) -> None:
    command = [*COMMAND, "--port", "0", "--bundle", str(tiny_bundle), "--no-build"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5
    assert "costroute-rt build-engines" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "0.0.0.0"), "0.0.0.0 can be reached by other machines: choose a token yourself, with --token-file"),
        (("--host", "203.0.113.1", "--token-file", "{token}"), "address is '203.0.113.1:7870': expected one that can be listened on"),
        (("--token-file", "{short}"), "a token of 16 to 256 letters, digits, - or _"),
        (("--token-file", "/nowhere"), "No such file or directory"),
        (("--allow-origin", "https://example.org/path"), "an origin without a path"),
        (("--allow-origin", "null"), "an origin without a path"),
        (("--allow-origin", "*"), "an origin without a path"),
        (("--save-to", "{token}"), "it is no folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_is_refused_before_anything_is_opened(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-my-own")
    (tmp_path / "short").write_text("short")
    done = invoke("serve", *(each.format(token=tmp_path / "token", short=tmp_path / "short") for each in options))
    assert done.exit_code in (2, 7)
    assert message in done.stderr


def test_a_missing_library_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = invoke("serve")
    assert done.exit_code == 6
    assert 'pip install "costroute-rt[serve]"' in done.stderr
