"""`--init-image`, `--strength` and `--mask`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from costroute_rt import read_settings
from tests.cli.conftest import Run

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def own_home(built_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the built engines, to which others are added."""
    monkeypatch.setenv("COSTROUTE_HOME", str(shutil.copytree(built_home, tmp_path / "own")))


@pytest.fixture
def images(run: Run) -> None:
    """fox.png, and mask.png whose left half is white."""
    Image.fromarray(PIXELS).save("fox.png")
    Image.fromarray(np.repeat([[255, 0]], 2, axis=0).astype(np.uint8)).save("mask.png")


@pytest.mark.usefixtures("own_home", "images")
def test_gen_builds_what_it_needs_and_keeps_the_pixels_outside_the_mask(run: Run, tiny_bundle: Path) -> None:
    bundle = ("--bundle", tiny_bundle)
    missing = run("gen", "a lake", "--init-image", "fox.png", "--no-build", "-o", "a.png", *bundle)
    assert missing.exit_code == 5
    assert "tiny/vae/encode: no engine encodes initial images" in missing.stderr
    assert "costroute-rt build-engines --bundle" in missing.stderr
    assert missing.stderr.endswith("--init-images)\n")
    done = run("gen", "a lake", "--init-image", "fox.png", "--mask", "mask.png", "--seed", 1, "-o", "a.png", *bundle)
    assert done.exit_code == 0, done.stderr
    with Image.open("a.png") as image:
        np.testing.assert_array_equal(np.asarray(image)[:, 32:], PIXELS[:, 32:])
    assert read_settings("a.png")["strength"] == 1.0
    info = run("info", "a.png").stdout
    assert "--strength 1.0" in info
    assert "note: add --init-image and --mask" in info
    planned = run("build-engines", "--init-images", "--dry-run", *bundle).stdout
    assert "tiny/vae/encode" in planned
    assert "tiny/vae/encode" not in run("build-engines", "--dry-run", *bundle).stdout
    route = json.loads(run("route", "a lake", "--init-image", "fox.png", "--strength", 0.3, "--json", *bundle).stdout)
    assert [option["candidate"] for option in route["options"]] == ["tiny-base@4", "tiny-base@8"]
    assert route["unfit"]["tiny-turbo@2"] == "strength is 0.3: expected 0.5 or more, for one of 2 steps"


@pytest.mark.usefixtures("own_home", "images")
def test_a_run_over_a_file_resumes_by_image_strength_and_mask(run: Run, tiny_bundle: Path) -> None:
    Path("lines.txt").write_text("a lake\n")

    def made(*options: object) -> int:
        done = run("gen", "--bundle", tiny_bundle, "--prompts", "lines.txt", "-o", "out", *options)
        assert done.exit_code == 0, done.stderr
        return done.stdout.count("seed")

    begin = ("--init-image", "fox.png")
    assert [made(), made(), made(*begin), made(*begin), made(*begin, "--strength", 0.8), made(*begin, "--strength", 0.5)] == [
        1,
        0,
        1,
        0,
        0,
        1,
    ]
    assert [made(*begin, "--mask", "mask.png"), made(*begin, "--mask", "mask.png"), made()] == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--strength", 0.5), "strength is 0.5: expected None without an init_image"),
        (("--mask", "mask.png"), "mask is 'mask.png': expected None without an init_image"),
        (("--init-image", "none.png"), "init_image is 'none.png': expected an image"),
        (("--init-image", "lines.txt"), "another format"),
        (("--init-image", "fox.png", "--strength", 0), "0<x<=1"),
        (("--init-image", "fox.png", "--strength", "nan"), "not a number"),
    ],
)
@pytest.mark.usefixtures("images")
def test_what_cannot_be_used_is_refused_before_any_work(gen: Run, options: tuple[object, ...], problem: str) -> None:
    Path("lines.txt").write_text("a lake\n")
    done = gen("a lake", *options, "-o", "a.png")
    assert done.exit_code == 2
    assert problem in done.stderr
    assert not Path("a.png").exists()
