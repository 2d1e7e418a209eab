"""The labelling job: the table it writes, interruptions at any moment, and refusals."""

from __future__ import annotations

import csv
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError, LabelError, OutputError
from costroute_rt.export.router import label_file
from costroute_rt.export.router.label_file import open_label_file
from costroute_rt.export.router.labelling import Progress, check_candidates, fingerprints, image_seed, label_prompts
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import PromptRow
from tests.export.router.fakes import CANDIDATES, FakeRuntime, FakeScorer, label, make_prompts, make_request

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def keys(path: Path) -> list[tuple[str, str, int]]:
    return [(row.prompt_id, row.candidate, row.seed) for row in LabelTable.open(path).labels]


def test_every_prompt_candidate_and_seed_gets_a_row(path: Path) -> None:
    runtime, prompts = FakeRuntime(), make_prompts(5)
    reported: list[Progress] = []
    report = label_prompts(runtime, prompts, path, make_request(), progress=reported.append, clock=iter(range(100)).__next__)
    assert (report.written, report.kept, report.prompts) == (20, 0, 5)
    assert Counter(keys(path)) == Counter((row.prompt_id, name, seed) for row in prompts for name in CANDIDATES for seed in (0, 1))
    assert [(each.done, each.total) for each in reported] == [(n, 20) for n in range(1, 21)]
    assert reported[-1].remaining_s == 0 < reported[5].remaining_s
    table = LabelTable.open(path, category="category")
    first = table.labels[0]
    assert first.prompt == prompts[0].prompt
    assert first.extra["fingerprint"] == "mark of fast@1"
    assert first.extra["scorer"] == "mean"
    assert {label.prompt: label.extra["category"] for label in table.labels} == {row.prompt: row.extra["category"] for row in prompts}
    assert table.cells().has_cost
    assert 95 <= table.cells().cost_ms[0] < 125


def test_candidates_share_noise_and_prompts_do_not(path: Path) -> None:
    runtime = FakeRuntime()
    label(path, make_prompts(4), runtime)
    seeds = {(prompt, seed) for prompt, _, seed in runtime.calls}
    assert len(seeds) == len({seed for _, seed in seeds}) == 8
    assert all(int(row.extra["image_seed"]) == image_seed(row.prompt, row.seed) for row in LabelTable.open(path).labels)


def test_a_second_run_adds_only_missing_rows(path: Path) -> None:
    label(path, make_prompts(3))
    before = path.read_bytes()
    runtime = FakeRuntime()
    report = label(path, make_prompts(3), runtime)
    assert (report.written, report.kept, runtime.calls, path.read_bytes()) == (0, 12, [], before)
    report = label(path, make_prompts(4), seeds=(1, 2))
    assert (report.written, report.kept) == (10, 6)
    assert path.read_bytes().startswith(before)
    assert len(set(keys(path))) == 22


def test_a_table_truncated_at_any_byte_is_completed(path: Path) -> None:
    label(path, make_prompts(3))
    whole = path.read_bytes()
    for length in [*range(0, 120, 5), *range(120, len(whole), 17), len(whole) - 1]:
        path.write_bytes(whole[:length])
        label(path, make_prompts(3))
        assert path.read_bytes() == whole, length


