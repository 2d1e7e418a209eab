"""What the budget promises, kept on a simulated device whose calls vary."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import mean, median, quantiles

import pytest

from costroute_rt.engines.store.cost import EngineCost
from tests.runtime.fakes import CALL_MS, FakeDevice, steady

POOL = tuple((f"turbo@{steps}", "turbo", steps, 1.0, 0.5 + steps / 20) for steps in (1, 2))
POOL += tuple((f"base@{steps}", "base", steps, 3.0, 0.7 + steps / 200) for steps in (2, 4, 8, 16))


class Noise:
    """Factors on call times: each call's own, one shared by an image, and now and then a call that is interrupted."""

    def __init__(self, seed: int, *, call: float = 0.04, image: float = 0.03, interrupted: float = 0.004) -> None:
        self._random = random.Random(seed)
        self._call, self._image, self._interrupted = call, image, interrupted
        self._shared = 1.0

    def __call__(self, name: str) -> float:
        if name.endswith("encode"):  # an image begins
            self._shared = math.exp(self._random.gauss(0, self._image))
        own = math.exp(abs(self._random.gauss(0, self._call)))
        return self._shared * own * (1 + self._random.random() * (self._random.random() < self._interrupted))


def profile(noise: Noise, factor: float) -> dict[str, EngineCost]:
    """Costs as measured while the device took `factor` times as long as it will."""
    costs = {}
    for name, ms in CALL_MS.items():
        times = [factor * ms * noise(name) for _ in range(40)]
        costs[name] = steady(median(times), p95=quantiles(times, n=20)[-1] / median(times))
    return costs


def simulate(device: FakeDevice, choose_budget: Callable[[random.Random], float], images: int = 150) -> dict[str, float]:
    """Requests with budgets as chosen, and how they went."""
    rng = random.Random(5)
    results = []
    for _ in range(images):
        results.append((max_ms := choose_budget(rng), device.runtime.generate("a house", seed=1, max_ms=max_ms)))
        device.clock.pass_ms(rng.uniform(0, 3000))
    return {
        "met": mean(bool(result.met) for _, result in results),
        "predicted over actual": mean(result.predicted_ms / result.actual_ms for _, result in results),
        "used": mean(result.actual_ms / max_ms for max_ms, result in results),
    }


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3], ids=["profiled when faster", "profiled as now", "profiled when slower"])
def test_budgets_between_the_fastest_and_the_slowest_are_met(open_device: Callable[..., FakeDevice], factor: float) -> None:
    noise = Noise(1)
    device = open_device(pool=POOL, noise=noise, measured=profile(noise, factor))

    def anywhere(rng: random.Random) -> float:
        costs = [option.p95_ms for option in device.runtime.route("a house").options]
        return math.exp(rng.uniform(math.log(min(costs)), math.log(max(costs))))

    found = simulate(device, anywhere)
    assert found["met"] >= 0.97
    assert 0.9 <= found["predicted over actual"] <= 1.1
    assert found["used"] >= 0.6


def test_budgets_that_a_candidate_only_just_fits_are_met_and_used(open_device: Callable[..., FakeDevice]) -> None:
    noise = Noise(2)
    device = open_device(pool=POOL, noise=noise, measured=profile(noise, 1.0))

    def tightest(rng: random.Random) -> float:
        return rng.choice(device.runtime.route("a house").options).p95_ms

    found = simulate(device, tightest, images=200)
    assert found["met"] >= 0.97
    assert 0.9 <= found["predicted over actual"] <= 1.1
    assert found["used"] >= 0.85


def test_a_device_that_turns_slow_keeps_deadlines_by_cheaper_routes(open_device: Callable[..., FakeDevice]) -> None:
    noise = Noise(3)
    device = open_device(pool=POOL, noise=noise, measured=profile(noise, 1.0))
    before = simulate(device, lambda rng: 500.0, images=20)
    device.slowdown[""] = 1.8
    results = [device.runtime.generate("a house", seed=1, max_ms=500) for _ in range(20)]
    assert before["met"] == 1
    assert results[0].replanned > 0
    assert mean(bool(result.met) for result in results) >= 0.95
    assert results[-1].replanned == 0
    device.slowdown[""] = 1.0
    device.clock.pass_ms(700_000)
    assert device.runtime.route("a house", max_ms=500).chosen.name == "base@8"
