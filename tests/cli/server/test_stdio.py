"""The server over lines: JSON-RPC, our methods with their events, and MCP, also asked by its own client."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from costroute_rt.cli.server.service import Phase, Service
from costroute_rt.cli.server.settings import Limits, ServerSettings
from costroute_rt.cli.server.stdio import serve_lines
from costroute_rt.engines.building.progress import OpenEvent
from tests.cli.server.conftest import PATIENCE_S, Gate, wait_until
from tests.runtime.fakes import FakeDevice

PROMPT = "a red house by a lake"
COMMAND = [sys.executable, "-m", "costroute_rt.cli", "serve", "--stdio"]


class Lines:
    """A client that writes lines and reads what comes back."""

    def __init__(self, device: FakeDevice, *, opener: Any = None, **options: Any) -> None:
        given, self._to = os.pipe()
        self._from, taken = os.pipe()
        settings = replace(ServerSettings(token=""), **options)
        self.service: Service | None = None
        source, target = os.fdopen(given, "rb"), os.fdopen(taken, "wb")

        def run() -> None:
            self.service = Service(opener or (lambda note, cancel: device.runtime), settings)
            serve_lines(self.service, source, target)
            source.close()
            target.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        self._lines = os.fdopen(self._from, "rb")
        self._is_open = True

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to, data) :]

    def send(self, method: str, number: object = None, **params: Any) -> None:
        found = {"jsonrpc": "2.0", "method": method, "params": params}
        self.write(json.dumps(found if number is None else {**found, "id": number}).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        return dict(json.loads(self._lines.readline()))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a call, with the notifications before it under `told`."""
        self.send(method, "question", **params)
        told = []
        while True:
            found = self.read()
            if found.get("id") == "question":
                return {**found, "told": told}
            told.append(found)

    def end(self) -> None:
        """The end of the input."""
        if self._is_open:
            self._is_open = False
            os.close(self._to)
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        self._lines.close()


Connect = Callable[..., Lines]


