"""Routing: the rule, the budget, and the reasons given."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from costroute_rt.candidate import Candidate
from costroute_rt.error import BudgetError, ConfigError, Reason
from costroute_rt.route import Cost, Option, Route
from costroute_rt.routing.choice import TRIAL, choose


def make_option(name: str, quality: float, ms: float, p95_ms: float | None = None) -> Option:
    cost = Cost(
        overhead_ms=0, text_ms=0, swap_ms=0, denoise_ms=ms, decode_ms=0, spread_ms=(ms if p95_ms is None else p95_ms) - ms
    )  # fmt: skip
    candidate = Candidate(name=name, denoiser="base", scheduler="default", num_inference_steps=1)
    return Option(candidate=candidate, quality=quality, quality_error=0.01, cost=cost, memory_bytes=0, resident=True)


OPTIONS = [make_option("fast", 0.5, 20), make_option("middle", 0.8, 100, 110), make_option("best", 0.9, 300)]


def test_without_a_budget_the_best_quality_is_chosen() -> None:
    assert choose("x", OPTIONS).chosen.name == "best"


@pytest.mark.parametrize(("max_ms", "name"), [(1000, "best"), (300, "best"), (299, "middle"), (110, "middle"), (109, "fast"), (20, "fast")])
def test_the_upper_estimate_must_fit(max_ms: float, name: str) -> None:
    assert choose("x", OPTIONS, max_ms=max_ms).chosen.name == name


def test_a_slower_candidate_of_lower_quality_is_never_chosen() -> None:
    assert choose("x", [*OPTIONS, make_option("poor", 0.4, 400)], max_ms=1000).chosen.name == "best"


def test_of_equal_quality_the_cheaper_is_chosen() -> None:
    assert choose("x", [make_option("slow", 0.9, 200), make_option("quick", 0.9, 100)]).chosen.name == "quick"


@pytest.mark.parametrize(("lam", "name"), [(0, "best"), (0.0004, "best"), (0.001, "middle"), (0.01, "fast")])
def test_lam_trades_quality_for_time(lam: float, name: str) -> None:
    assert choose("x", OPTIONS, lam=lam).chosen.name == name


@pytest.mark.parametrize(("tolerance", "name"), [(0.05, "best"), (0.11, "middle"), (0.5, "fast")])
def test_within_the_tolerance_the_cheapest_is_chosen(tolerance: float, name: str) -> None:
    assert choose("x", OPTIONS, tolerance=tolerance).chosen.name == name


def test_the_budget_error_names_the_fastest_and_a_sufficient_budget() -> None:
    with pytest.raises(BudgetError, match="fast") as caught:
        choose("x", OPTIONS, max_ms=10)
    assert (caught.value.fastest, caught.value.max_ms) == ("fast", 10)
    assert choose("x", OPTIONS, max_ms=caught.value.fastest_ms).chosen.name == "fast"


def test_or_fastest_takes_the_fastest_that_does_not_fit() -> None:
    route = choose("x", OPTIONS, max_ms=10, or_fastest=True)
    assert route.chosen.name == "fast"
    assert not route.option.fits
    assert "nothing fits" in route.reason


def test_every_option_has_a_reason() -> None:
    route = choose("x", OPTIONS, max_ms=150)
    why = {option.candidate.name: option.why for option in route.options}
    assert why["middle"] == "chosen: best quality among the 2 of 3 candidates within 150 ms"
    assert why["best"] == "p95 300 ms exceeds the 150 ms budget"
    assert why["fast"] == "-0.300 quality for -80 ms"


def test_an_option_states_its_difference_from_the_chosen_one() -> None:
    assert choose("x", OPTIONS, lam=0.001).options[2].why == "+0.100 quality for +200 ms"


def test_a_p95_just_over_the_budget_is_rounded_up() -> None:
    route = choose("x", [*OPTIONS, make_option("late", 0.95, 290, 300.2)], max_ms=300)
    assert route.options[3].why == "p95 301 ms exceeds the 300 ms budget"


def test_a_tiny_difference_is_shown_without_a_minus_sign() -> None:
    route = choose("x", [make_option("one", 0.5, 20), make_option("two", 0.49999, 20.2)])
    assert route.options[1].why == "+0.000 quality for +0 ms"


def test_no_options_is_an_error() -> None:
    with pytest.raises(ConfigError, match="one candidate"):
        choose("x", [])


def test_a_route_is_plain_data() -> None:
    data = json.loads(json.dumps(choose("x", OPTIONS, max_ms=150).to_json(), allow_nan=False))
    assert data["chosen"] == "middle"
    assert [option["fits"] for option in data["options"]] == [True, True, False]
    assert isinstance(choose("x", OPTIONS), Route)


def make_loaded(name: str, ms: float, *, queue_ms: float = 0.0, factor: float = 1.0, stale: bool = False) -> Option:
    """An option that takes `ms` on an idle machine."""
    loaded = {"queue_ms": queue_ms, "denoise_ms": factor * ms, "recent_factor": factor, "is_load_stale": stale}
    return replace(make_option(name, 0.5, ms), cost=replace(make_option(name, 0.5, ms).cost, **loaded))


@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ([make_loaded("slow", 300)], Reason.TOO_SLOW, "slow, needs about 300 ms even on an idle machine"),
        ([make_loaded("slow", 300, factor=2)], Reason.TOO_SLOW, "needs about 600 ms now, and 300 ms even on an idle machine"),
        ([make_loaded("quick", 190, queue_ms=290)], Reason.QUEUE, "needs about 480 ms now, 290 ms of it to wait for other requests"),
        (
            [make_loaded("quick", 190, factor=2.5)],
            Reason.LOAD,
            "quick, needs about 475 ms now, 190 ms when the machine is idle: recent runs were 2.5 times slower",
        ),
        ([make_loaded("quick", 190, factor=2.0, queue_ms=20)], Reason.LOAD, "needs about 400 ms now, 190 ms when the machine is idle"),
        ([make_loaded("slow", 300), make_loaded("quick", 100, factor=4)], Reason.LOAD, "quick, needs about 400 ms now, 100 ms when"),
    ],
)
def test_a_refusal_has_its_reason(options: list[Option], reason: Reason, text: str) -> None:
    with pytest.raises(BudgetError, match=text) as caught:
        choose("x", options, max_ms=200)
    assert (caught.value.reason, caught.value.max_ms) == (reason, 200)


def test_what_fits_without_load_that_was_not_seen_lately_is_tried() -> None:
    options = [make_loaded("quick", 100, factor=3, stale=True), make_loaded("slow", 150, factor=3, stale=True)]
    route = choose("x", options, max_ms=200)
    assert (route.chosen.name, route.reason, route.option.fits) == ("quick", TRIAL, True)
    assert not route.options[1].fits


@pytest.mark.parametrize("option", [make_loaded("quick", 100, factor=3), make_loaded("quick", 100, factor=3, queue_ms=150, stale=True)])
def test_what_fits_neither_with_load_nor_with_the_wait_is_not_tried(option: Option) -> None:
    with pytest.raises(BudgetError):
        choose("x", [option], max_ms=200)


def test_what_fits_comes_before_what_may_fit() -> None:
    options = [make_loaded("quick", 100, factor=3, stale=True), make_loaded("steady", 190)]
    assert choose("x", options, max_ms=200).chosen.name == "steady"


def test_what_is_equal_within_error_is_named_and_the_better_is_chosen() -> None:
    def near(one: Option, other: Option) -> bool:
        return abs(one.quality - other.quality) <= 0.15

    route = choose("x", OPTIONS, max_ms=1000, equal=near)
    assert route.chosen.name == "best"
    assert route.reason == "best quality among the 3 of 3 candidates within 1000 ms; equal within error: middle"
    assert [option.is_equal for option in route.options] == [False, True, False]
    assert route.options[1].why == "-0.100 quality (equal within error) for -200 ms"
    assert route.options[0].why == "-0.400 quality for -280 ms"
    assert route.to_json()["options"][1]["equal_within_error"]
    assert "equal within error" not in choose("x", OPTIONS, max_ms=250, equal=near).reason  # the best does not fit
