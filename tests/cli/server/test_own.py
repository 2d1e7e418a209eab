"""Our own endpoints: routes, jobs and their events, the pool, pictures, state and metrics."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from costroute_rt import read_settings
from costroute_rt.cli.server.settings import Limits
from costroute_rt.error import BackendError, EngineError, Reason
from tests.cli.server.conftest import Gate, Running, Serve
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PROMPT = "a red house by a lake"
Events = list[tuple[str, dict[str, Any], int]]


def png(side: int = 64, mode: str = "RGB") -> str:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def collect(server: Running, job: str, headers: dict[str, str] | None = None) -> Events:
    return list(server.events(f"/v1/jobs/{job}/events", headers))


def test_a_route_tells_what_a_job_would_get(server: Running) -> None:
    answer = server.post("/v1/route", prompt=PROMPT, max_ms=100)
    assert answer.status == 200
    found = answer.json()
    assert (found["prompt"], found["max_ms"], found["chosen"], found["fallback"]) == (PROMPT, 100, "turbo@2", None)
    assert [(each["candidate"], each["fits"]) for each in found["options"]][1:3] == [("turbo@2", True), ("base@4", False)]


def test_what_can_never_fit_is_refused_once(server: Running) -> None:
    for path in ("/v1/route", "/v1/jobs"):
        answer = server.post(path, prompt=PROMPT, max_ms=33)
        assert answer.status == 422
        assert answer.headers["x-should-retry"] == "false"
        error = answer.error
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "max_ms", "max_ms_too_small")
        assert (error["fastest"], error["reason"]) == ("turbo@1", "too_slow")
        assert error["needed_ms"] >= 34  # and what had passed before it was judged
        assert "retry_after_ms" not in error
    assert server.get("/v1/jobs").json()["data"] == []


def test_a_job_from_its_beginning_to_its_image(server: Running) -> None:
    answer = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@2", seed=7, preview=True, client="tab 1")
    assert answer.status == 202
    job = answer.json()
    assert answer.headers["location"] == f"jobs/{job['id']}"
    events = collect(server, job["id"])
    assert [name for name, _, _ in events] == ["queued", "routed", "step", "step", "done"]
    assert all(data["job"] == job["id"] for _, data, _ in events)
    assert [number for *_, number in events] == sorted({number for *_, number in events})
    assert events[1][1]["candidate"] == "turbo@2"
    steps = [data for name, data, _ in events if name == "step"]
    assert [(each["step"], each["steps"]) for each in steps] == [(1, 2), (2, 2)]
    assert steps[0]["ms_to_go"] > steps[1]["ms_to_go"] > 0
    done = events[-1][1]
    assert (done["state"], done["candidate"], done["met"], done["client"], done["prompt"]) == ("done", "turbo@2", None, "tab 1", PROMPT)
    (image,) = done["images"]
    assert (image["seed"], image["format"]) == (7, "png")
    picture = server.ask("GET", f"/{image['url']}", headers={"Authorization": ""})
    assert picture.headers["content-type"] == "image/png"
    assert read_settings(picture.body)["prompt"] == PROMPT
    assert server.get(f"/v1/jobs/{job['id']}").json()["images"] == [image]


def test_the_last_step_has_a_preview(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "decode")
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1", preview=True).json()["id"]
    events = server.events(f"/v1/jobs/{job}/events")
    step = next(data for name, data, _ in events if name == "step")
    if step["preview"] is not None:
        assert Image.open(io.BytesIO(base64.b64decode(step["preview"]))).format == "JPEG"
    gate.open()
    assert [name for name, _, _ in events] == ["done"]


def test_events_go_on_where_they_were_left(server: Running) -> None:
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@2").json()["id"]
    events = collect(server, job)
    middle = events[2][2]
    assert collect(server, job, {"Last-Event-ID": str(middle)}) == events[3:]
    assert list(server.events(f"/v1/jobs/{job}/events?last_event_id={middle}")) == events[3:]
    assert collect(server, job, {"Last-Event-ID": "nonsense"}) == events


def test_a_client_follows_all_of_its_jobs_in_one_stream(server: Running) -> None:
    first = server.post("/v1/jobs", prompt=PROMPT, client="tab 1").json()["id"]
    stream = server.events("/v1/events?client=tab+1")
    other = server.post("/v1/jobs", prompt=PROMPT, client="tab 2").json()["id"]
    found = take_until_done(stream, first)
    second = server.post("/v1/jobs", prompt=PROMPT, client="tab 1").json()["id"]
    found += take_until_done(stream, second)
    assert {data["job"] for _, data, _ in found} == {first, second}
    numbers = [number for *_, number in found]
    assert numbers == sorted(numbers)
    assert [each["id"] for each in server.get("/v1/jobs?client=tab+2").json()["data"]] == [other]
    stream.close()  # type: ignore[attr-defined]
    server.wait_for(lambda: not server.service.board.on_add, "the end of the stream")


def take_until_done(stream: Iterator[tuple[str, dict[str, Any], int]], job: str) -> Events:
    found = []
    for each in stream:
        found.append(each)
        if each[0] == "done" and each[1]["job"] == job:
            return found
    raise AssertionError("the stream ended")


def test_a_waiting_job_knows_its_place(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "turbo/step")
    running = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@2").json()["id"]
    assert gate.reached.wait(60)
    waiting = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()
    found = server.get(f"/v1/jobs/{waiting['id']}").json()
    assert (found["state"], found["ahead"]) == ("queued", 1)
    assert found["start_in_ms"] > 0
    assert server.get(f"/v1/jobs/{running}").json()["ahead"] is None
    gate.open()
    assert collect(server, waiting["id"])[-1][0] == "done"


def test_cancelling_a_job_ends_it_after_the_step_that_runs(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step")
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="base@8").json()["id"]
    assert gate.reached.wait(60)
    calls = device.engines["tiny/base/guided_step"].calls
    assert server.ask("DELETE", f"/v1/jobs/{job}").json()["deleted"] is True
    gate.open()
    name, data, _ = collect(server, job)[-1]
    assert (name, data["error"]["code"]) == ("cancelled", "cancelled")
    assert device.engines["tiny/base/guided_step"].calls == calls + 1
    assert server.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


def test_deleting_a_finished_job_forgets_its_images(server: Running) -> None:
    job = server.post("/v1/jobs", prompt=PROMPT).json()["id"]
    picture = collect(server, job)[-1][1]["images"][0]["url"]
    assert server.ask("DELETE", f"/v1/jobs/{job}").status == 200
    assert server.get(f"/v1/jobs/{job}").error["code"] == "job_not_found"
    assert server.get(f"/{picture}").error["code"] == "picture_not_found"
    assert server.service.board.gallery.bytes == 0


def test_a_job_survives_its_client(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "decode")
    job = server.post("/v1/jobs", prompt=PROMPT).json()["id"]
    stream = server.events(f"/v1/jobs/{job}/events")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    gate.open()
    assert collect(server, job)[-1][0] == "done"


def test_many_images_in_another_format(server: Running) -> None:
    job = server.post("/v1/jobs", prompt=PROMPT, count=3, seed=5, format="webp", quality=80).json()["id"]
    images = collect(server, job)[-1][1]["images"]
    assert [(each["seed"], each["format"]) for each in images] == [(5, "webp"), (6, "webp"), (7, "webp")]
    assert server.get(f"/{images[2]['url']}").body[8:12] == b"WEBP"


def test_an_engine_that_fails_is_one_failed_job(server: Running, device: FakeDevice) -> None:
    def fail(name: str) -> None:
        if name.endswith("turbo/step"):
            raise EngineError("it broke", reason=Reason.FAILED, engine=name)

    device.on_call.append(fail)
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]
    name, data, _ = collect(server, job)[-1]
    assert name == "failed"
    assert (data["error"]["type"], data["error"]["code"]) == ("server_error", "engine_failed")
    device.on_call.clear()
    job = server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@1").json()["id"]
    assert collect(server, job)[-1][0] == "done"


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "prompt", "invalid_prompt"),
    ({"prompt": " "}, "prompt", "invalid_prompt"),
    ({"prompt": 5}, "prompt", "invalid_value"),
    ({"prompt": "\ud800"}, "prompt", "invalid_prompt"),
    ({"prompt": "x" * 32_001}, "prompt", "too_long"),
    ({"prompt": "x", "negative_prompt": "\0"}, "prompt", "invalid_prompt"),
    ({"prompt": "x", "max_ms": 0}, "max_ms", "invalid_value"),
    ({"prompt": "x", "max_ms": "100"}, "max_ms", "invalid_value"),
    ({"prompt": "x", "max_ms": True}, "max_ms", "invalid_value"),
    ({"prompt": "x", "count": 11}, "count", "invalid_value"),
    ({"prompt": "x", "count": 1.5}, "count", "invalid_value"),
    ({"prompt": "x", "seed": -1}, "seed", "invalid_value"),
    ({"prompt": "x", "seed": 2**63 - 1, "count": 2}, "seed", "invalid_value"),
    ({"prompt": "x", "seed": 1e400}, "", "invalid_json"),
    ({"prompt": "x", "height": 10**400}, "height", "invalid_value"),
    ({"prompt": "x", "height": 65}, "height", "invalid_value"),
    ({"prompt": "x", "candidate": "nothing"}, "candidate", "invalid_value"),
    ({"prompt": "x", "scheduler": "nothing"}, "scheduler", "invalid_value"),
    ({"prompt": "x", "strength": 0.5}, "strength", "invalid_value"),
    ({"prompt": "x", "init_image": "/etc/passwd"}, "init_image", "invalid_image"),
    ({"prompt": "x", "init_image": "file:///etc/passwd"}, "init_image", "invalid_image"),
    ({"prompt": "x", "init_image": "http://127.0.0.1/a.png"}, "init_image", "invalid_image"),
    ({"prompt": "x", "init_image": "AAAA"}, "init_image", "invalid_value"),
    ({"prompt": "x", "format": "gif"}, "format", "invalid_value"),
    ({"prompt": "x", "preview": "yes"}, "preview", "invalid_value"),
    ({"prompt": "x", "steps": 20}, "steps", "unknown_field"),
]


@pytest.mark.parametrize(("fields", "param", "code"), FAULTS, ids=lambda value: str(value)[:40])
def test_wrong_fields(server: Running, fields: dict[str, Any], param: str, code: str) -> None:
    answer = server.post("/v1/jobs", **fields)
    assert answer.status == 400, answer.body
    assert (answer.error["param"] or "", answer.error["code"]) == (param, code)
    assert list(answer.error)[:4] == ["message", "type", "param", "code"]


def test_bodies_that_are_no_json_objects(server: Running) -> None:
    for body in (b"", b"[]", b"{", b"\xff", b'"a"', b"[" * 100_000, b'{"prompt": NaN}'):
        answer = server.ask("POST", "/v1/jobs", body, {"Content-Type": "application/json"})
        assert answer.status == 400, body[:20]
    assert server.ask("POST", "/v1/jobs", b"prompt=x", {"Content-Type": "application/x-www-form-urlencoded"}).status == 415


def test_an_initial_image_is_read_from_the_request(serve: Serve, bundle: Any) -> None:
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    server = serve(device.runtime)
    job = server.post("/v1/jobs", prompt=PROMPT, init_image=png(), strength=0.5, candidate="turbo@2")
    assert job.status == 202, job.body
    assert collect(server, job.json()["id"])[-1][1]["images"][0]["settings"]["strength"] == 0.5
    data_url = f"data:image/png;base64,{png()}"
    assert server.post("/v1/route", prompt=PROMPT, init_image=data_url, mask=png(mode="L")).status == 200
    device.runtime.close()


def test_the_pool(server: Running) -> None:
    found = server.get("/v1/pool").json()
    assert [each["name"] for each in found["candidates"]] == ["turbo@1", "turbo@2", "base@4", "base@8"]
    assert found["candidates"][2]["guidance_scale"] == 3.0
    assert found["image_sizes"][0]["height"] > 0
    assert (found["state"], found["family"]) == ("ready", "tiny")


def test_what_there_is_not(server: Running) -> None:
    assert server.get("/v1/nothing").error["code"] == "not_found"
    assert server.ask("PUT", "/v1/jobs").error["code"] == "method_not_allowed"
    assert server.ask("PUT", "/v1/jobs").status == 405
    assert server.get("/v1/jobs/job_nothing/events").status == 404
    for path in ("/../pyproject.toml", "/page/../../../pyproject.toml", "/pictures/..%2f..%2fpyproject.toml", "//etc/passwd", "/%00"):
        assert server.get(path).status == 404, path


def test_metrics_count_what_happened(server: Running) -> None:
    job = server.post("/v1/jobs", prompt=PROMPT, max_ms=60_000).json()["id"]
    collect(server, job)
    server.post("/v1/jobs", prompt=PROMPT, max_ms=1)
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    assert 'costroute_works_total{outcome="done"} 1' in lines
    assert 'costroute_works_total{outcome="max_ms_too_small"} 1' in lines
    assert 'costroute_deadlines_total{met="true"} 1' in lines
    assert 'costroute_requests_total{route="/v1/jobs",status="422"} 1' in lines
    assert "costroute_images_total 1" in lines
    assert 'costroute_request_seconds_bucket{le="+Inf"} 1' in lines


def test_every_answer_has_the_common_headers(server: Running) -> None:
    for path in ("/", "/v1/pool", "/nothing", "/healthz"):
        headers = server.get(path).headers
        assert (headers["x-content-type-options"], headers["referrer-policy"], headers["cache-control"]) == (
            "nosniff",
            "no-referrer",
            "no-store",
        )
        assert "server" not in headers


def test_the_page_loads_nothing_from_elsewhere(server: Running) -> None:
    page = server.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert b"http" not in page.body
    assert server.get("/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert server.get("/style.css").headers["content-type"] == "text/css; charset=utf-8"


def test_nothing_is_written_unless_asked_for(serve: Serve, tmp_path: Path) -> None:
    server = serve(save_to=tmp_path)
    job = server.post("/v1/jobs", prompt="../../evil", seed=3).json()["id"]
    url = collect(server, job)[-1][1]["images"][0]["url"]
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == server.get(f"/{url}").body
    assert "-3-" in path.name


def test_finished_jobs_are_few(serve: Serve) -> None:
    server = serve(limits=Limits(kept_jobs=2))
    jobs = []
    for _ in range(4):
        jobs.append(server.post("/v1/jobs", prompt=PROMPT).json()["id"])
        collect(server, jobs[-1])
    assert [each["id"] for each in server.get("/v1/jobs").json()["data"]] == jobs[2:]
    assert len(server.service.board.gallery) == 2


def test_while_the_runtime_opens_the_server_answers(serve: Serve, device: FakeDevice) -> None:
    ready = threading.Event()

    def open_runtime(note: Any, cancel: Any) -> Any:
        assert ready.wait(60)
        return device.runtime

    server = serve(opener=open_runtime)
    assert server.get("/healthz").status == 200
    assert (server.get("/readyz").status, server.get("/readyz").json()["status"]) == (503, "opening")
    assert server.get("/v1/pool").json()["candidates"] == []
    late = server.post("/v1/jobs", prompt=PROMPT, max_ms=20)
    assert (late.status, late.error["code"], late.headers["x-should-retry"]) == (503, "not_ready", "false")
    found = list[Any]()
    waiting = threading.Thread(target=lambda: found.append(server.post("/v1/jobs", prompt=PROMPT)))
    waiting.start()
    server.wait_for(lambda: server.service.board.active(), "the arrival")
    ready.set()
    waiting.join(60)
    assert found[0].status == 202


def test_a_runtime_that_cannot_be_opened_ends_the_server(serve: Serve) -> None:
    def fail(note: Any, cancel: Any) -> Any:
        raise BackendError("a GPU", "none", "buy one")

    server = serve(opener=fail)
    server.wait_for(lambda: server.service.failure, "the failure")
    assert server.get("/readyz").json()["status"] == "failed"
    assert server.post("/v1/jobs", prompt=PROMPT).error["code"] == "backend_error"
