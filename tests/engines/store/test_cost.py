"""Costs of one engine: kept for each condition, read from two places, and never lost to a damaged file."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.machine.condition import UNKNOWN_CONDITION, Condition
from costroute_rt.engines.store import cost as module
from costroute_rt.engines.store.cost import CallCost, CostFiles, EngineCost, nearest_cost
from costroute_rt.error import EngineError, Reason, StoreFullError

DIGEST = "0" * 32
IDENTITY = {"engine_sha256": "a" * 64, "device": "a processor", "driver": "none", "os": "Linux x86_64"}
MAINS = Condition(threads=2, cpu_limit="8 cores", power_mode="plugged in")
BATTERY = replace(MAINS, power_mode="on battery")


def cost(ms: float, condition: Condition = MAINS, **more: Any) -> EngineCost:
    times = CallCost(median_ms=ms, p95_ms=ms, spread_ms=0.0, calls=20)
    return EngineCost(engine="tiny/vae/decode", digest=DIGEST, call=times, load=times, condition=condition, **more)


@pytest.fixture
def files(tmp_path: Path) -> CostFiles:
    """Of an engine in the user's store."""
    folder = tmp_path / "home/engines" / DIGEST
    folder.mkdir(parents=True)
    return CostFiles(tmp_path / "home", folder)


def read(files: CostFiles) -> list[EngineCost]:
    return files.read(IDENTITY, "tiny/vae/decode")


def forbid_writing_beside(files: CostFiles, monkeypatch: pytest.MonkeyPatch, code: int = errno.EACCES) -> None:
    """As for another user's folder, or a file system that is mounted to be read only (root may write in both)."""
    real = module.write_file

    def write(path: Path, data: bytes) -> None:
        if path.parent == files.folder:
            raise OSError(code, "no")
        real(path, data)

    monkeypatch.setattr(module, "write_file", write)


def test_costs_of_every_condition_are_kept_side_by_side(files: CostFiles) -> None:
    files.write(IDENTITY, cost(1.0))
    files.write(IDENTITY, cost(3.0, BATTERY))
    assert read(files) == [cost(3.0, BATTERY), cost(1.0)]
    files.write(IDENTITY, cost(2.0))
    assert read(files) == [cost(2.0), cost(3.0, BATTERY)]
    assert not files.own.exists()


def test_everything_about_a_race_comes_back(files: CostFiles) -> None:
    raced = cost(1.0, relative_to="1" * 32, is_slower=True, slower_images="by 3 ms", is_proved=False)
    files.write(IDENTITY, raced)
    files.write(IDENTITY, cost(1.0, replace(MAINS, threads=None), relative_to="1" * 32, is_proved=True))
    assert read(files)[1] == raced
    assert read(files)[0].is_proved


def test_the_number_of_conditions_is_bounded_and_the_oldest_goes(files: CostFiles) -> None:
    for threads in range(1, 21):
        files.write(IDENTITY, cost(1.0, replace(MAINS, threads=threads)))
    assert [each.condition.threads for each in read(files)] == list(range(20, 4, -1))


def test_costs_of_an_engine_file_that_was_replaced_go(files: CostFiles) -> None:
    files.write(IDENTITY, cost(1.0, BATTERY))
    rebuilt = {**IDENTITY, "engine_sha256": "b" * 64}
    files.write(rebuilt, cost(2.0))
    assert files.read(rebuilt, "tiny/vae/decode") == [cost(2.0)]
    with pytest.raises(EngineError, match="another engine_sha256"):
        read(files)


def test_costs_of_another_device_stay_and_are_not_used(files: CostFiles) -> None:
    files.write({**IDENTITY, "device": "another"}, cost(9.0))
    with pytest.raises(EngineError, match="another device: then another, now a processor; profile the engines"):
        read(files)
    files.write(IDENTITY, cost(1.0))
    assert read(files) == [cost(1.0)]
    assert files.read({**IDENTITY, "device": "another"}, "tiny/vae/decode") == [cost(9.0)]


