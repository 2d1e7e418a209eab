"""AUTOMATIC1111's web API: the requests that clients really send, and webuiapi."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from costroute_rt import read_settings
from tests.cli.server.conftest import TOKEN, Gate, Running, Serve
from tests.cli.server.test_guard import basic
from tests.runtime.fakes import FakeDevice, open_fake_runtime

PROMPT = "a red house by a lake"


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    webuiapi = pytest.importorskip("webuiapi", reason="asks by webuiapi: pip install webuiapi")
    found = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, username="me", password=TOKEN)
    yield found
    found.session.close()


def in_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_librechat(server: Running) -> None:
    server.headers = {}
    sent = {"prompt": PROMPT, "negative_prompt": "", "cfg_scale": 4.5, "steps": 22, "width": 1024, "height": 1024}
    found = server.ask("POST", f"/t/{TOKEN}/sdapi/v1/txt2img", sent).json()
    info = json.loads(found["info"])
    assert info["infotexts"][0].startswith(PROMPT)
    assert (info["width"], info["height"]) == opened(found["images"][0]).size
    assert info["costroute"]["candidate"] == "base@8"
    assert any("1024x1024" in note for note in info["costroute"]["notes"])
    assert isinstance(info["seed"], int)


def test_a_budget_for_clients_that_cannot_send_one(serve: Serve) -> None:
    server = serve(max_ms=100.0)
    info = json.loads(server.post("/sdapi/v1/txt2img", prompt=PROMPT, steps=20, sampler_index="Euler a", cfg_scale=7).json()["info"])
    assert (info["costroute"]["max_ms"], info["costroute"]["candidate"]) == (100.0, "turbo@2")
    assert info["steps"] == 2
    refused = serve(max_ms=5.0).post("/sdapi/v1/txt2img", prompt=PROMPT)
    assert (refused.status, refused.error["code"]) == (422, "max_ms_too_small")


def test_webuiapi_makes_images(client: Any) -> None:
    found = client.txt2img(prompt=PROMPT, seed=7, batch_size=2)
    assert [image.format for image in found.images] == ["PNG", "PNG"]
    assert (found.info["seed"], found.info["all_seeds"]) == (7, [7, 8])
    assert found.info["costroute"]["notes"][0] == "no candidate takes the size 512x512, so the usual one was used"
    assert not any("ignored" in note for note in found.info["costroute"]["notes"])
    assert client.util_get_model_names() == ["auto", "base@4", "base@8", "turbo@1", "turbo@2"]
    assert client.get_options()["sd_model_checkpoint"] == "auto"
    client.util_set_model("turbo@1")
    assert client.txt2img(prompt=PROMPT).info["sd_model_name"] == "turbo@1"
    client.util_wait_for_ready()
    assert client.png_info(found.image).info.startswith(PROMPT)
    assert client.get_scripts() == {"txt2img": [], "img2img": []}
    for name in (
        "cmd_flags",
        "memory",
        "samplers",
        "schedulers",
        "sd_vae",
        "upscalers",
        "loras",
        "embeddings",
        "hypernetworks",
        "face_restorers",
    ):
        getattr(client, f"get_{name}")()


def test_webuiapi_begins_with_an_image(serve: Serve, bundle: Any) -> None:
    webuiapi = pytest.importorskip("webuiapi", reason="asks by webuiapi: pip install webuiapi")
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    server = serve(device.runtime)
    client = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, username="me", password=TOKEN)
    red, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    found = client.img2img(images=[red], prompt=PROMPT, mask_image=mask, denoising_strength=1.0)
    pixels = np.asarray(found.image.convert("RGB"))
    assert (pixels[:, pixels.shape[1] // 2 + 4 :] == (255, 0, 0)).all()
    inverted = client.img2img(images=[red], prompt=PROMPT, mask_image=mask, denoising_strength=1.0, inpainting_mask_invert=1)
    pixels = np.asarray(inverted.image.convert("RGB"))
    assert (pixels[:, : pixels.shape[1] // 2 - 4] == (255, 0, 0)).all()
    assert inverted.info["denoising_strength"] == 1.0
    client.session.close()
    device.runtime.close()


def test_progress_and_interruption_are_the_callers_own(server: Running, device: FakeDevice, client: Any) -> None:
    gate = Gate(device, "base/guided_step", after=3)
    found = list[Any]()
    drawing = threading.Thread(target=lambda: found.append(client.txt2img(prompt=PROMPT, sampler_name="Euler a")))
    drawing.start()
    assert gate.reached.wait(60)
    server.wait_for(lambda: server.service.board.active()[0].progress > 0.3, "the third step")
    other, mine = basic("other", TOKEN), {**basic("me", TOKEN), "User-Agent": client.session.headers["User-Agent"]}
    assert server.get("/sdapi/v1/progress", **other).json()["state"]["job_count"] == 0
    progress = server.get("/sdapi/v1/progress", **mine).json()
    assert progress["progress"] == pytest.approx(3 / 8)
    assert progress["eta_relative"] >= 0
    assert (progress["state"]["sampling_step"], progress["state"]["sampling_steps"]) == (3, 8)
    assert opened(progress["current_image"]).format == "PNG"
    assert server.get("/sdapi/v1/progress?skip_current_image=true", **mine).json()["current_image"] is None
    server.ask("POST", "/sdapi/v1/interrupt", headers=other)
    assert not server.service.board.active()[0].is_cancelled
    server.ask("POST", "/sdapi/v1/interrupt", headers=mine)
    assert server.get("/sdapi/v1/progress", **mine).json()["state"]["interrupted"] is True
    gate.open()
    drawing.join(60)
    assert found[0].image.size == opened(progress["current_image"]).size
    assert found[0].info["interrupted"] is True
    assert device.engines["tiny/base/guided_step"].calls <= 8


def test_progress_of_a_named_task(server: Running, device: FakeDevice) -> None:
    gate = Gate(device, "turbo/step")
    sent = {"prompt": PROMPT, "model": "turbo@2", "force_task_id": "task 1"}
    drawing = threading.Thread(target=lambda: server.ask("POST", "/sdapi/v1/txt2img", sent, basic("one", TOKEN)))
    drawing.start()
    assert gate.reached.wait(60)
    assert server.get("/sdapi/v1/progress?id_task=task+1", **basic("two", TOKEN)).json()["state"]["job"] == "task 1"
    gate.open()
    drawing.join(60)


def test_a_named_model_takes_the_sampler_that_is_named_with_it(server: Running) -> None:
    def sampler(**fields: Any) -> str:
        return str(json.loads(server.post("/sdapi/v1/txt2img", prompt=PROMPT, **fields).json()["info"])["sampler_name"])

    assert sampler(model="turbo@2", sampler_name="Heun", scheduler="automatic") == "flow_heun"
    assert sampler(model="turbo@2", sampler_name="Euler a") == sampler(model="turbo@2")
    assert sampler(sampler_name="Heun") == sampler(model="turbo@2")


def test_settings_that_another_program_wrote(server: Running) -> None:
    chunks = PngInfo()
    chunks.add_text("parameters", "a cat\nSteps: 20")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
    text = base64.b64encode(buffer.getvalue()).decode()
    assert server.post("/sdapi/v1/png-info", image=f"data:image/png;base64,{text}").json()["info"] == "a cat\nSteps: 20"
    assert server.post("/sdapi/v1/png-info", image=in_base64(Image.new("RGB", (8, 8)))).json()["info"] == ""
    assert server.post("/sdapi/v1/png-info", image="AAAA").json()["info"] == ""


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("txt2img", {"prompt": ""}, "prompt"),
        ("txt2img", {"prompt": "x", "batch_size": 4, "n_iter": 3}, "batch_size"),
        ("txt2img", {"prompt": "x", "seed": -2}, "seed"),
        ("txt2img", {"prompt": "x", "width": 0}, "width"),
        ("img2img", {"prompt": "x"}, "init_images"),
        ("img2img", {"prompt": "x", "init_images": []}, "init_images"),
        ("img2img", {"prompt": "x", "init_images": ["/etc/passwd"]}, "init_images"),
        ("img2img", {"prompt": "x", "init_images": [5]}, "init_images"),
        ("img2img", {"prompt": "x", "init_images": ["AAAA"]}, "init_images"),
        ("png-info", {}, "image"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(server: Running, path: str, fields: dict[str, Any], param: str) -> None:
    answer = server.ask("POST", f"/sdapi/v1/{path}", fields)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_the_image_says_how_it_was_made(server: Running) -> None:
    found = server.post("/sdapi/v1/txt2img", prompt=PROMPT, seed=3, model="turbo@1").json()
    assert read_settings(base64.b64decode(found["images"][0]))["seed"] == 3