@pytest.fixture
def connect(device: FakeDevice) -> Iterator[Connect]:
    opened = list[Lines]()

    def start(**options: Any) -> Lines:
        opened.append(Lines(device, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.end()


@pytest.fixture
def lines(connect: Connect) -> Lines:
    return connect()


def test_an_image_with_its_events(lines: Lines) -> None:
    found = lines.ask("generate", prompt=PROMPT, candidate="turbo@2", seed=7, events=True, preview=True)
    (image,) = found["result"]["images"]
    assert Image.open(io.BytesIO(base64.b64decode(image["base64"]))).format == "PNG"
    assert (image["seed"], image["path"], found["result"]["candidate"]) == (7, None, "turbo@2")
    assert "url" not in image
    assert {each["method"] for each in found["told"]} == {"event"}
    assert [each["params"]["event"] for each in found["told"]] == ["queued", "routed", "step", "step", "done"]
    assert {each["params"]["job"] for each in found["told"]} == {found["result"]["id"]}


def test_routes_and_the_pool(lines: Lines) -> None:
    assert lines.ask("ready")["result"] == lines.ask("status")["result"] == {"status": "ready"}
    assert lines.ask("pool")["result"]["candidates"][0]["name"] == "turbo@1"
    assert lines.ask("route", prompt=PROMPT, max_ms=100)["result"]["chosen"] == "turbo@2"


def test_how_far_the_opening_is(connect: Connect, device: FakeDevice) -> None:
    ready = threading.Event()

    def open_runtime(note: Any, cancel: Any) -> Any:
        note(OpenEvent(stage="build", engine=None, done=1, total=4, share=0.5, elapsed_s=1.0, remaining_s=3.0))
        assert ready.wait(PATIENCE_S)
        return device.runtime

    lines = connect(opener=open_runtime)
    wait_until(lambda: lines.service is not None and lines.service.opening, "the first step")
    lines.send("ready", 1)
    expected = {"status": "opening", "stage": "build", "done": 1, "total": 4, "remaining_s": 3.0, "fraction": 0.375}
    assert lines.ask("status") == {"jsonrpc": "2.0", "id": "question", "result": expected, "told": []}
    ready.set()
    assert lines.read()["result"] == {"status": "ready"}


def test_a_refusal_has_the_data_that_http_has(lines: Lines) -> None:
    for method in ("route", "generate", "submit"):
        error = lines.ask(method, prompt=PROMPT, max_ms=5)["error"]
        assert (error["code"], error["data"]["code"], error["data"]["status"]) == (-32000, "max_ms_too_small", 422)
        assert error["data"]["max_ms"] == 5
    error = lines.ask("generate", prompt="")["error"]
    assert (error["code"], error["data"]["param"]) == (-32602, "prompt")
    assert lines.ask("generate", prompt=PROMPT, steps=3)["error"]["data"]["code"] == "unknown_field"


def test_jobs_go_on_by_themselves(lines: Lines) -> None:
    job = lines.ask("submit", prompt=PROMPT, candidate="turbo@1", client="a")["result"]["id"]
    names = []
    while "done" not in names:
        names.append(lines.read()["params"]["event"])
    found = lines.ask("job", id=job)["result"]
    assert base64.b64decode(found["images"][0]["base64"]).startswith(b"\x89PNG")
    assert "base64" not in lines.ask("job", id=job, images="none")["result"]["images"][0]
    assert [each["id"] for each in lines.ask("jobs", client="a")["result"]["data"]] == [job]
    assert lines.ask("cancel", id=job)["result"]["state"] == "done"
    assert lines.ask("job", id=job)["error"]["data"]["code"] == "job_not_found"


def test_a_job_is_cancelled_after_its_step(lines: Lines, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step", after=1)
    job = lines.ask("submit", prompt=PROMPT, candidate="base@8", events=False)["result"]["id"]
    assert gate.reached.wait(60)
    lines.ask("cancel", id=job)
    gate.open()
    while lines.ask("job", id=job)["result"]["state"] == "running":
        pass
    assert lines.ask("job", id=job)["result"]["state"] == "cancelled"


def test_a_call_that_is_cancelled_ends_its_image(lines: Lines, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step", after=1)
    calls = device.engines["tiny/base/guided_step"].calls
    lines.send("generate", 5, prompt=PROMPT, candidate="base@8")
    assert gate.reached.wait(60)
    lines.send("notifications/cancelled", requestId=5)
    found = lines.read()
    assert (found["id"], found["error"]["data"]["code"]) == (5, "cancelled")
    gate.open()
    assert lines.ask("generate", prompt=PROMPT, candidate="turbo@1", images="none")["result"]["state"] == "done"
    assert device.engines["tiny/base/guided_step"].calls == calls + 2


def test_copies_in_files(connect: Connect, tmp_path: Path) -> None:
    lines = connect(save_to=tmp_path)
    (image,) = lines.ask("generate", prompt=PROMPT, images="file")["result"]["images"]
    assert Path(image["path"]).read_bytes().startswith(b"\x89PNG")
    assert "base64" not in image
    content = lines.ask("tools/call", name="generate_image", arguments={"prompt": PROMPT})["result"]["content"]
    assert Path(content[0]["text"].splitlines()[-1]).parent == tmp_path


def test_files_need_a_folder(lines: Lines) -> None:
    assert "--save-to" in lines.ask("generate", prompt=PROMPT, images="file")["error"]["message"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"5", -32600),
        (b'{"jsonrpc": "1.0", "method": "pool", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": 5, "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": "pool", "id": []}', -32600),
        (b'{"jsonrpc": "2.0", "method": "pool", "id": true}', -32600),
        (b'{"jsonrpc": "2.0", "method": "nothing", "id": 1}', -32601),
        (b'{"jsonrpc": "2.0", "method": "pool", "id": 1, "params": []}', -32602),
        (b'{"jsonrpc": "2.0", "method": "tools/call", "id": 1, "params": {"name": "rm"}}', -32602),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_lines_that_are_no_calls(lines: Lines, line: bytes, code: int) -> None:
    lines.write(line + b"\n")
    assert lines.read()["error"]["code"] == code
    assert "result" in lines.ask("ready")


def test_lines_that_need_no_answer(lines: Lines) -> None:
    lines.write(b'\n{"jsonrpc": "2.0", "id": 3, "result": {}}\n')
    lines.send("nothing")
    lines.send("notifications/initialized")
    assert lines.ask("ping")["told"] == []


def test_a_line_that_is_too_long(connect: Connect) -> None:
    lines = connect(limits=Limits(body_bytes=2000))
    lines.write(b'{"jsonrpc": "2.0", "id": 1, "method": "pool", "params": {"a": "' + b"x" * 10_000 + b'"}}\n')
    assert lines.read()["error"]["code"] == -32600
    assert "result" in lines.ask("ready")


def test_the_end_of_the_input_ends_everything(lines: Lines, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step", after=1)
    calls = device.engines["tiny/base/guided_step"].calls
    lines.send("generate", 1, prompt=PROMPT, candidate="base@8")
    lines.ask("submit", prompt=PROMPT, candidate="base@8", events=False)
    assert gate.reached.wait(60)
    os.close(lines._to)
    lines._is_open = False
    wait_until(lambda: lines.service is not None and lines.service.phase is Phase.DRAINING)
    gate.open()
    lines.end()
    assert device.engines["tiny/base/guided_step"].calls <= calls + 4


def test_mcp_by_hand(lines: Lines) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    answer = lines.ask("initialize", **hello)["result"]
    assert (answer["protocolVersion"], answer["serverInfo"]["name"]) == ("2025-06-18", "costroute-rt")
    assert lines.ask("initialize", protocolVersion="1999-01-01")["result"]["protocolVersion"] == "2025-11-25"
    (tool,) = lines.ask("tools/list")["result"]["tools"]
    assert (tool["name"], tool["inputSchema"]["required"]) == ("generate_image", ["prompt"])
    arguments = {"prompt": PROMPT, "max_ms": 60_000, "candidate": "turbo@2"}
    found = lines.ask("tools/call", name="generate_image", arguments=arguments, _meta={"progressToken": "p"})
    text, image = found["result"]["content"]
    assert text["text"].startswith("turbo@2, seed ")
    assert (image["type"], image["mimeType"]) == ("image", "image/png")
    assert [each["params"]["progress"] for each in found["told"]] == [1, 2]
    assert {each["params"]["progressToken"] for each in found["told"]} == {"p"}
    for arguments in ({"prompt": PROMPT, "max_ms": 5}, {"prompt": ""}, {"prompt": PROMPT, "init_image": "/etc/passwd"}):
        found = lines.ask("tools/call", name="generate_image", arguments=arguments)
        assert found["result"]["isError"] is True
        assert found["result"]["content"][0]["text"]


def test_mcp_without_a_handshake(lines: Lines) -> None:
    key = "io.modelcontextprotocol/protocolVersion"
    answer = lines.ask("server/discover", _meta={key: "2026-07-28"})["result"]
    assert (answer["supportedVersions"][0], answer["resultType"]) == ("2026-07-28", "complete")
    assert list(answer["capabilities"]) == ["tools"]
    refused = lines.ask("server/discover", _meta={key: "2036-01-01"})["error"]
    assert (refused["code"], refused["data"]["requested"]) == (-32022, "2036-01-01")
    assert "2026-07-28" in refused["data"]["supported"]
    assert lines.ask("tools/list", _meta={key: "2026-07-28"})["result"]["tools"][0]["name"] == "generate_image"


def start(bundle: Path, *options: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, "--bundle", str(bundle), *options], stdin=pipe, stdout=pipe, stderr=pipe)


def test_the_command_keeps_standard_output_for_lines(tiny_bundle: Path, built: Path) -> None:
    asked = [{"jsonrpc": "2.0", "id": 1, "method": "generate", "params": {"prompt": PROMPT}}]
    process = subprocess.Popen(
        [*COMMAND, "--bundle", str(tiny_bundle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(json.dumps(each) + "\n" for each in asked).encode())
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["result"]["state"] == "done"
    rest, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, rest, errors) == (0, b"", b"")


def test_a_runtime_that_cannot_be_opened_ends_the_command(tiny_bundle: Path, home: Path) -> None:
    process = start(tiny_bundle, "--no-build")
    assert process.wait(PATIENCE_S) == 5
    assert b"costroute-rt build-engines" in process.communicate()[1]


@pytest.mark.parametrize("how", ["initialize", "discover"])
def test_mcps_own_client(tiny_bundle: Path, built: Path, how: str) -> None:
    pytest.importorskip("mcp", reason="asks by MCP's client: pip install mcp")
    script = """
import asyncio, base64, json, os, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main():
    server = StdioServerParameters(command=sys.executable, args=sys.argv[1:], env=dict(os.environ))
    async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
        await (session.discover() if HOW == "discover" else session.initialize())
        (tool,) = (await session.list_tools()).tools
        progress = []

        async def note(done, total, message):
            progress.append((done, total, message.endswith(" s to go")))

        arguments = {"prompt": "a lake", "max_ms": 60000, "candidate": "tiny-turbo@2"}
        found = await session.call_tool(tool.name, arguments, progress_callback=note)
        text, image = found.content
        refused = await session.call_tool(tool.name, {"prompt": "a lake", "max_ms": 0.001})
        print(json.dumps([text.type, image.type, base64.b64decode(image.data)[1:4].decode(), progress, refused.is_error]))

asyncio.run(main())
""".replace("HOW", repr(how))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *COMMAND[1:], "--bundle", str(tiny_bundle)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["text", "image", "PNG", [[1, 2, True], [2, 2, True]], True]
