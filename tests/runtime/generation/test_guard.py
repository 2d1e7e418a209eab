"""The guard of a deadline: fewer rows or another decoder where a run is late, a better candidate where time is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from costroute_rt.generation.guard import Guard, Pace, Way
from costroute_rt.result import Result
from costroute_rt.sampling.scheduler import build_table
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from tests.runtime.fakes import CALL_MS, FakeClock, FakeDevice

FLOW = SchedulerConfig(name="flow_match_euler", prediction_type="flow_prediction")
VAE_MS, TINY_MS = 50.0, 5.0
POOL = (
    ("base@4-tiny", "base", 4, 3.0, 0.70),
    ("base@4", "base", 4, 3.0, 0.72),
    ("base@8-tiny", "base", 8, 3.0, 0.90),
    ("base@8", "base", 8, 3.0, 0.92),
)
"""Candidates of one denoiser, whose rows take 50 ms and whose decoders take 100 and 10 ms; the rest of a request takes 6 ms."""


def way(name: str, value: float) -> Way:
    steps, _, decoder = name.partition("-")
    after_ms = TINY_MS if decoder else VAE_MS
    return Way(name, build_table(FLOW, int(steps)), decoder or "vae", after_ms, value)


WAYS = (way("8", 0.9), way("8-tiny", 0.85), way("4", 0.8), way("4-tiny", 0.75))


def make_guard(
    left_ms: float,
    ways: Sequence[Way] = WAYS,
    *,
    spread: float = 0.0,
    tolerance: float = 0.0,
    may_gain: bool = True,
    expected_ms: float = 10.0,
) -> Guard:
    """Rows take 10 ms; expected_ms: what they were expected to take."""
    clock = FakeClock()
    pace = Pace(clock, row_ms=expected_ms, finish_at_s=clock() + left_ms / 1000, spread=spread)
    for _ in range(3):
        pace.observe(10.0)
    return Guard(pace, ways, tolerance=tolerance, may_gain=lambda: may_gain)


def test_what_follows_the_rows_is_expected_to_be_as_slow_as_they_are() -> None:
    pace = Pace(FakeClock(), row_ms=10)
    assert pace.remaining_ms(4, 50) == 90
    for _ in range(3):
        pace.observe(20)
    assert pace.remaining_ms(4, 50) == 180
    for _ in range(3):
        pace.observe(5)
    assert pace.remaining_ms(4, 50) == 70  # faster rows do not make the rest faster


@pytest.mark.parametrize(
    ("left_ms", "rows", "name"),
    [
        (131, 8, "8"),  # 8 rows of 10 ms, and 50 ms
        (125, 7, "8"),  # 0.875 by its neighbours, with the reserve
        (110, 8, "8-tiny"),  # the full decoder leaves room for 5 rows, which are worth 0.825
        (80, 7, "8-tiny"),  # 2 rows are fewer than any candidate has
        (20, 1, "8-tiny"),
        (1, 1, "8-tiny"),  # nothing fits: the fastest
    ],
)
def test_a_late_run_takes_the_best_that_fits(left_ms: float, rows: int, name: str) -> None:
    guard = make_guard(left_ms)
    assert (guard.choose(0, 8), guard.way.name) == (rows, name)


def test_fewer_rows_are_dropped_first_where_they_are_worth_less_than_the_decoder() -> None:
    ways = (way("8", 0.9), way("8-tiny", 0.5), way("4", 0.89), way("4-tiny", 0.49))
    guard = make_guard(110, ways)
    assert (guard.choose(0, 8), guard.way.name) == (5, "8")


def test_without_other_candidates_rows_are_dropped() -> None:
    guard = make_guard(110, WAYS[:1])
    assert (guard.choose(0, 8), guard.way.name) == (5, "8")


def test_the_decoder_is_chosen_after_the_last_row_too() -> None:
    late, early = make_guard(49), make_guard(51, (way("8-tiny", 0.85), way("8", 0.9)))
    assert (late.choose(8, 0), late.way.name) == (0, "8-tiny")
    assert (early.choose(8, 0), early.way.name) == (0, "8")


@pytest.mark.parametrize(("left_ms", "spread", "name"), [(131, 0.0, "8"), (129, 0.0, "8-tiny"), (131, 0.1, "8-tiny"), (60, 0.0, "4-tiny")])
def test_time_that_is_left_buys_the_best_candidate_whose_95th_percentile_fits(left_ms: float, spread: float, name: str) -> None:
    """From the tiny decoder and 4 steps."""
    guard = make_guard(left_ms, WAYS[::-1], spread=spread, expected_ms=20)
    rows = guard.choose(0, 4)
    assert (rows, guard.way.name) == (int(name[0]), name)


def test_a_run_that_goes_on_as_another_candidate_has_the_rows_that_are_left_of_that() -> None:
    """At half of the way, 4 rows of 8 are left."""
    guard = make_guard(1000, WAYS[2:] + WAYS[:2], expected_ms=20)
    assert (guard.choose(2, 2, count=lambda table: len(table) // 2), guard.way.name) == (4, "8")
    assert (guard.choose(3, 3, count=lambda table: 3), guard.way.name) == (3, "8")


def test_rows_that_are_as_fast_as_expected_add_none() -> None:
    guard = make_guard(1000, WAYS[::-1])
    assert (guard.choose(0, 4), guard.way.name) == (4, "4")


def test_a_difference_within_the_tolerance_is_worth_no_time() -> None:
    guard = make_guard(1000, WAYS[::-1], tolerance=0.2, expected_ms=20)
    assert (guard.choose(0, 4), guard.way.name) == (4, "4-tiny")


def test_time_that_others_wait_for_is_not_used() -> None:
    guard = make_guard(1000, WAYS[::-1], may_gain=False, expected_ms=20)
    assert (guard.choose(0, 4), guard.way.name) == (4, "4-tiny")


def test_rows_that_were_dropped_come_back_when_there_is_time() -> None:
    guard = make_guard(1000, WAYS[:1])
    assert guard.choose(2, 3, count=lambda table: 6) == 6


@pytest.fixture
def decoders(open_device: Callable[..., FakeDevice]) -> FakeDevice:
    """A runtime of `POOL`."""
    return open_device(pool=POOL, profile={**CALL_MS, "tiny/vae/decode": 100.0, "tiny/tiny/decode": 10.0})


def outcome(result: Result) -> tuple[str, int, int, bool | None]:
    assert len(result.timings.denoise_ms) == result.steps[0] == result.settings["num_inference_steps"]
    return result.settings["candidate"], result.skipped[0], result.added[0], result.met


def test_an_image_in_time_is_made_as_it_was_routed(decoders: FakeDevice) -> None:
    result = decoders.runtime.generate("a red house", max_ms=520, seed=1)
    assert outcome(result) == ("base@8", 0, 0, True)
    assert result.made == (result.route.chosen,)
    assert not any("decoded by" in note or "added" in note for note in result.notes)


def test_a_late_image_changes_to_the_faster_decoder(decoders: FakeDevice) -> None:
    decoders.slowdown["tiny/base/guided_step"] = 1.15
    result = decoders.runtime.generate("a red house", max_ms=520, seed=1)
    assert result.route.chosen.name == "base@8"
    assert outcome(result) == ("base@8-tiny", 0, 0, True)
    assert "decoded by tiny instead of vae to keep the deadline" in result.notes
    assert (result.settings["decoder"], result.image_settings()["decoder"]) == ("tiny", "tiny")
    again = decoders.runtime.generate("a red house", candidate="base@8-tiny", seed=1)
    assert (result.pixels == again.pixels).all()


def test_an_image_that_is_later_still_drops_steps_too(decoders: FakeDevice) -> None:
    decoders.slowdown["tiny/base/guided_step"] = 1.6
    result = decoders.runtime.generate("a red house", max_ms=520, seed=1)
    name, skipped, _, met = outcome(result)
    assert (name, met) == ("base@8-tiny", True)
    assert skipped > 0


def test_a_candidate_that_the_request_names_keeps_its_decoder(decoders: FakeDevice) -> None:
    decoders.slowdown["tiny/base/guided_step"] = 1.15
    result = decoders.runtime.generate("a red house", candidate="base@8", max_ms=520, seed=1)
    name, skipped, _, met = outcome(result)
    assert (name, met) == ("base@8", True)
    assert skipped > 0


def test_time_that_is_left_is_used_for_the_better_decoder(decoders: FakeDevice) -> None:
    """The machine was slow before, so the choice was careful."""
    decoders.slowdown[""] = 1.3
    for _ in range(9):
        decoders.runtime.generate("a red house", candidate="base@8", seed=1)
    decoders.slowdown.clear()
    route = decoders.runtime.route("a red house")
    max_ms = (route.find("base@8-tiny").p95_ms + route.find("base@8").p95_ms) / 2
    result = decoders.runtime.generate("a red house", max_ms=max_ms, seed=1)
    assert result.route.chosen.name == "base@8-tiny"
    assert outcome(result) == ("base@8", 0, 0, True)
    assert "decoded by vae instead of tiny because time was left" in result.notes


def test_time_that_is_left_is_used_for_more_steps(decoders: FakeDevice) -> None:
    decoders.slowdown[""] = 2.0
    for _ in range(9):
        decoders.runtime.generate("a red house", candidate="base@8", seed=1)
    decoders.slowdown.clear()
    result = decoders.runtime.generate("a red house", max_ms=640, seed=1)
    assert result.route.chosen.name.startswith("base@4")
    name, skipped, added, met = outcome(result)
    assert (name, skipped, met) == ("base@8", 0, True)
    assert added > 0
    assert result.steps[0] == 4 + added
    assert any(note.endswith("added because time was left") for note in result.notes)


def test_what_was_spared_and_added_is_part_of_what_the_choice_would_have_taken(
    decoders: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[float]()
    monkeypatch.setattr(decoders.resources.costs, "observe", lambda *_, actual_ms: seen.append(actual_ms))
    decoders.slowdown["tiny/base/guided_step"] = 1.15
    result = decoders.runtime.generate("a red house", max_ms=520, seed=1)
    assert result.settings["candidate"] == "base@8-tiny"
    assert seen == pytest.approx([result.actual_ms + 90])
