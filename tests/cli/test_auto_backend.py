"""Commands with `--backend auto`: what they build, use and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.second_backend import BFLOAT16, FLOAT32, USUAL, World, install


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch)


def test_commands_use_and_show_what_was_fastest(run: Run, world: World, tiny_bundle: Path) -> None:
    asked = ("--bundle", tiny_bundle, "--threads", 1)
    first = run("gen", "a lake", *asked, "--candidate", "tiny-turbo@1", "-o", "a.png", "--json")
    assert json.loads(first.stdout)["settings"]["backend"] == "onnxruntime"
    command = f"costroute-rt build-engines --bundle {tiny_bundle}"
    note = f"note: runs on {USUAL}: it was not compared with openvino yet ({command} compares them once)"
    assert note in first.stderr.splitlines()

    plans = json.loads(run("build-engines", *asked, "--dry-run", "--json").stdout)["sets"]
    assert [(plan["backend"], plan["precision"], any(each["builds"] for each in plan["engines"])) for plan in plans] == [
        ("onnxruntime", "float32", False),
        ("openvino", "bfloat16", True),
        ("openvino", "float32", True),
    ]
    assert f"{FLOAT32} (only where the one before cannot be used):" in run("build-engines", *asked, "--dry-run").stdout

    done = run("build-engines", *asked)
    assert done.exit_code == 0
    assert f"engines of {BFLOAT16}: fastest here: its images take 0.50 times as long as those by {USUAL}" in done.stdout
    assert done.stderr.splitlines() == [f"building {BFLOAT16} engines for this machine"]
    report = json.loads(run("build-engines", *asked, "--json").stdout)
    assert (report["backend"], report["precision"], report["choice"]["basis"]) == ("openvino", "bfloat16", "measured")
    assert [each["backend"] for each in report["sets"]] == ["onnxruntime", "openvino"]
    assert report["engines"] == report["sets"][1]["engines"]

    plans = json.loads(run("build-engines", *asked, "--dry-run", "--json").stdout)["sets"]
    assert [(plan["backend"], any(each["builds"] for each in plan["engines"])) for plan in plans] == [
        ("onnxruntime", False),
        ("openvino", False),
    ]

    route = json.loads(run("route", "a lake", *asked, "--json").stdout)
    assert route["choice"] == report["choice"]
    shown = run("route", "a lake", *asked)
    assert (f"engines of {BFLOAT16}: fastest here" in shown.stdout, shown.stderr) == (True, "")
    facts = json.loads(run("doctor", "--bundle", tiny_bundle, "--json").stdout)["facts"]
    assert facts["backend auto"].startswith(f"{BFLOAT16}: fastest here")
    assert facts[f"images by {BFLOAT16}"] == "tiny-turbo@1 50 ms"
    again = run("gen", "a lake", *asked, "--candidate", "tiny-turbo@1", "-o", "b.png", "--json")
    assert (json.loads(again.stdout)["settings"]["backend"], again.stderr) == ("openvino", "")
    assert "--backend openvino" in run("info", "b.png").stdout
    assert "--backend onnxruntime" in run("info", "a.png").stdout


def test_doctor_names_what_is_not_installed_and_how_to_compare(run: Run, world: World) -> None:
    facts = json.loads(run("doctor", "--json").stdout)["facts"]
    assert facts["backend auto"] == f"{USUAL}: it was not compared with openvino yet (costroute-rt build-engines)"
    world.version = None
    facts = json.loads(run("doctor", "--json").stdout)["facts"]
    assert facts["backend auto"] == (
        f"{USUAL}: it is the only one installed; openvino is left out: it is not installed (install the openvino extra)"
    )


def test_commands_after_errors_name_the_backend_where_auto_may_mean_another(run: Run, world: World, tiny_bundle: Path) -> None:
    missing = run("gen", "a lake", "--bundle", tiny_bundle, "--no-build", "--backend", "onnxruntime")
    assert f"(costroute-rt build-engines --backend onnxruntime --bundle {tiny_bundle})" in missing.stderr
    world.version = None
    missing = run("gen", "a lake", "--bundle", tiny_bundle, "--no-build", "--backend", "onnxruntime")
    assert f"(costroute-rt build-engines --bundle {tiny_bundle})" in missing.stderr


def test_a_backend_that_the_environment_names_must_exist(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTROUTE_BACKEND", "abacus")
    done = run("route", "a lake")
    assert done.exit_code == 2
    assert "COSTROUTE_BACKEND is 'abacus'" in done.stderr
