"""From a model to an image by commands alone: export, build-engines, route, gen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from costroute_rt import read_settings
from tests.checkpoints import write_sd15_folder, write_sdxl_single_file
from tests.cli.conftest import Run
from tests.export.checkpoint.source.test_decoders import tiny_tensors, write_tiny_folder
from tests.export.small_checkpoint import needs_export
from tests.tensor_file import write_safetensors

pytestmark = needs_export

FIRST = ("--steps", "2,3", "--size", "64x128", "--any-size")
ADDITIONS = ("--lora", "style.safetensors:0.8", "--embedding", "Easy=words.safetensors", "--tiny-decoder", "taesd")
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def write_additions() -> None:
    """A LoRA of one layer, a textual inversion of two vectors, and a small decoder, for the tiny model of Stable Diffusion 1.5."""
    random = np.random.default_rng(0).standard_normal
    factors = {f"{LAYER}.lora_A.weight": random((2, 32), np.float32), f"{LAYER}.lora_B.weight": random((32, 2), np.float32)}
    write_safetensors(Path("style.safetensors"), factors)
    write_safetensors(Path("words.safetensors"), {"emb_params": random((2, 32), np.float32)})
    write_tiny_folder(Path("taesd"), tiny_tensors())


@pytest.mark.parametrize(
    ("name", "write", "options", "graphs", "size"),
    [
        ("model", write_sd15_folder, (*FIRST, *ADDITIONS), {"condition", "guided_step"}, (72, 96)),
        ("model.safetensors", write_sdxl_single_file, ("--kind", "turbo", "--size", "64x64"), {"condition", "step"}, (64, 64)),
    ],
    ids=["sd1 folder", "sdxl file"],
)
@pytest.mark.usefixtures("home")
def test_a_model_makes_images(
    run: Run, name: str, write: Callable[[Path], Path], options: tuple[str, ...], graphs: set[str], size: tuple[int, int]
) -> None:
    write(Path(name))
    write_additions()
    done = run("export", name, "-o", "made.bundle", *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "next: costroute-rt build-engines --bundle made.bundle"
    components = json.loads(Path("made.bundle/manifest.json").read_text())["components"]
    assert components["unet"]["graphs"].keys() == graphs
    assert run("export", name, "-o", "made.bundle", *options).stdout.startswith("made.bundle is up to date")

    assert run("build-engines", "--bundle", "made.bundle").exit_code == 0
    routed = run("route", "a red fox", "--bundle", "made.bundle")
    assert "not measured: there is no router" in routed.stdout
    prompt = "Easy, a (red:1.3) fox in the snow, " * 12  # more than one chunk
    sides = ("--width", size[0], "--height", size[1])
    made = run("gen", prompt, "--negative-prompt", "blurry", "--bundle", "made.bundle", "-o", "fox.png", "--seed", "3", *sides)
    assert made.exit_code == 0, made.output
    with Image.open("fox.png") as image:
        assert image.size == size
        assert len(image.getcolors(1 << 20) or ()) > 100
    assert read_settings("fox.png")["candidate"].startswith("model@")


def test_additions_change_the_weights_that_they_are_about(run: Run) -> None:
    write_sd15_folder(Path("model"))
    write_additions()
    plan = json.loads(run("export", "model", "-o", "made.bundle", *ADDITIONS, "--dry-run", "--json").stdout)
    assert plan["networks"]["tiny"]["class"] == "AutoencoderTiny"
    assert plan["written_bytes"] == 2 * 32 * 32
    assert [row["name"] for row in plan["pool"]][:2] == ["model@8-tiny", "model@8"]
