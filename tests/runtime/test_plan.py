"""`Runtime.plan`: one budget for many prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BudgetError, ConfigError, PromptError
from costroute_rt.judgement import Judgement
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.routing.quality import AverageQuality
from tests.runtime.fakes import FakeDevice

PROMPTS = ["a lake"] * 5 + ["a long and winding road to a house behind the hills"] * 5


class FavoursLongPrompts:
    """An estimate in which long prompts gain much from more steps, and short ones little."""

    def __init__(self, *, needs_states: bool = False) -> None:
        self.needs_states, self.asked = needs_states, 0
        self.engines = ()

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        assert (states is not None) == self.needs_states
        self.asked += 1
        step = 0.1 if len(prompt) > 20 else 0.001
        return Judgement(mean=0.5 + step * np.arange(4), standard_error=np.full(4, 0.01), basis="test")


@pytest.fixture
def device(open_device: Callable[..., FakeDevice]) -> FakeDevice:
    return open_device(quality=FavoursLongPrompts())


def total_ms(routes: Any) -> float:
    return float(sum(route.option.ms for route in routes))


@pytest.mark.parametrize("budget", [400, 800, 1500, 2500, 9000])
def test_the_routes_fit_the_budget_together(device: FakeDevice, budget: float) -> None:
    routes = device.runtime.plan(PROMPTS, total_ms=budget)
    assert [route.prompt for route in routes] == PROMPTS
    assert total_ms(routes) <= budget
    again = device.runtime.plan(PROMPTS, mean_ms=budget / 10)
    assert [route.chosen.name for route in again] == [route.chosen.name for route in routes]


def test_prompts_that_gain_most_get_the_slow_candidates(device: FakeDevice) -> None:
    names = [route.chosen.name for route in device.runtime.plan(PROMPTS, total_ms=1300)]
    assert not any(name.startswith("base") for name in names[:5])
    assert sum(name.startswith("base") for name in names[5:]) >= 3


def test_planned_routes_have_reasons_and_the_price_of_time(device: FakeDevice) -> None:
    route = device.runtime.plan(PROMPTS, total_ms=1300)[0]
    assert "best use of 1300 ms for 10 prompts" in route.reason
    assert route.lam > 0
    assert all(option.why for option in route.options)
    assert route.to_json()["router"]["basis"] == "test"
    assert "enough" in device.runtime.plan(PROMPTS, total_ms=99999)[0].reason


def test_planning_again_judges_no_prompt_twice(open_device: Callable[..., FakeDevice]) -> None:
    quality = FavoursLongPrompts(needs_states=True)
    device = open_device(quality=quality)
    routes = device.runtime.plan(PROMPTS, total_ms=1300)
    calls = device.engines["tiny/text_encoder/encode"].calls
    again = device.runtime.plan(routes[4:], total_ms=5000)
    assert (quality.asked, device.engines["tiny/text_encoder/encode"].calls) == (len(set(PROMPTS)), calls)
    assert [route.prompt for route in again] == PROMPTS[4:]
    assert again[-1].chosen.name == "base@8"


def test_observed_times_change_the_plan(device: FakeDevice) -> None:
    before = total_ms(device.runtime.plan(PROMPTS, total_ms=99999))
    device.slowdown[""] = 2.0
    for seed in range(8):
        device.runtime.generate("a lake", seed=seed)
    assert total_ms(device.runtime.plan(PROMPTS, total_ms=99999)) > 1.5 * before


def test_a_budget_that_is_too_small_raises_or_plans_the_fastest(device: FakeDevice) -> None:
    with pytest.raises(BudgetError, match="10 prompts do not fit in 100 ms"):
        device.runtime.plan(PROMPTS, total_ms=100)
    routes = device.runtime.plan(PROMPTS, total_ms=100, or_fastest=True)
    assert {route.chosen.name for route in routes} == {"turbo@1"}
    assert "nothing fits" in routes[0].reason


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ConfigError),
        ({"total_ms": 100, "mean_ms": 10}, ConfigError),
        ({"total_ms": 0}, ConfigError),
        ({"total_ms": float("nan")}, ConfigError),
        ({"mean_ms": float("inf")}, ConfigError),
        ({"total_ms": 5000, "count": 0}, ConfigError),
        ({"total_ms": 5000, "prompts": ["a lake", ""]}, PromptError),
    ],
)
def test_invalid_arguments_of_plan_are_refused(device: FakeDevice, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        device.runtime.plan(**{"prompts": PROMPTS, **arguments})


@pytest.mark.parametrize("name", ["total_ms", "mean_ms"])
@pytest.mark.parametrize("value", ["5", float("nan"), -1, True])
def test_the_error_of_an_invalid_budget_names_the_argument(device: FakeDevice, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} .*a number of milliseconds above 0") as caught:
        device.runtime.plan(PROMPTS, **{name: value})
    assert caught.value.name == name


def test_the_plan_of_no_prompts_is_empty(device: FakeDevice) -> None:
    assert device.runtime.plan([], total_ms=100) == []


def test_on_averages_chance_decides_which_prompts_get_the_better_candidate(open_device: Callable[..., FakeDevice]) -> None:
    device = open_device(quality=AverageQuality([0.4, 0.5, 0.7, 0.8], [0.0] * 4))
    prompts = [f"prompt {index}" for index in range(40)]
    names = [route.chosen.name for route in device.runtime.plan(prompts, mean_ms=130)]
    assert 1 < len(set(names)) <= 3
    assert set(names[:20]) == set(names[20:])  # not the first prompts of the list alone
    assert names == [route.chosen.name for route in device.runtime.plan(prompts, mean_ms=130)]
