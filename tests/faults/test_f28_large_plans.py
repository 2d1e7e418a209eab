"""F28: the time of a plan grew with the square of the number of prompts that look alike."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.cost.allocation import allocate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.judgement import Judgement
from tests.runtime.fakes import FakeDevice, open_fake_runtime

COSTS = np.array([20.0, 50.0, 120.0, 400.0])


class Different:
    """An estimate that differs from prompt to prompt."""

    needs_states, engines = False, ()

    def judge(self, prompt: str, states: Any) -> Judgement:
        return Judgement(mean=np.arange(4.0) * (1 + len(prompt) % 7), standard_error=np.full(4, 0.01), basis="test")


def count_calls(work: Callable[[], object]) -> int:
    """Function calls that Python makes, which do not depend on the machine's speed."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("quality", [None, Different()], ids=["averages", "judged"])
def test_f28_planning_takes_time_in_proportion_to_the_prompts(tiny_bundle: Path, quality: Any) -> None:
    device: FakeDevice = open_fake_runtime(Bundle.open(tiny_bundle), quality=quality)
    prompts = [f"a lake {'and a hill ' * (index % 5)}" for index in range(2000)]
    few, many = (count_calls(lambda n=n: device.runtime.plan(prompts[:n], mean_ms=100)) for n in (500, 2000))
    assert many < 4.5 * few
    assert many < 2000 * (100 if quality is None else 300)


@pytest.mark.parametrize("kind", ["equal", "two kinds", "different"])
def test_f28_a_budget_is_divided_in_few_operations(kind: str) -> None:
    kinds = {"equal": np.zeros(8000), "two kinds": np.repeat([0.0, 0.1], 4000), "different": np.random.default_rng(0).uniform(0, 1, 8000)}
    rows = kinds[kind][:, None]
    quality = (1 + rows) * np.array([0.5, 0.6, 0.8, 0.9])
    found = []
    assert count_calls(lambda: found.append(allocate(quality, COSTS, 8000 * 100.0))) < 8000
    assert found[0].total_ms <= 800_000


def test_f28_leftover_time_for_small_upgrades_is_spent_in_few_operations() -> None:
    quality = np.tile([0.0, 0.0001, 1000.0], (4000, 1))
    cost = np.array([1.0, 2.0, 1e6])

    def spend(prompts: int) -> Callable[[], object]:
        return lambda: allocate(quality[:prompts], cost, prompts + 9e5)

    assert count_calls(spend(4000)) < 4.5 * count_calls(spend(1000))
    assert set(allocate(quality, cost, 4000 + 9e5).choice.tolist()) == {1}
