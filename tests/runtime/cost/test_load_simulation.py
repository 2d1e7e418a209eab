"""Budgets on a simulated device that other programs load: kept while the load lasts, and served again once it is over."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import mean

import pytest

from tests.runtime.cost.load import ask
from tests.runtime.cost.test_budget_simulation import POOL, Noise, profile
from tests.runtime.fakes import FakeDevice

Open = Callable[..., FakeDevice]


def opened(open_device: Open, *, factor: float = 1.0) -> tuple[FakeDevice, float]:
    """A device of noisy calls, profiled when it was `factor` times as slow, and the upper estimate of its fastest candidate."""
    noise = Noise(1)
    device = open_device(pool=POOL, noise=noise, measured=profile(noise, factor))
    return device, min(option.p95_ms for option in device.runtime.route("a house").options)


def serve(device: FakeDevice, seconds: float, least_ms: float, most_ms: float, *, gap_ms: float) -> tuple[list[bool], int]:
    """Ask with random budgets and gaps; returns for each image whether its budget was met, and how many requests were refused."""
    rng, met, refused = random.Random(1), [], 0
    budgets = (math.exp(rng.uniform(math.log(least_ms), math.log(most_ms))) for _ in iter(int, 1))
    for answer in ask(device, device.clock.now + seconds, lambda: next(budgets), lambda: rng.uniform(0, gap_ms)):
        if answer.result is None:
            refused += 1
        else:
            met.append(bool(answer.result.met))
    return met, refused


@pytest.mark.parametrize(("factor", "most", "share"), [(2.0, 4, 0.93), (2.0, 15, 0.9), (3.0, 15, 0.9)])
def test_budgets_are_kept_under_a_load_that_lasts(open_device: Open, factor: float, most: float, share: float) -> None:
    device, fastest_ms = opened(open_device)
    serve(device, 20, 10 * fastest_ms, 10.1 * fastest_ms, gap_ms=500)
    device.slowdown[""] = factor
    met, refused = serve(device, 60, fastest_ms, most * fastest_ms, gap_ms=100)
    assert mean(met) >= share
    assert len(met) >= 0.3 * (len(met) + refused)


def test_budgets_that_a_lasting_load_rules_out_cost_few_late_images(open_device: Open) -> None:
    """Probes show that it lasts, so that no image must."""
    device, fastest_ms = opened(open_device)
    device.slowdown[""] = 2.0
    met, refused = serve(device, 60, fastest_ms, 1.3 * fastest_ms, gap_ms=100)
    assert len(met) <= 8
    assert refused > 300
    device.slowdown[""] = 1.0
    met, refused = serve(device, 20, 1.1 * fastest_ms, 1.3 * fastest_ms, gap_ms=100)
    assert refused <= 15
    assert mean(met) >= 0.97


@pytest.mark.parametrize("slower", [1.3, 2.0])
def test_a_device_that_stays_slower_than_profiled_is_learned(open_device: Open, slower: float) -> None:
    device, fastest_ms = opened(open_device, factor=1 / slower)
    serve(device, 120, fastest_ms, 15 * slower * fastest_ms, gap_ms=500)
    met, _ = serve(device, 60, fastest_ms, 4 * slower * fastest_ms, gap_ms=500)
    assert mean(met) >= 0.97
    device.clock.pass_ms(30_000)
    cost = device.runtime.route("a house", candidate="turbo@1").option.cost
    assert cost.idle_ms > 0.9 * slower * fastest_ms  # a pause does not make it forgotten
