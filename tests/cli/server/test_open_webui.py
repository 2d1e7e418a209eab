"""Open WebUI's requests for images, as its server sends them with aiohttp, and what it reads of the answers.

Its engines `openai` and `automatic1111` (backend/open_webui/routers/images.py, summer of 2026); the third, ComfyUI, is out of reach.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import uuid
from collections.abc import Coroutine
from typing import Any

import pytest
from PIL import Image

from costroute_rt.engines.bundle.bundle import Bundle
from tests.cli.server.conftest import TOKEN, Running, Serve
from tests.runtime.fakes import open_fake_runtime

aiohttp = pytest.importorskip("aiohttp", reason="asks as Open WebUI does: pip install aiohttp")

PROMPT = "a red house by a lake"
OPENAI = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
A1111 = {"authorization": f"Basic {base64.b64encode(f'webui:{TOKEN}'.encode()).decode()}"}
NO_TOKEN = {"authorization": "Basic "}
"""Sent when no user and password are entered."""


def ask(method: str, url: str, **options: Any) -> Any:
    """The answer as JSON; raises as Open WebUI does where the status is an error."""

    async def run() -> Any:
        async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
            answer.raise_for_status()
            return await answer.json(content_type=None)

    return finish(run())


def fetch(url: str, headers: dict[str, str]) -> tuple[str, bytes]:
    """Type and bytes of what an address has."""

    async def run() -> tuple[str, bytes]:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            answer.raise_for_status()
            return answer.headers["content-type"], await answer.read()

    return finish(run())


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def kind_of(data: bytes) -> str | None:
    with Image.open(io.BytesIO(data)) as image:
        return image.format


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "dall-e-2", "n": 1, "size": "512x512", "response_format": "b64_json"},
        {"model": "gpt-image-1", "n": 1, "size": "auto"},
        {"model": "dall-e-3", "n": 2, "response_format": "b64_json", "max_ms": 60_000, "seed": 3},
    ],
    ids=lambda fields: fields["model"],
)
def test_openai_engine(server: Running, fields: dict[str, Any]) -> None:
    url = f"{server.url}/v1/images/generations?api-version=2025-04-01"
    found = ask("POST", url, json={"prompt": PROMPT, **fields}, headers=OPENAI)
    assert len(found["data"]) == fields["n"]
    for image in found["data"]:
        assert image.get("url", None) is None
        assert kind_of(base64.b64decode(image["b64_json"])) == "PNG"
    assert found["costroute"]["max_ms"] == fields.get("max_ms")


def test_openai_engine_with_addresses(server: Running) -> None:
    fields = {"model": "dall-e-2", "prompt": PROMPT, "n": 1, "response_format": "url"}
    (image,) = ask("POST", f"{server.url}/v1/images/generations", json=fields, headers=OPENAI)["data"]
    kind, data = fetch(image["url"], {"Authorization": OPENAI["Authorization"]})
    assert (kind, kind_of(data)) == ("image/png", "PNG")


@pytest.mark.parametrize("count", [1, 2])
def test_openai_engine_edits(serve: Serve, bundle: Bundle, count: int) -> None:
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    server = serve(device.runtime)
    form = aiohttp.FormData()
    fields = {"model": "dall-e-2", "prompt": PROMPT, "n": 1, "size": "1024x1024", "background": "auto", "response_format": "b64_json"}
    for name, value in fields.items():
        form.add_field(name, str(value))
    for _ in range(count):
        name = "image" if count == 1 else "image[]"
        form.add_field(name, io.BytesIO(png()), filename=f"{uuid.uuid4()}.png", content_type="image/png")
    headers = {"Authorization": OPENAI["Authorization"]}
    found = ask("POST", f"{server.url}/v1/images/edits", data=form, headers=headers)
    assert kind_of(base64.b64decode(found["data"][0]["b64_json"])) == "PNG"
    device.runtime.close()


def test_openai_engine_refused(server: Running) -> None:
    fields = {"model": "dall-e-2", "prompt": PROMPT, "n": 1, "response_format": "b64_json", "max_ms": 5}
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        ask("POST", f"{server.url}/v1/images/generations", json=fields, headers=OPENAI)
    assert (caught.value.status, caught.value.message) == (422, "Unprocessable Entity")


@pytest.mark.parametrize("is_in_path", [False, True], ids=["password", "path"])
def test_automatic1111_engine(server: Running, is_in_path: bool) -> None:
    base, headers = (f"{server.url}/t/{TOKEN}", NO_TOKEN) if is_in_path else (server.url, A1111)
    assert ask("GET", f"{base}/sdapi/v1/options", headers=headers)["sd_model_checkpoint"] == "auto"
    models = [(each["title"], each["model_name"]) for each in ask("GET", f"{base}/sdapi/v1/sd-models", headers=headers)]
    assert models == [(name, name) for name in ("auto", "turbo@1", "turbo@2", "base@4", "base@8")]

    def draw(**fields: Any) -> dict[str, Any]:
        sent = {"prompt": PROMPT, "batch_size": 1, "width": 512, "height": 512, "steps": 50, **fields}
        found = ask("POST", f"{base}/sdapi/v1/txt2img", json=sent, headers=headers)
        assert [kind_of(base64.b64decode(image)) for image in found["images"]] == ["PNG"] * sent["batch_size"]
        return dict(json.loads(found["info"]))

    own = draw(negative_prompt="fog", cfg_scale=7, sampler_name="DPM++ 2M", scheduler="Karras", max_ms=60_000)
    assert (own["sd_model_name"], own["steps"], own["costroute"]["max_ms"]) == ("base@8", 8, 60_000)
    assert own["negative_prompt"] == "fog"
    options = ask("GET", f"{base}/sdapi/v1/options", headers=headers)
    options["sd_model_checkpoint"] = "turbo@1"
    ask("POST", f"{base}/sdapi/v1/options", json=options, headers=headers)
    assert ask("GET", f"{base}/sdapi/v1/options", headers=headers)["sd_model_checkpoint"] == "turbo@1"
    assert draw(batch_size=2)["sd_model_name"] == "turbo@1"


def test_a_wrong_password_is_seen_when_the_address_is_checked(server: Running) -> None:
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        ask("GET", f"{server.url}/sdapi/v1/options", headers=NO_TOKEN)
    assert caught.value.status == 401
