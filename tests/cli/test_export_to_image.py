"""From a model to an image by commands alone: export, build-engines, route, gen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from costroute_rt import read_settings
from tests.checkpoints import write_sd15_folder, write_sdxl_single_file
from tests.cli.conftest import Run
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export


@pytest.mark.parametrize(
    ("name", "write", "options", "graphs", "size"),
    [
        ("model", write_sd15_folder, ("--steps", "2,3", "--size", "64x128", "--size", "64x64"), {"condition", "guided_step"}, (128, 64)),
        ("model.safetensors", write_sdxl_single_file, ("--kind", "turbo", "--size", "64x64"), {"condition", "step"}, (64, 64)),
    ],
    ids=["sd1 folder", "sdxl file"],
)
@pytest.mark.usefixtures("home")
def test_a_model_makes_images(
    run: Run, name: str, write: Callable[[Path], Path], options: tuple[str, ...], graphs: set[str], size: tuple[int, int]
) -> None:
    write(Path(name))
    done = run("export", name, "-o", "made.bundle", *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "next: costroute-rt build-engines --bundle made.bundle"
    components = json.loads(Path("made.bundle/manifest.json").read_text())["components"]
    assert components["unet"]["graphs"].keys() == graphs
    assert run("export", name, "-o", "made.bundle", *options).stdout.startswith("made.bundle is up to date")

    assert run("build-engines", "--bundle", "made.bundle").exit_code == 0
    routed = run("route", "a red fox", "--bundle", "made.bundle")
    assert "not measured: there is no router" in routed.stdout
    prompt = "a (red:1.3) fox in the snow, " * 12  # more than one chunk
    made = run("gen", prompt, "--negative-prompt", "blurry", "--bundle", "made.bundle", "-o", "fox.png", "--seed", "3")
    assert made.exit_code == 0, made.output
    with Image.open("fox.png") as image:
        assert image.size == size
        assert len(image.getcolors(1 << 20) or ()) > 100
    assert read_settings("fox.png")["candidate"].startswith("model@")
