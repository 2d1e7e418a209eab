"""`python -m benchmarks.decoders` on a tiny bundle that has a second decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decoders
from benchmarks.peer import TimedImage
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.bundle.bundle import seal_bundle


@pytest.fixture
def two_decoders(judged_bundle: Path, tmp_path: Path) -> Path:
    """The judged bundle, whose decoder is there twice, with a candidate that uses the second."""
    root = tmp_path / "bundle"
    shutil.copytree(judged_bundle, root)
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    manifest["components"]["tiny"] = {
        **manifest["components"]["vae"],
        "graphs": {"decode": manifest["components"]["vae"]["graphs"]["decode"]},
    }
    row = next(row for row in manifest["pool"] if row["name"] == "tiny-turbo@2")
    manifest["pool"].append({**row, "name": "tiny-turbo@2-tiny", "decoder": "tiny"})
    manifest["quality"]["candidates"]["tiny-turbo@2-tiny"] = manifest["quality"]["candidates"]["tiny-turbo@2"]
    seal_bundle(root, {name: value for name, value in manifest.items() if name not in ("format", "format_version", "files")})
    return root


def test_each_pair_has_times_and_equal_decoders_give_equal_images(
    two_decoders: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "TARGETS", {})
    assert decoders.main(["--quick", "--json", "--bundle", str(two_decoders), "--home", str(engine_home)]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["scenario"]["name"] == "tiny-turbo@2-tiny"
    assert row["scenario"]["settings"]["full"] == "tiny-turbo@2"
    found = {figure["name"]: figure["value"] for figure in row["figures"]}
    assert {"total", "total with the full decoder", "decode", "decode with the full decoder", decoders.SHARE} < set(found)
    assert found["PSNR to the full decoder"] == 99
    assert found["recall, less that with the full decoder"] == 0
    assert 0 < found["recall of stated things"] < 1


def test_pairs_are_found_by_their_settings(two_decoders: Path, engine_home: Path) -> None:
    assert Bundle.open(two_decoders).components["tiny"].role == "decoder"
    with Runtime.open(two_decoders, home=engine_home, build=True) as runtime:
        assert decoders.find_pairs(runtime.candidates) == [decoders.Pair("tiny-turbo@2", "tiny-turbo@2-tiny", 2, is_guided=False)]
        assert decoders.find_pairs(runtime.candidates[:-1]) == []


def test_a_bundle_with_one_decoder_fails(judged_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decoders.main(["--quick", "--bundle", str(judged_bundle), "--home", str(engine_home)]) == 1
    assert "differ in their decoder alone" in capsys.readouterr().out


def test_the_share_is_that_of_medians_and_only_two_plain_steps_have_a_target() -> None:
    def timed(*milliseconds: float) -> list[TimedImage]:
        return [TimedImage(pixels=np.zeros((2, 2, 3), np.uint8), total_ms=ms, stages={"decode": ms / 2}) for ms in milliseconds]

    pair = decoders.Pair("a@2", "a@2-tiny", 2, is_guided=False)
    found = {each.name: each.value for each in decoders.time_figures({"a@2": timed(30, 40, 50), "a@2-tiny": timed(10, 12, 20)}, pair)}
    assert found[decoders.SHARE] == pytest.approx(0.3)
    assert found["decode"] == 6
    assert decoders.make_scenario(pair, 1).targets == {decoders.SHARE: decoders.TARGETS[2]}
    assert decoders.make_scenario(decoders.Pair("b@2", "b@2-tiny", 2, is_guided=True), 1).targets == {}


def test_a_candidate_that_fails_fails_the_pair() -> None:
    pair = decoders.Pair("a@2", "a@2-tiny", 2, is_guided=False)
    with pytest.raises(RuntimeError, match="broken"):
        decoders.time_figures({"a@2": RuntimeError("broken"), "a@2-tiny": []}, pair)