@pytest.mark.skipif(os.name == "nt", reason="kills the labelling process with SIGKILL, which Windows does not have")
def test_a_run_killed_again_and_again_ends_with_every_row_once(path: Path, tmp_path: Path) -> None:
    label(tmp_path / "reference.csv", make_prompts(40))
    rng, sizes = random.Random(0), []
    for _ in range(3):
        command = [sys.executable, "-W", "ignore", "-m", "tests.export.router.fakes", str(path), "40", "0.004"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            begun = path.stat().st_size if path.exists() else 0
            for _ in range(3000):
                if path.exists() and path.stat().st_size > begun + 400:
                    break
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        sizes.append(path.stat().st_size)
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    report = label(path, make_prompts(40))
    assert report.written > 0
    assert report.kept > 0
    assert path.read_bytes() == (tmp_path / "reference.csv").read_bytes()


def test_an_interrupt_loses_no_row(path: Path) -> None:
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(path, make_prompts(5), FakeRuntime(interrupt))
    assert len(keys(path)) == 5
    assert label(path, make_prompts(5)).kept == 5


def test_one_run_at_a_time(path: Path) -> None:
    label(path, make_prompts(1))
    with open_label_file(path), pytest.raises(LabelError, match="another run is adding to it"):
        label(path, make_prompts(2))
    assert label(path, make_prompts(2)).written == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_names_its_scorer(path: Path, value: float) -> None:
    odd = FakeScorer("odd", lambda pixels, prompt: value if prompt.prompt_id == "p1" else 1.0)
    with pytest.raises(LabelError, match=rf"scorer odd returned {value} for 'p1' \(fast@1, seed 0\)"):
        label(path, make_prompts(3), scorers=(FakeScorer(), odd))
    assert keys(path) == [("p0", "fast@1", 0), ("p0", "slow@8", 0)]


def test_a_scorer_that_fails_is_named(path: Path) -> None:
    with pytest.raises(LabelError, match=r"scorer broken failed for 'p0' .*ZeroDivisionError"):
        label(path, make_prompts(1), scorers=(FakeScorer("broken", lambda pixels, prompt: 1 / 0),))


def test_prompts_that_a_scorer_refuses_are_reported_before_the_first_image(path: Path) -> None:
    runtime = FakeRuntime()
    with pytest.raises(LabelError, match="prompt 'p0': it states nothing"):
        label(path, make_prompts(1), runtime, scorers=(FakeScorer(lacks="it states nothing"),))
    assert not runtime.calls
    assert not path.exists()


def test_several_scorers_fill_a_column_each(path: Path) -> None:
    second = FakeScorer("flat", lambda pixels, prompt: 0.25)
    label(path, make_prompts(2), scorers=(FakeScorer(), second))
    assert {row.score for row in LabelTable.open(path, score="score_flat").labels} == {0.25}
    assert len({row.score for row in LabelTable.open(path).labels}) > 4


def test_refused_prompts_are_skipped_and_reported(path: Path) -> None:
    prompts = [*make_prompts(1), PromptRow(prompt_id="x", prompt="impossible", extra={"category": "a"}), PromptRow(
        prompt_id="y", prompt="long", extra={"category": "a"})]  # fmt: skip
    report = label(path, prompts)
    assert report.refused == {"x": "the prompt is impossible"}
    assert report.truncated == 1
    assert {prompt_id for prompt_id, _, _ in keys(path)} == {"p0", "y"}


def test_a_full_disk_leaves_complete_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        """A file on a disk with room for 700 bytes."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: memoryview) -> int:
            room = 700 - os.fstat(self._file.fileno()).st_size
            if room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self._file.write(data[:room]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    class OnFullDisk(label_file.LabelFile):
        def __init__(self, path: Path, file: Any, *rest: Any) -> None:
            super().__init__(path, FullDisk(file), *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(label_file, "LabelFile", OnFullDisk)
        with pytest.raises(OutputError, match=r"free some space .* the rows so far are kept"):
            label(path, make_prompts(6))
    assert path.read_bytes().endswith(b"\n")
    assert len(keys(path)) > 3
    kept = path.read_bytes()
    label(path, make_prompts(6))
    assert path.read_bytes().startswith(kept)
    assert len(set(keys(path))) == 24


def test_an_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for bad in (tmp_path / "folder.csv", tmp_path / "none" / "labels.csv"):
        with pytest.raises(OutputError, match=r"cannot write .*\.csv"):
            label(bad, make_prompts(1))
    with pytest.raises(ConfigError, match=r"a name that ends in \.csv"):
        label(tmp_path / "labels.csv.gz", make_prompts(1))


FOREIGN = {
    "no table": ("some notes", "it is not a label table"),
    "other columns": ("a,b\n1,2\n", "its columns are a, b"),
    "damaged in the middle": ("prompt,candidate,score\nx,a,1\nx,b\ny,a,1\n", "line 3: it has 2 fields instead of 3"),
    "bad quotes in the middle": ('prompt,candidate,score\n"x"y,a,1\ny,a,1\n', "line 2: it is not CSV"),
    "last line open": ("prompt,candidate,score,seed,category,prompt_id\nx,a,1,0,c,p", "its last line has no line break"),
    "open quote far up": ('prompt_id,prompt,candidate,score,fingerprint\np,"x,a,1,m\n' + "p,x,a,1,m\n" * 9000, "it is damaged"),
    "not utf-8": ("prompt,candidate,score\n\udce9,a,1\n", "UTF-8"),
    "columns missing": ("prompt,candidate,score\nx,a,1\n", "it has no column prompt_id, seed, category"),
    "no seed": ("prompt_id,prompt,candidate,score,seed,category\nq,x,a,1,s,c\n", "line 2: seed is 's'"),
    "another text": ("prompt_id,prompt,candidate,score,seed,category\np0,x,a,1,0,c\n", "prompt_id 'p0' is 'x' in the table"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_does_not_fit_is_left_alone(path: Path, name: str) -> None:
    text, problem = FOREIGN[name]
    path.write_bytes(text.encode(errors="surrogateescape"))
    before = path.read_bytes()
    with pytest.raises(LabelError) as caught:
        label(path, make_prompts(2))
    assert problem in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scorers": (FakeScorer("other"),)}, "its score is by mean, but other is the first scorer now"),
        ({"scorers": (FakeScorer(), FakeScorer("more"))}, "it has no column score_more"),
        ({"fingerprints": dict.fromkeys(CANDIDATES, "new")}, "labels of fast@1 were made with other weights or settings"),
    ],
)
def test_rows_that_would_not_belong_together_are_not_mixed(path: Path, changes: dict[str, Any], problem: str) -> None:
    label(path, make_prompts(2))
    before = path.read_bytes()
    with pytest.raises(LabelError, match=problem):
        label(path, make_prompts(3), **changes)
    assert path.read_bytes() == before


def test_a_column_that_no_scorer_fills_is_an_error(path: Path) -> None:
    label(path, make_prompts(1), scorers=(FakeScorer(), FakeScorer("more")))
    with pytest.raises(LabelError, match="it has score_more, which no chosen scorer fills"):
        label(path, make_prompts(2))


def test_a_table_from_elsewhere_can_be_extended(path: Path) -> None:
    path.write_text("prompt,rater,candidate,score,category\r\nx,ann,fast@1,0.5,c\r\nx,bob,slow@8,,c\r\n", encoding="utf-8", newline="")
    prompts = [PromptRow(prompt_id=text, prompt=text, extra={}) for text in "xy"]
    report = label(path, prompts, seeds=(0,))
    assert (report.written, report.kept) == (3, 1)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["prompt"], row["rater"], row["candidate"], row["category"]) for row in rows[2:]] == [
        ("x", "", "slow@8", "c"),
        ("y", "", "fast@1", ""),
        ("y", "", "slow@8", ""),
    ]
    assert len(LabelTable.open(path)) == 4


def test_anchors_are_spread_and_stay_the_same(path: Path) -> None:
    prompts = make_prompts(60)
    label(path, prompts, seeds=(0,))
    ease = LabelTable.open(path).cells().mean.mean(1)
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(path, None, FakeRuntime(interrupt), candidates=("new@4",), anchors=10)
    report = label(path, None, candidates=("new@4",), anchors=10)
    assert (report.written, report.kept, report.prompts) == (16, 4, 10)
    anchored = {row.prompt_id for row in LabelTable.open(path).labels if row.candidate == "new@4"}
    ranks = sorted(sum(ease < ease[int(prompt_id[1:])]) for prompt_id in anchored)
    assert [int(rank) // 6 for rank in ranks] == list(range(10))
    assert all(row.extra["category"] for row in LabelTable.open(path).labels)
    assert label(path, prompts, candidates=("new@4",), anchors=10).written == 0
    assert label(path, None, candidates=("new@4",), anchors=1000).prompts == 60


def test_anchors_need_labels_of_others(path: Path) -> None:
    with pytest.raises(LabelError, match="no labels to anchor to"):
        label(path, make_prompts(3), anchors=2)
    label(path, make_prompts(3))
    with pytest.raises(LabelError, match="no labels of other candidates"):
        label(path, None, anchors=2)
    with pytest.raises(LabelError, match="not among the given prompts"):
        label(path, make_prompts(1), candidates=("new@4",), anchors=3)


def test_fingerprints_depend_on_everything_that_changes_images(tiny_bundle: Path) -> None:
    from dataclasses import replace

    bundle = Bundle.open(tiny_bundle, verify=False)
    marks = fingerprints(bundle)
    assert list(marks) == [row["name"] for row in bundle.pool]
    assert len(set(marks.values())) == len(marks)
    assert all(len(mark) == 12 for mark in marks.values())
    pool = tuple({**row, "guidance_end": 0.5} if row["name"] == "tiny-base@8" else dict(row) for row in bundle.pool)
    changed = fingerprints(replace(bundle, pool=pool))
    assert [name for name in marks if marks[name] != changed[name]] == ["tiny-base@8"]
    assert fingerprints(replace(bundle, pool=tuple({**row, "guidance_end": 1.0} for row in bundle.pool))) == marks
    (weights,) = bundle.components["base"].weights
    changed = fingerprints(replace(bundle, files={**bundle.files, weights: replace(bundle.files[weights], sha256="0" * 64)}))
    assert [name for name in marks if marks[name] != changed[name]] == ["tiny-base@4", "tiny-base@8"]


def test_an_unknown_candidate_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of a, b"):
        check_candidates(["a", "c"], {"a": "", "b": ""})
