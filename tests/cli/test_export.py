"""`costroute-rt export`: what it shows, and what it refuses before any work."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from costroute_rt.cli import progress
from costroute_rt.export.bundle.event import ExportEvent
from tests.checkpoints import write_lcm_folder, write_sd2_folder, write_sd15_folder, write_sdxl_folder, write_sdxl_single_file
from tests.cli.conftest import Run

LAYOUTS = {"sd15": write_sd15_folder, "sd2": write_sd2_folder, "sdxl-turbo": write_sdxl_folder, "lcm": write_lcm_folder}
LAYOUTS |= {"sd_xl_turbo.safetensors": write_sdxl_single_file, "xl.ckpt": write_sdxl_single_file}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models."""
    root = tmp_path_factory.mktemp("models")
    for name, write in LAYOUTS.items():
        write(root / name)
    return root


@pytest.mark.parametrize(
    ("name", "family", "kind", "candidates"),
    [
        ("sd15", "sd1", "base", ["sd15@8", "sd15@15", "sd15@25"]),
        ("sd2", "sd2", "base", ["sd2@8", "sd2@15", "sd2@25"]),
        ("sdxl-turbo", "sdxl", "turbo", ["sdxl-turbo@1", "sdxl-turbo@2", "sdxl-turbo@4"]),
        ("lcm", "sd1", "lcm", ["lcm@4", "lcm@8"]),
        ("sd_xl_turbo.safetensors", "sdxl", "turbo", ["sd-xl-turbo@1", "sd-xl-turbo@2", "sd-xl-turbo@4"]),
    ],
)
def test_a_dry_run_shows_what_would_be_made(models: Path, run: Run, name: str, family: str, kind: str, candidates: list[str]) -> None:
    began_s = time.process_time()
    done = run("export", models / name, "-o", "out.bundle", "--dry-run", "--json")
    assert time.process_time() - began_s < 2
    plan = json.loads(done.stdout)
    assert (plan["family"], plan["kind"], [row["name"] for row in plan["pool"]]) == (family, kind, candidates)
    assert plan["sizes"] == ([[512, 512]] if name == "sd_xl_turbo.safetensors" else [[64, 64]])
    assert plan["written_bytes"] == 0
    assert plan["linked_bytes"] == sum(network["bytes"] for network in plan["networks"].values())
    assert not list(Path().iterdir())


def test_a_dry_run_in_words_names_files_candidates_and_room(models: Path, run: Run) -> None:
    done = run("export", models / "sd15", "-o", "out.bundle", "--dry-run", "--copy", "--steps", "6,3", "--size", "64x128", "--kind", "lcm")
    assert "unet          UNet2DConditionModel  1.6 MB   diffusion_pytorch_model.safetensors" in done.stdout
    assert "Stable Diffusion 1.x, 64x128 pixels" in done.stdout
    assert [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("sd15@")] == [
        ["sd15@3", "3", "LCM"],
        ["sd15@6", "6", "LCM"],
    ]
    assert done.stdout.endswith("out.bundle would be written: 0 B of weights linked, 3.3 MB copied\n")


def test_int8_weights_are_candidates_of_their_own(models: Path, run: Run) -> None:
    plain, other = (
        json.loads(run("export", models / "lcm", "-o", "out.bundle", "--dry-run", "--json", *more).stdout) for more in ((), ("--int8",))
    )
    assert [(row["name"], row["denoiser"]) for row in other["pool"][2:]] == [("lcm-int8@4", "unet-int8"), ("lcm-int8@8", "unet-int8")]
    assert other["pool"][:2] == plain["pool"]
    assert 0 < other["written_bytes"] < plain["networks"]["unet"]["bytes"] / 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("missing",), 4, "missing: it does not exist"),
        (("nobody/nothing", "--offline"), 4, "does not hold all of it, and the network may not be used"),
        (("xl.ckpt",), 4, "it is a pickle of torch"),
        (("sd15", "--size", "512"), 2, "size is '512': expected height and width in pixels, such as 512x768"),
        (("sd15", "--size", "60x64"), 2, "size is '60x64': expected multiples of 8 up to 4096"),
        (("sd15", "--steps", "4,0"), 2, "0 is not in the range 1<=x<=1000"),
        (("sd15", "--lora", "missing.safetensors"), 4, "missing.safetensors: "),
        (("sd15", "--lora", "sd15/unet/diffusion_pytorch_model.safetensors:0.5"), 4, "not a LoRA"),
        (("sd15", "--embedding", "EasyNegative=missing.pt"), 4, "missing.pt: "),
        (("sd15", "--vae", "sd15/unet"), 4, "UNet2DConditionModel"),
        (("sd15", "--kind", "fast"), 2, "'fast' is not one of 'base', 'turbo'"),
        (("sd15/unet",), 4, "it is one part of a diffusers folder; give the whole folder: sd15"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line_before_any_work(
    models: Path, monkeypatch: pytest.MonkeyPatch, run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    if "--offline" in arguments:
        pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(models / "cache"))
    monkeypatch.chdir(models)
    began_s = time.process_time()
    done = run("export", *arguments, "-o", "out.bundle")
    assert time.process_time() - began_s < 2
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (models / "out.bundle").exists()


def test_a_terminal_shows_a_bar_and_a_pipe_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    events = [ExportEvent(part="unet", done=1, total=4), ExportEvent(part="unet", done=1, total=4, share=0.5)]

    def shown() -> str:
        with progress.ExportLine() as line:
            for event in events:
                line(event)
            line.show_download(1 << 20, 4 << 20, "a\x1b[31m.bin")
        return capsys.readouterr().err

    assert shown() == "exporting in 4 parts\n"
    monkeypatch.setattr(progress, "is_on_terminal", lambda: True)
    lines = shown().split("\r")
    assert lines[1].startswith("[#####---------------] 1/4 unet")
    assert lines[2].startswith("[#######-------------] 1/4 unet 50%")
    assert lines[3].startswith("[#####---------------] 25% downloading a\\x1b[31m.bin")
    assert lines[-1] == ""
