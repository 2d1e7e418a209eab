"""What the server promises about time and about its end: queue, loading, unloading, departures and draining."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.cli.server.settings import Limits
from costroute_rt.engines.bundle.bundle import Bundle
from tests.cli.server.conftest import TOKEN, Gate, Running, Serve
from tests.cli.server.test_own import collect, png
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PROMPT = "a red house by a lake"


def send(server: Running, path: str, fields: dict[str, Any]) -> socket.socket:
    """A request whose answer is not read."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    connection = server.open_socket()
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_what_would_be_late_behind_others_is_refused_with_the_time_to_wait(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step")
    server.post("/v1/jobs", prompt=PROMPT, candidate="base@8", max_ms=600)
    assert gate.reached.wait(60)
    answer = server.post("/v1/jobs", prompt=PROMPT, max_ms=700, candidate="base@8")
    assert (answer.status, answer.error["code"], answer.error["reason"]) == (429, "queue_too_long", "queue")
    assert (answer.headers["x-should-retry"], answer.error["max_ms"]) == ("false", 700)
    assert 100 < int(answer.headers["retry-after-ms"]) < 1000
    gate.open()


def test_a_full_queue(serve: Serve, device: FakeDevice) -> None:
    server = serve(limits=Limits(waiting=1))
    gate = Gate(device, "turbo/step")
    accepted = [server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]]
    assert gate.reached.wait(60)
    accepted.append(server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"])
    for path in ("/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img"):
        answer = server.post(path, prompt=PROMPT)
        assert (answer.status, answer.error["code"], answer.error["type"]) == (429, "queue_full", "rate_limit_error"), path
        assert "x-should-retry" not in answer.headers
        assert answer.headers["retry-after"] == "1"
    assert len(server.service.board.active()) == 2
    gate.open()
    assert [collect(server, job)[-1][0] for job in accepted] == ["done", "done"]


def test_loading_counts(serve: Serve, device: FakeDevice) -> None:
    device.runtime.unload()
    server = serve()
    refused = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1", max_ms=60)
    assert refused.status == 422  # 34 ms of work, and 30 ms for each of three engines
    route = server.post("/v1/route", prompt=PROMPT, candidate="turbo@1", max_ms=200).json()
    assert route["options"][0]["stages"]["swap_ms"] == pytest.approx(90, abs=5)
    assert server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1", max_ms=500).status == 202


def test_only_images_keep_engines_loaded(serve: Serve, device: FakeDevice) -> None:
    server = serve(unload_after_s=0.2)
    engine = device.engines["tiny/turbo/step"]
    server.wait_for(
        lambda: server.get("/metrics").status == 200 and server.get("/v1/pool").status == 200 and engine.is_closed, "the unloading"
    )
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]
    assert collect(server, job)[-1][1]["timings"]["swap_ms"] > 0
    again = device.engines["tiny/turbo/step"]
    assert again is not engine
    server.wait_for(lambda: again.is_closed, "the second unloading")


def test_engines_stay_without_that_setting(server: Running, device: FakeDevice) -> None:
    server.service._worked_s -= 1e6
    threading.Event().wait(1.2)
    assert not device.engines["tiny/turbo/step"].is_closed


