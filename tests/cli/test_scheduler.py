"""--scheduler: another scheduler than the candidate's, kept in the settings and wanted again when a run resumes."""

from __future__ import annotations

import json
from pathlib import Path

from costroute_rt.cli.info import reproduce
from costroute_rt.image_settings import read_settings
from tests.cli.conftest import Run


def test_an_image_tells_the_scheduler_that_made_it(run: Run, built: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    prompts, folder = tmp_path / "lines.txt", tmp_path / "images"
    prompts.write_text("a lake\n")
    command = ("gen", "--prompts", prompts, "--seed", 3, "-o", f"{folder}/", "--candidate", "tiny-base@4", "--bundle", tiny_bundle)
    assert run(*command, "--scheduler", "DPM++ 2M").exit_code == 0
    (image,) = folder.iterdir()
    settings = read_settings(image)
    assert (settings["scheduler"], settings["requested_scheduler"]) == ("flow_dpmpp_2m", "DPM++ 2M")
    assert "--scheduler 'DPM++ 2M'" in reproduce(settings)
    assert "1 line kept" in run(*command, "--scheduler", "DPM++ 2M").stderr
    assert "1 image made" in run(*command).stderr  # with the candidate's own: another image
    assert read_settings(image)["requested_scheduler"] is None


def test_route_tells_the_scheduler(run: Run, built: Path, tiny_bundle: Path) -> None:
    report = json.loads(run("route", "a lake", "--bundle", tiny_bundle, "--scheduler", "plms", "--json").stdout)
    assert report["scheduler"] == "flow_dpmpp_2m"
    assert "sampled with flow_match_euler" in run("route", "a lake", "--bundle", tiny_bundle).stdout


def test_an_unknown_scheduler_is_one_line(run: Run, built: Path, tiny_bundle: Path) -> None:
    done = run("route", "a lake", "--bundle", tiny_bundle, "--scheduler", "dpm++ 2m karas")
    assert done.exit_code != 0
    assert len(done.stderr.splitlines()) == 1
    assert "scheduler is 'dpm++ 2m karas': expected a name such as 'DPM++ 2M Karras'" in done.stderr
