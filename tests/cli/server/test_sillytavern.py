"""SillyTavern's requests for images, as its server sends them, and what it reads of the answers.

Its sources "Stable Diffusion Web UI" and "stable-diffusion.cpp" (src/endpoints/stable-diffusion.js and the extension of that name).
"""

from __future__ import annotations

import base64
import io
import json
import threading
from typing import Any

import pytest
from PIL import Image

from tests.cli.server.conftest import TOKEN, Gate, Running
from tests.cli.server.test_guard import basic
from tests.runtime.fakes import FakeDevice

PROMPT = "a red house by a lake"
AUTH = f"tavern:{TOKEN}"
NODE_FETCH = {
    "User-Agent": "node-fetch (+https://github.com/node-fetch/node-fetch)",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br",
}
TAVERN = {**NODE_FETCH, **basic("tavern", TOKEN)}


@pytest.fixture
def tavern(server: Running) -> Running:
    server.headers = TAVERN
    return server


def payload(server: Running, **fields: Any) -> dict[str, Any]:
    """What its server passes on of the page's request, address and password of the web UI among it."""
    return {
        "url": f"{server.url}/",
        "auth": AUTH,
        "prompt": PROMPT,
        "negative_prompt": "fog",
        "sampler_name": "DDIM",
        "scheduler": "normal",
        "steps": 20,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 1,
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
        **fields,
    }


def draw(server: Running, **fields: Any) -> dict[str, Any]:
    """`info` of an image that it can show: `images[0]` is the base64 of a PNG."""
    answer = server.ask("POST", "/sdapi/v1/txt2img", payload(server, **fields))
    assert answer.status == 200, answer.body
    found = answer.json()
    with Image.open(io.BytesIO(base64.b64decode(found["images"][0], validate=True))) as image:
        assert image.format == "PNG"
    return dict(json.loads(found["info"]))


def test_connects_and_lists_what_there_is(tavern: Running) -> None:
    assert tavern.get("/sdapi/v1/options").status == 200
    names = {path: [each["name"] for each in tavern.get(f"/sdapi/v1/{path}").json()] for path in ("upscalers", "latent-upscale-modes")}
    assert names == {"upscalers": ["None"], "latent-upscale-modes": ["Latent"]}
    for path in ("sd-vae", "sd-modules"):
        assert [each["model_name"] for each in tavern.get(f"/sdapi/v1/{path}").json()] == []
    assert "DDIM" in [each["name"] for each in tavern.get("/sdapi/v1/samplers").json()]
    assert "karras" in [each["name"] for each in tavern.get("/sdapi/v1/schedulers").json()]
    assert [each["title"] for each in tavern.get("/sdapi/v1/sd-models").json()] == ["auto", "turbo@1", "turbo@2", "base@4", "base@8"]


def test_a_model_is_chosen_once_and_used_from_then_on(tavern: Running) -> None:
    assert draw(tavern)["sd_model_name"] == "base@8"
    assert tavern.post("/sdapi/v1/options", sd_model_checkpoint="turbo@2").status == 200
    progress = tavern.get("/sdapi/v1/progress").json()  # polled until the model is loaded
    assert (progress["progress"], progress["state"]["job_count"]) == (0.0, 0)
    assert tavern.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "turbo@2"
    info = draw(tavern, seed=7)
    assert (info["sd_model_name"], info["seed"], info["negative_prompt"]) == ("turbo@2", 7, "fog")
    assert any("DDIM" in note for note in info["costroute"]["notes"])


def test_options_do_not_claim_to_be_forge(tavern: Running) -> None:
    assert "forge_preset" not in tavern.get("/sdapi/v1/options").json()


def test_an_image_with_high_resolution_fix_is_drawn_without_it(tavern: Running) -> None:
    info = draw(tavern, enable_hr=True, hr_scale=2, hr_second_pass_steps=10)
    assert any("enable_hr" in note for note in info["costroute"]["notes"])


def test_the_password_in_the_body_is_in_no_note(tavern: Running) -> None:
    info = draw(tavern)
    assert TOKEN not in json.dumps(info)


def test_stopping_interrupts_its_own_image(tavern: Running, device: FakeDevice) -> None:
    gate = Gate(device, "base/guided_step", after=3)
    calls = device.engines["tiny/base/guided_step"].calls
    stranger = threading.Thread(target=lambda: tavern.ask("POST", "/sdapi/v1/txt2img", payload(tavern), basic("other", TOKEN)))
    connection = tavern.open_socket()
    body = json.dumps(payload(tavern)).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in TAVERN.items())
    connection.sendall(
        f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: 127.0.0.1:{tavern.port}\r\n{head}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert gate.reached.wait(60)
    stranger.start()
    tavern.wait_for(lambda: len(tavern.service.board.active()) == 2, "the second request")
    mine, other = sorted(tavern.service.board.active(), key=lambda work: work.created)
    mine, other = (mine, other) if mine.last_step else (other, mine)
    assert tavern.ask("POST", "/sdapi/v1/interrupt").status == 200  # then it also closes the connection
    connection.close()
    assert mine.is_cancelled
    assert not other.is_cancelled
    gate.open()
    stranger.join(60)
    assert other.problem is None
    assert device.engines["tiny/base/guided_step"].calls <= calls + 4 + 8


SD_CPP = {
    "prompt": PROMPT,
    "negative_prompt": "fog",
    "width": 512,
    "height": 512,
    "steps": 20,
    "cfg_scale": 7,
    "batch_size": 1,
    "sampler_name": "euler_a",
    "scheduler": "discrete",
    "clip_skip": 2,
}


def test_stable_diffusion_cpp(server: Running) -> None:
    server.headers = NODE_FETCH  # it sends no password: the token is in the address
    base = f"/t/{TOKEN}"
    assert server.ask("OPTIONS", f"{base}/v1/images/generations").status == 204
    assert server.get(f"{base}/v1/models").json()["data"][0]["id"] == "auto"
    for model, candidate in (("turbo@1", "turbo@1"), (None, "base@8")):
        fields = SD_CPP if model is None else {**SD_CPP, "model": model}
        found = server.ask("POST", f"{base}/sdapi/v1/txt2img", fields).json()
        assert base64.b64decode(found["images"][0]).startswith(b"\x89PNG")
        assert json.loads(found["info"])["sd_model_name"] == candidate


def test_whether_an_address_exists_is_told_to_those_who_have_the_token(server: Running) -> None:
    answer = server.ask("OPTIONS", "/v1/images/generations")
    assert (answer.status, answer.body) == (204, b"")
    assert server.ask("OPTIONS", "/v1/nowhere").status == 404
    server.headers = {}
    assert server.ask("OPTIONS", "/v1/images/generations").status == 401
