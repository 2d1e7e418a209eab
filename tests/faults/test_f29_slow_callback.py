"""F29: the time that a caller spent between rows was taken for the runtime's own, and charged to candidates of one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt import Result
from costroute_rt.call import Call, Stage
from costroute_rt.cost.cost_model import CostModel, Observed
from costroute_rt.engines.bundle.bundle import Bundle
from tests.runtime.fakes import FakeClock, FakeDevice, open_fake_runtime, steady


@pytest.fixture
def device(tiny_bundle: Path) -> FakeDevice:
    return open_fake_runtime(Bundle.open(tiny_bundle))


def test_f29_a_slow_callback_is_not_charged_to_later_requests(device: FakeDevice) -> None:
    for seed in range(8):
        device.runtime.generate("a house", candidate="base@4", seed=seed, on_step=lambda event: device.clock.pass_ms(100))
    cost = device.runtime.route("a house", candidate="turbo@1").option.cost
    assert cost.overhead_ms <= 1
    assert device.runtime.generate("a house", seed=1, max_ms=40).route.chosen.name == "turbo@1"


def test_f29_a_slow_callback_does_not_raise_the_margin(device: FakeDevice) -> None:
    before = device.runtime.route("a house", candidate="base@8").option.cost
    for seed in range(20):
        device.runtime.generate("a house", candidate="base@4", seed=seed, on_step=lambda event: device.clock.pass_ms(100))
    after = device.runtime.route("a house", candidate="base@8").option.cost
    assert after.p95_ms <= before.p95_ms + 1


def test_f29_a_slow_consumer_of_a_stream_is_not_charged_either(device: FakeDevice) -> None:
    for seed in range(8):
        for _ in device.runtime.stream("a house", candidate="base@4", seed=seed):
            device.clock.pass_ms(100)
    assert device.runtime.route("a house", candidate="turbo@1").option.cost.overhead_ms <= 1


def test_f29_a_consumer_that_starts_late_is_not_charged_either(device: FakeDevice) -> None:
    for seed in range(8):
        stream = device.runtime.stream("a house", candidate="turbo@1", seed=seed)
        device.clock.pass_ms(500)
        result = list(stream)[-1]
        assert isinstance(result, Result)
        assert result.timings.caller_ms == pytest.approx(500)
    assert device.runtime.route("a house", candidate="turbo@1").option.cost.overhead_ms <= 1


def test_f29_overhead_of_rows_is_charged_by_their_number() -> None:
    clock = FakeClock()
    model = CostModel({"tiny/base/step": steady(50)}, clock)
    four, one = ((Call("tiny/base/step", Stage.DENOISE, times=times),) for times in (4, 1))
    for _ in range(40):
        observed = Observed(rows=4, row_overhead_ms=24.0, request_overhead_ms=5.0)
        model.record_call(observed, four[0], 200.0)
        model.observe(model.predict(four), observed, actual_ms=229.0)
        clock.pass_ms(229)
    assert model.predict(four).overhead_ms == pytest.approx(29)
    assert model.predict(one).overhead_ms == pytest.approx(11)