def test_the_nearest_condition_is_chosen(files: CostFiles) -> None:
    ours = [cost(1.0, replace(MAINS, threads=4)), cost(2.0, replace(MAINS, cpu_limit="1 of 8 cores")), cost(3.0, BATTERY)]
    assert nearest_cost(ours, MAINS).call.median_ms == 3.0
    assert nearest_cost(ours[:2], MAINS).call.median_ms == 2.0
    assert nearest_cost([*ours, cost(4.0)], MAINS).call.median_ms == 4.0
    assert nearest_cost([cost(5.0, BATTERY), cost(6.0, BATTERY)], BATTERY).call.median_ms == 5.0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_where_the_engine_s_folder_cannot_be_written_the_user_s_store_has_the_costs(
    files: CostFiles, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    files.write(IDENTITY, cost(1.0))
    files.write(IDENTITY, cost(3.0, BATTERY))
    with monkeypatch.context() as patch:
        forbid_writing_beside(files, patch, code)
        files.write(IDENTITY, cost(2.0))
    assert files.own == files.root / "costs" / f"{DIGEST}.json"
    assert read(files) == [cost(2.0), cost(3.0, BATTERY)]  # the user's own come first
    files.write(IDENTITY, cost(4.0))
    assert read(files)[0] == cost(4.0)
    assert json.loads(files.beside.read_text())["costs"]["measured"][1]["call_ms"]["median_ms"] == 1.0


def test_nothing_is_written_beside_an_engine_of_another_store(files: CostFiles, tmp_path: Path) -> None:
    files.write(IDENTITY, cost(1.0))
    elsewhere = CostFiles(tmp_path / "other home", files.folder)
    assert read(elsewhere) == [cost(1.0)]
    elsewhere.write(IDENTITY, cost(3.0, BATTERY))
    elsewhere.write(IDENTITY, cost(2.0))
    assert read(elsewhere) == [cost(2.0), cost(3.0, BATTERY)]
    assert read(files) == [cost(1.0)]
    assert [path.name for path in files.folder.iterdir()] == ["costs.json"]


def test_where_nothing_can_be_written_there_is_an_error_of_the_store(files: CostFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(module, "write_file", refuse)
    with pytest.raises(EngineError, match="Permission denied") as caught:
        files.write(IDENTITY, cost(1.0))
    assert caught.value.reason is not Reason.NOT_MEASURED


def test_a_full_disk_is_no_reason_to_write_elsewhere(files: CostFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_writing_beside(files, monkeypatch, errno.ENOSPC)
    with pytest.raises(StoreFullError):
        files.write(IDENTITY, cost(1.0))
    assert not files.own.exists()


def seal(body: dict[str, Any]) -> str:
    """A file of costs with this body, as who knows the format would write it."""
    from costroute_rt.engines.bundle.section import canonical_json

    text = canonical_json(body) if body["format_version"] == 2 else json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({"costs": body, "sha256": hashlib.sha256(text).hexdigest()})


TIMES = {"median_ms": 7.0, "p95_ms": 8.0, "spread_ms": 1.0, "calls": 40}
BEFORE_CONDITIONS = {
    "format_version": 2,
    "identity": {**IDENTITY, "power_mode": "plugged in"},
    "engine": "tiny/vae/decode",
    "call_ms": TIMES,
    "load_ms": TIMES,
    "relative_to": "1" * 32,
    "is_slower": False,
    "slower_images": None,
    "is_proved": True,
}


def test_costs_of_the_format_before_are_read_and_kept(files: CostFiles) -> None:
    files.beside.write_text(seal(BEFORE_CONDITIONS))
    (found,) = read(files)
    assert found.condition == replace(UNKNOWN_CONDITION, power_mode="plugged in")
    assert (found.call.median_ms, found.is_proved, found.relative_to) == (7.0, True, "1" * 32)
    files.write(IDENTITY, cost(1.0))
    assert [each.call.median_ms for each in read(files)] == [1.0, 7.0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not valid JSON"),
        ("[]", "expected an object"),
        ("{}", "has no costs"),
        (json.dumps({"costs": BEFORE_CONDITIONS, "sha256": "0" * 64}), "damaged"),
        (seal({**BEFORE_CONDITIONS, "format_version": 4}), "format version 4"),
        (seal({**BEFORE_CONDITIONS, "call_ms": {}}), "median_ms"),
        (seal({"format_version": 3, "engine": "e", "measured": [{"condition": {}}]}), "cpu_limit"),
        (seal({"format_version": 3, "engine": "e", "measured": [[]]}), "an object"),
        (seal({"format_version": 3, "engine": "e", "measured": []}), "not been measured"),
    ],
)
def test_damaged_costs_are_named_and_replaced(files: CostFiles, text: str, problem: str) -> None:
    files.beside.write_text(text)
    with pytest.raises(EngineError, match=problem) as caught:
        read(files)
    assert caught.value.reason is Reason.NOT_MEASURED
    files.write(IDENTITY, cost(1.0))
    assert read(files) == [cost(1.0)]


def test_one_damaged_file_does_not_hide_the_other(files: CostFiles) -> None:
    files.write(IDENTITY, cost(1.0))
    files.own.parent.mkdir(parents=True)
    files.own.write_text("{")
    assert read(files) == [cost(1.0)]