@pytest.mark.parametrize("path", ["/v1/images/generations", "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_a_client_that_leaves_while_it_waits_leaves_the_queue(server: Running, device: FakeDevice, path: str, how: str) -> None:
    gate = Gate(device, "turbo/step")
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]
    assert gate.reached.wait(60)
    connection = send(server, path, {"prompt": PROMPT, "model": "base@8"})
    server.wait_for(lambda: len(server.service.board.active()) == 2, "the arrival")
    calls = device.engines["tiny/base/guided_step"].calls
    if how == "half":
        connection.shutdown(socket.SHUT_WR)
    elif how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    else:
        connection.close()
    server.wait_for(lambda: len(server.service.board.active()) == 1, "the departure")
    gate.open()
    connection.close()
    assert collect(server, job)[-1][0] == "done"
    assert device.engines["tiny/base/guided_step"].calls == calls


_CLIENT = """
import sys, urllib.request
url, token, stream = sys.argv[1:]
body = b'{"prompt": "a red house", "model": "base@8", "stream": %s}' % stream.encode()
head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
urllib.request.urlopen(urllib.request.Request(f"{url}/v1/images/generations", body, head)).read()
"""


def test_nothing_runs_on_after_clients_that_were_killed(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step", after=1)
    calls, threads = device.engines["tiny/base/guided_step"].calls, threading.active_count()
    command = [sys.executable, "-c", _CLIENT, server.url, TOKEN]
    clients = [subprocess.Popen([*command, stream], stderr=subprocess.DEVNULL) for stream in ("true", "false", "true", "false")]
    try:
        server.wait_for(lambda: len(server.service.board.active()) == len(clients), "the arrivals")
        assert gate.reached.wait(60)
    finally:
        for client in clients:
            client.kill()
            client.wait()
    server.wait_for(lambda: all(work.is_left for work in server.service.board.active()), "the departures")
    gate.open()
    server.wait_for(lambda: not server.service.board.active(), "the end")
    assert device.engines["tiny/base/guided_step"].calls == calls + 2
    server.wait_for(lambda: threading.active_count() <= threads + 1, "the end of the threads")
    assert server.post("/v1/images/generations", prompt=PROMPT, model="turbo@1").status == 200


def test_a_client_that_leaves_before_the_runtime_is_open(serve: Serve, device: FakeDevice) -> None:
    ready = threading.Event()

    def open_runtime(note: Any, cancel: Any) -> Any:
        assert ready.wait(60)
        return device.runtime

    server = serve(opener=open_runtime)
    connection = send(server, "/v1/images/generations", {"prompt": PROMPT})
    server.wait_for(lambda: server.service.board.active(), "the arrival")
    connection.close()
    server.wait_for(lambda: not server.service.board.active(), "the departure")
    ready.set()


def test_draining_finishes_what_was_accepted_and_takes_nothing_new(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "turbo/step")
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]
    blocking = list[Any]()
    drawing = threading.Thread(target=lambda: blocking.append(server.post("/v1/images/generations", prompt=PROMPT, model="turbo@1")))
    drawing.start()
    server.wait_for(lambda: len(server.service.board.active()) == 2, "the arrival")
    server.server.begin_to_end()
    server.wait_for(lambda: server.get("/readyz").json()["status"] == "draining", "draining")
    for path in ("/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img"):
        answer = server.post(path, prompt=PROMPT)
        assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (503, "shutting_down", "false")
    assert server.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running")
    events = server.events(f"/v1/jobs/{job}/events")
    next(events)
    gate.open()
    assert [name for name, _, _ in events][-1] == "done"
    drawing.join(60)
    assert blocking[0].status == 200
    server.wait_for(lambda: server.server.should_exit, "the end")


def test_draining_does_not_wait_for_ever(serve: Serve, device: FakeDevice) -> None:
    server = serve(drain_s=0.1)
    gate = Gate(device, "base/guided_step", after=1)
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="base@8").json()["id"]
    assert gate.reached.wait(60)
    events = server.events(f"/v1/jobs/{job}/events")
    next(events)
    server.server.begin_to_end()
    server.wait_for(lambda: all(work.is_cancelled for work in server.service.board.active()), "the cancellation")
    gate.open()
    server.wait_for(lambda: server.server.should_exit, "the end")


def test_images_to_begin_with_are_few_and_forgotten_at_the_end(serve: Serve, bundle: Bundle) -> None:
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    server = serve(device.runtime, limits=Limits(source_bytes=3 * 64 * 64 * 3))
    gate = Gate(device, "turbo/step")
    fields = {"prompt": PROMPT, "candidate": "turbo@2", "init_image": png()}
    jobs = [server.ask("POST", "/v1/jobs", fields).json()["id"] for _ in range(3)]
    refused = server.ask("POST", "/v1/jobs", fields)
    assert (refused.status, refused.error["code"]) == (429, "images_too_large")
    gate.open()
    assert [collect(server, job)[-1][0] for job in jobs] == ["done"] * 3
    assert [work.order.source_bytes for work in server.service.board] == [0, 0, 0]
    assert server.ask("POST", "/v1/jobs", fields).status == 202
    server.wait_for(lambda: not server.service.board.active(), "the end")
    device.runtime.close()


def test_an_image_is_answered_even_if_its_copy_cannot_be_written(serve: Serve, tmp_path: Path) -> None:
    server = serve(save_to=tmp_path / "gone")
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]
    done = collect(server, job)[-1][1]
    assert done["notes"][0].startswith("no copy was written: ")
    assert server.get(f"/{done['images'][0]['url']}").status == 200


def test_nothing_is_left_after_many_requests(serve: Serve) -> None:
    server = serve(limits=Limits(kept_jobs=3))
    for _ in range(20):
        assert server.post("/v1/images/generations", prompt=PROMPT, model="turbo@1").status == 200
        assert server.post("/v1/images/generations", prompt=PROMPT, max_ms=1).status == 422
        collect(server, server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"])
    assert len(list(server.service.board)) == 3
    assert len(server.service.board.gallery) == 3
    assert server.service.board.gallery.bytes == sum(len(picture.data) for work in server.service.board for picture in work.pictures)
    assert threading.active_count() < 30
