"""OpenAI's images API, asked by hand for what clients send, and by OpenAI's own client."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from costroute_rt import read_settings
from costroute_rt.cli.server.settings import Limits
from tests.cli.server.conftest import TOKEN, Answer, Gate, Running, Serve
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PROMPT = "a red house by a lake"


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    openai = pytest.importorskip("openai", reason="asks by OpenAI's client: pip install openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN) as found:
        yield found


@pytest.fixture
def image_server(serve: Serve, bundle: Any) -> Iterator[Running]:
    """A server whose model can begin with images."""
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    yield serve(device.runtime)
    device.runtime.close()


def png(image: Any = None) -> bytes:
    buffer = io.BytesIO()
    (image or Image.new("RGB", (64, 64), "red")).save(buffer, "PNG")
    return buffer.getvalue()


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def post_form(server: Running, parts: list[tuple[str, str | bytes]], path: str = "/v1/images/edits") -> Answer:
    """A multipart form; bytes are files."""
    body = b""
    for name, value in parts:
        is_file = isinstance(value, bytes)
        kind = '; filename="upload"\r\nContent-Type: application/octet-stream' if is_file else ""
        data = value if isinstance(value, bytes) else value.encode()
        body += f'--XX\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n'.encode() + data + b"\r\n"
    return server.ask("POST", path, body + b"--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"})


def test_what_clients_send_by_default_is_accepted(server: Running) -> None:
    sent = [
        {"model": "dall-e-2", "prompt": PROMPT, "n": 1, "size": "1024x1024", "response_format": "b64_json"},  # Open WebUI
        {
            "model": "gpt-image-1",
            "prompt": PROMPT,
            "size": "auto",
            "quality": "auto",
            "background": "auto",
            "output_format": "png",
        },  # LibreChat
        {"model": "", "prompt": PROMPT, "n": 0, "size": "512x512"},  # Nextcloud
        {"model": "anything", "prompt": PROMPT, "user": "me", "style": "vivid", "moderation": "low", "an_unknown_key": [1]},
    ]
    for fields in sent:
        answer = server.post("/v1/images/generations", **fields)
        assert answer.status == 200, answer.body
        found = answer.json()
        assert opened(found["data"][0]["b64_json"]).format == "PNG"
        assert (found["output_format"], found["background"]) == ("png", "opaque")
        assert found["costroute"]["candidate"] == "base@8"
        assert found["usage"]["total_tokens"] == 0
        width, height = map(int, found["size"].split("x"))
        assert opened(found["data"][0]["b64_json"]).size == (width, height)
    assert server.service.board.active() == []
    assert len(list(server.service.board)) == 0


def test_a_size_that_nothing_makes_is_only_a_hint_here(server: Running) -> None:
    found = server.post("/v1/images/generations", prompt=PROMPT, size="1024x1024").json()
    assert found["size"] != "1024x1024"
    assert "1024x1024" in found["costroute"]["notes"][0]
    assert server.post("/v1/jobs", prompt=PROMPT, width=1024, height=1024).status == 400


def test_a_model_is_a_candidate_and_other_keys_of_ours(server: Running) -> None:
    found = server.post("/v1/images/generations", prompt=PROMPT, model="turbo@1", max_ms=5000, seed=7, n=2, output_format="webp").json()
    assert (found["costroute"]["candidate"], found["costroute"]["seed"], found["costroute"]["met"]) == ("turbo@1", 7, True)
    assert [opened(each["b64_json"]).format for each in found["data"]] == ["WEBP", "WEBP"]
    assert read_settings(base64.b64decode(found["data"][1]["b64_json"]))["seed"] == 8


def test_addresses_of_images_need_no_token_and_cannot_be_guessed(server: Running) -> None:
    for fields in ({"model": "dall-e-2"}, {"response_format": "url"}, {"model": "dall-e-3", "response_format": None}):
        (item,) = server.post("/v1/images/generations", prompt=PROMPT, **fields).json()["data"]
        assert set(item) == {"url"}
        assert item["url"].startswith(f"{server.url}/pictures/")
        server.headers = {}
        answer = server.get(item["url"].removeprefix(server.url))
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        assert len(item["url"].rpartition("/")[2]) > 32
        server.headers = {"Authorization": f"Bearer {TOKEN}"}


def test_models(server: Running, client: Any) -> None:
    assert [each.id for each in client.models.list()] == ["auto", "turbo@1", "turbo@2", "base@4", "base@8"]
    assert client.models.retrieve("auto").owned_by == "costroute-rt"
    assert server.get("/v1/models/dall-e-3").error["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x", "n": 11}, "n"),
        ({"prompt": "x", "n": "many"}, "n"),
        ({"prompt": "x", "size": "big"}, "size"),
        ({"prompt": "x", "size": "0x512"}, "size"),
        ({"prompt": "x", "background": "transparent"}, "background"),
        ({"prompt": "x", "output_format": "gif"}, "output_format"),
        ({"prompt": "x", "response_format": "file"}, "response_format"),
        ({"prompt": "x", "stream": "perhaps"}, "stream"),
        ({"prompt": "x", "max_ms": -5}, "max_ms"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(server: Running, fields: dict[str, Any], param: str) -> None:
    answer = server.post("/v1/images/generations", **fields)
    assert (answer.status, answer.error["param"], answer.error["type"]) == (400, param, "invalid_request_error")


def test_openais_client_generates(client: Any) -> None:
    found = client.images.generate(
        prompt=PROMPT, model="gpt-image-1", size="auto", quality="auto", extra_body={"max_ms": 60_000, "seed": 3}
    )
    assert opened(found.data[0].b64_json).format == "PNG"
    assert found.costroute["candidate"] == "base@8"
    assert client.images.generate(prompt=PROMPT, model="dall-e-2").data[0].url.startswith("http://127.0.0.1:")


def test_openais_client_streams(client: Any) -> None:
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=2, extra_body={"seed": 3}))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert opened(events[0].b64_json).size == opened(events[2].b64_json).size
    assert [event.step for event in events[:2]] == [3, 6]
    assert events[0].ms_to_go > events[1].ms_to_go > events[2].ms_to_go == 0
    assert events[2].usage.total_tokens == 0
    whole = client.images.generate(prompt=PROMPT, extra_body={"seed": 3})
    assert opened(whole.data[0].b64_json).tobytes() == opened(events[2].b64_json).tobytes()
    assert [event.type for event in client.images.generate(prompt=PROMPT, stream=True)] == ["image_generation.completed"]


def test_a_refusal_reaches_openais_client_as_one_request(server: Running, client: Any) -> None:
    import openai

    for stream in (False, True):
        before = requests_of(server)
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.images.generate(prompt=PROMPT, stream=stream, extra_body={"max_ms": 5})
        assert (caught.value.code, caught.value.param) == ("max_ms_too_small", "max_ms")
        assert requests_of(server) == before + 1


def requests_of(server: Running) -> int:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("costroute_requests_total") and "generations" in line)


def test_a_full_queue_reaches_openais_client_as_one_request_with_a_budget(serve: Serve, device: FakeDevice) -> None:
    openai = pytest.importorskip("openai", reason="asks by OpenAI's client: pip install openai")
    server = serve(limits=Limits(waiting=0))
    gate = Gate(device, "turbo/step")
    server.post("/v1/jobs", prompt=PROMPT, candidate="turbo@2")
    assert gate.reached.wait(60)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN) as client, pytest.raises(openai.RateLimitError) as caught:
        client.images.generate(prompt=PROMPT, extra_body={"max_ms": 60_000})
    assert caught.value.code == "queue_full"
    assert requests_of(server) == 1
    answer = server.post("/v1/images/generations", prompt=PROMPT)
    assert answer.status == 429
    assert int(answer.headers["retry-after-ms"]) >= 1
    assert "x-should-retry" not in answer.headers
    gate.open()


def test_openais_client_edits(image_server: Running) -> None:
    openai = pytest.importorskip("openai", reason="asks by OpenAI's client: pip install openai")
    alpha = np.full((64, 64), 255, dtype=np.uint8)
    alpha[:, :32] = 0
    mask = Image.fromarray(np.dstack([np.zeros((64, 64, 3), dtype=np.uint8), alpha]))
    with openai.OpenAI(base_url=f"{image_server.url}/v1", api_key=TOKEN) as client:
        one = client.images.edit(image=png(), mask=png(mask), prompt=PROMPT, n=1, size="auto", extra_body={"max_ms": 60_000, "seed": 3})
        two = client.images.edit(image=[png(), png()], prompt=PROMPT, extra_body={"strength": 0.5})
        events = list(client.images.edit(image=png(), prompt=PROMPT, stream=True, partial_images=1))
    settings = read_settings(base64.b64decode(one.data[0].b64_json))
    assert (settings["seed"], settings["strength"], bool(settings["mask_sha256"])) == (3, 1.0, True)
    kept = np.asarray(opened(one.data[0].b64_json).convert("RGB"))
    assert (kept[:, kept.shape[1] // 2 + 4 :] == (255, 0, 0)).all()
    assert "first of 2" in two.costroute["notes"][0]
    assert read_settings(base64.b64decode(two.data[0].b64_json))["strength"] == 0.5
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


def test_forms_have_numbers_as_texts(image_server: Running) -> None:
    answer = post_form(
        image_server, [("image[]", png()), ("prompt", PROMPT), ("n", "2"), ("max_ms", "60000.5"), ("stream", "false"), ("seed", "")]
    )
    assert answer.status == 200, answer.body
    assert len(answer.json()["data"]) == 2
    assert answer.json()["costroute"]["max_ms"] == 60000.5


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ([("prompt", PROMPT)], "missing_image", "image"),
        ([("image", "/etc/passwd"), ("prompt", PROMPT)], "missing_image", "image"),
        ([("image", b"no image"), ("prompt", PROMPT)], "invalid_value", "image"),
        ([("image", png()), ("mask", b"no mask"), ("prompt", PROMPT)], "invalid_value", "mask"),
        ([("image", png())], "invalid_prompt", "prompt"),
        ([("image", png()), ("prompt", PROMPT), ("n", "1e99")], "invalid_value", "n"),
        ([("image", png()), ("prompt", PROMPT), ("n", "x" * 100)], "invalid_value", "n"),
        ([("image", b"a")] * 18, "invalid_form", None),
        ([("field", "a")] * 101, "invalid_form", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_forms_that_are_wrong(image_server: Running, parts: list[tuple[str, Any]], code: str, param: str | None) -> None:
    answer = post_form(image_server, parts)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param), answer.body


def test_a_model_that_cannot_begin_with_images(server: Running) -> None:
    answer = post_form(server, [("image", png()), ("prompt", PROMPT)])
    assert answer.status in (400, 500)
    assert answer.error["message"]


def test_a_client_that_leaves_ends_its_request_after_the_row_that_runs(server: Running, device: FakeDevice) -> None:
    for path, stream in (("/v1/images/generations", False), ("/v1/images/generations", True)):
        gate = Gate(device, "base/guided_step", after=1)
        calls = device.engines["tiny/base/guided_step"].calls
        body = json.dumps({"prompt": PROMPT, "model": "base@8", "stream": stream}).encode()
        connection = server.open_socket()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert gate.reached.wait(60)
        connection.close()
        server.wait_for(lambda: all(work.is_left for work in server.service.board.active()), "the departure")
        gate.open()
        server.wait_for(lambda: not server.service.board.active(), "the end")
        assert device.engines["tiny/base/guided_step"].calls == calls + 2
        device.on_call.clear()


def test_a_stream_that_fails_says_so(server: Running, device: FakeDevice) -> None:
    openai = pytest.importorskip("openai", reason="asks by OpenAI's client: pip install openai")
    gate = Gate(device, "base/guided_step", after=6)
    found = list[Any]()

    def read() -> None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN) as client:
            try:
                found.extend(client.images.generate(prompt=PROMPT, model="base@8", stream=True, partial_images=1))
            except openai.APIError as error:
                found.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    assert gate.reached.wait(60)
    (work,) = server.service.board.active()
    work.cancel()
    gate.open()
    reading.join(60)
    assert found[0].type == "image_generation.partial_image"
    assert found[1].code == "cancelled"


def test_a_budget_counts_from_the_first_byte(server: Running) -> None:
    body = json.dumps({"prompt": PROMPT, "max_ms": 150}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
    with server.open_socket() as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        time.sleep(0.3)
        connection.sendall(body[-1:])
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
    assert answer.startswith("HTTP/1.1 422")
    assert "max_ms_too_small" in answer
