"""F2: a runtime refused every budget for as long as it was asked, because only work could correct what it had learned under load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BudgetError, Reason
from tests.runtime.fakes import POOL, FakeDevice, open_fake_runtime

IDLE_SOON_S = 3.0
"""Time after the end of a load in which a budget of 1.1 times the idle estimate must be served."""


@pytest.fixture
def opened(tiny_bundle: Path) -> Callable[..., FakeDevice]:
    return lambda **arguments: open_fake_runtime(Bundle.open(tiny_bundle), **arguments)


def fastest_p95(device: FakeDevice) -> float:
    return min(option.p95_ms for option in device.runtime.route("a house").options)


def ask_until(device: FakeDevice, until_s: float, max_ms: float | None) -> float | None:
    """Ask again and again until the clock shows `until_s`; returns when the last image was finished, None if there was none."""
    served = None
    while device.clock.now < until_s:
        try:
            device.runtime.generate("a house", seed=1, max_ms=max_ms)
            served = device.clock.now
        except BudgetError:
            device.clock.pass_ms(50)
    return served


@pytest.mark.parametrize("free", [False, True], ids=["budgets under load", "no budgets under load"])
@pytest.mark.parametrize("seconds", [6, 60])
@pytest.mark.parametrize("factor", [1.2, 2, 3, 6])
@pytest.mark.parametrize("pool", [POOL, POOL[:1]], ids=["pool", "one candidate"])
def test_f2_budgets_are_served_soon_after_a_load(
    opened: Callable[..., FakeDevice], pool: tuple[tuple[str, str, int, float, float], ...], factor: float, seconds: float, free: bool
) -> None:
    device = opened(pool=pool)
    max_ms = 1.1 * fastest_p95(device)
    device.slowdown[""] = factor
    ask_until(device, device.clock.now + seconds, None if free else max_ms)
    device.slowdown[""] = 1.0
    over_s = device.clock.now
    while True:
        try:
            result = device.runtime.generate("a house", seed=1, max_ms=max_ms)
            break
        except BudgetError:
            device.clock.pass_ms(50)
            assert device.clock.now - over_s < IDLE_SOON_S
    assert result.met
    for _ in range(10):  # and it stays so
        assert device.runtime.generate("a house", seed=1, max_ms=max_ms).met


@pytest.mark.parametrize("budget", [1.1, 2.0])
@pytest.mark.parametrize("pause_ms", [0.1, 300.0, 1000.0])
@pytest.mark.parametrize("factor", [3, 7])
def test_f2_budgets_are_served_soon_however_often_a_client_asks(
    opened: Callable[..., FakeDevice], factor: float, pause_ms: float, budget: float
) -> None:
    device = opened()
    max_ms = budget * fastest_p95(device)

    def ask() -> bool:
        try:
            device.runtime.generate("a house", seed=1, max_ms=max_ms)
        except BudgetError:
            device.clock.pass_ms(pause_ms)
            return False
        return True

    device.slowdown[""] = factor
    while device.clock.now < 6:
        ask()
    device.slowdown[""] = 1.0
    over_s = device.clock.now
    while not ask():
        assert device.clock.now - over_s < IDLE_SOON_S


@pytest.mark.parametrize("silence_s", [0, 700])
def test_f2_an_image_that_was_interrupted_is_no_sign_of_load(opened: Callable[..., FakeDevice], silence_s: float) -> None:
    device = opened(pool=POOL[:1])
    device.runtime.generate("a house", seed=1)
    device.clock.pass_ms(1000 * silence_s)
    device.slowdown[""] = 3000.0  # the process was suspended meanwhile
    device.runtime.generate("a house", seed=1)
    device.slowdown[""] = 1.0
    assert device.runtime.generate("a house", seed=1, max_ms=25 * fastest_p95_idle(device)).met


def fastest_p95_idle(device: FakeDevice) -> float:
    """The estimate without load."""
    return min(option.cost.idle_ms for option in device.runtime.route("a house").options)


@pytest.mark.parametrize("factor", [0.15, 0.3])
def test_f2_a_profile_taken_under_load_refuses_no_budget_for_long(opened: Callable[..., FakeDevice], factor: float) -> None:
    device = opened(pool=POOL[:1])
    max_ms = 1.3 * factor * fastest_p95(device)
    device.slowdown[""] = factor
    with pytest.raises(BudgetError, match="even on an idle machine"):
        device.runtime.generate("a house", seed=1, max_ms=max_ms)
    device.clock.pass_ms(600)
    assert ask_until(device, device.clock.now + IDLE_SOON_S, max_ms) is not None
    assert device.runtime.generate("a house", seed=1, max_ms=max_ms).met


def test_f2_refusals_measure_the_device_twice_a_second_at_most(opened: Callable[..., FakeDevice]) -> None:
    device = opened(pool=POOL[:1])
    engine = device.engines["tiny/turbo/step"]
    before = engine.calls
    for _ in range(100):
        with pytest.raises(BudgetError):
            device.runtime.generate("a house", seed=1, max_ms=20)
        device.clock.pass_ms(10)
    assert 2 <= engine.calls - before <= 6


def test_f2_other_candidates_may_have_run_since_the_load(opened: Callable[..., FakeDevice]) -> None:
    device = opened()
    max_ms = 1.1 * fastest_p95(device)
    device.slowdown[""] = 4.0
    for _ in range(30):
        device.runtime.generate("a house", candidate="turbo@1", seed=1)
    device.slowdown[""] = 1.0
    for _ in range(12):
        device.runtime.generate("a house", candidate="base@8", seed=1)
    assert device.runtime.generate("a house", seed=1, max_ms=max_ms).met


def test_f2_a_refusal_under_load_says_so(opened: Callable[..., FakeDevice]) -> None:
    device = opened(pool=POOL[:1])
    device.slowdown[""] = 2.5
    for _ in range(5):
        device.runtime.generate("a house", seed=1)
    need = r"turbo@1, needs about \d+ ms now, 35 ms when the machine is idle: recent runs were \d\.\d times slower"
    with pytest.raises(BudgetError, match=need) as caught:
        device.runtime.generate("a house", seed=1, max_ms=40)
    assert caught.value.reason is Reason.LOAD
    assert caught.value.recent_factor > 2
    with pytest.raises(BudgetError, match="even on an idle machine") as caught:
        device.runtime.generate("a house", seed=1, max_ms=20)
    assert caught.value.reason is Reason.TOO_SLOW


def test_f2_plans_are_made_soon_after_a_load(opened: Callable[..., FakeDevice]) -> None:
    device = opened()
    device.slowdown[""] = 3.0
    for _ in range(8):
        device.runtime.generate("a house", candidate="turbo@1", seed=1)
    with pytest.raises(BudgetError, match=r"10 prompts do not fit in 400 ms.* when the machine is idle") as caught:
        device.runtime.plan(["a lake"] * 10, total_ms=400)
    assert (caught.value.reason, caught.value.max_ms) == (Reason.LOAD, 400)
    device.clock.pass_ms(2500)
    assert len(device.runtime.plan(["a lake"] * 10, total_ms=400)) == 10
