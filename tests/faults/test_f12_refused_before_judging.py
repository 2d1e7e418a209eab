"""F12: thousands of prompts were judged before a budget was refused that could not be kept whatever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BudgetError, Reason
from costroute_rt.judgement import Judgement
from tests.runtime.fakes import FakeDevice, open_fake_runtime


class Counting:
    """An estimate that counts the prompts that it judges."""

    needs_states, engines, judged = False, (), 0

    def judge(self, prompt: str, states: Any) -> Judgement:
        self.judged += 1
        return Judgement(mean=np.arange(4.0), standard_error=np.full(4, 0.01), basis="test")


@pytest.fixture
def device(tiny_bundle: Path) -> FakeDevice:
    return open_fake_runtime(Bundle.open(tiny_bundle), quality=Counting())


@pytest.mark.parametrize("prompts", [2, 4000])
def test_f12_an_impossible_total_is_refused_before_any_prompt_is_judged(device: FakeDevice, prompts: int) -> None:
    with pytest.raises(BudgetError, match=f"{prompts} prompts do not fit in 8 ms: the fastest candidate, turbo@1, needs") as caught:
        device.runtime.plan(["a lake"] * prompts, total_ms=8)
    error = caught.value
    assert (error.max_ms, error.prompts, error.fastest, error.reason) == (8, prompts, "turbo@1", Reason.TOO_SLOW)
    assert error.fastest_ms == pytest.approx(35 * prompts)
    assert device.resources.quality.judged == 0


def test_f12_the_total_that_the_error_names_is_enough(device: FakeDevice) -> None:
    with pytest.raises(BudgetError) as caught:
        device.runtime.plan(["a lake"] * 7, mean_ms=5)
    assert caught.value.max_ms == 35
    assert len(device.runtime.plan(["a lake"] * 7, total_ms=caught.value.fastest_ms + 1e-6)) == 7


def test_f12_or_fastest_plans_anyway(device: FakeDevice) -> None:
    assert {route.chosen.name for route in device.runtime.plan(["a lake"] * 7, total_ms=1, or_fastest=True)} == {"turbo@1"}


@pytest.mark.parametrize("total_ms", [0.3, 1e-9])
def test_f12_a_tiny_budget_is_named_as_given(device: FakeDevice, total_ms: float) -> None:
    with pytest.raises(BudgetError, match=f"do not fit in {total_ms:.2g} ms"):
        device.runtime.plan(["a lake"] * 7, total_ms=total_ms)
