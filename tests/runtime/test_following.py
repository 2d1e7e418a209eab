"""Following requests from outside: their route, their place in the queue, and engines closed between them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from costroute_rt import BudgetError, ConfigError, Reason, Route
from tests.runtime.fakes import FakeDevice
from tests.runtime.test_waiting import DECODE, PROMPT, ROW, Gate


def test_a_job_tells_its_route_when_it_is_accepted(device: FakeDevice) -> None:
    routes, steps = list[Route](), list[int]()

    def note(route: Route) -> None:
        assert not steps
        routes.append(route)

    job = device.runtime.submit(PROMPT, max_ms=100, on_route=note, on_step=lambda event: steps.append(event.index))
    result = job.result(60)
    assert [route.chosen.name for route in routes] == ["turbo@2"]
    assert job.route is result.route
    assert job.place is None
    with pytest.raises(ConfigError, match="on_route"):
        device.runtime.submit(PROMPT, on_route=5)  # type: ignore[arg-type]


def test_a_route_that_changes_after_a_wait_is_told_again(device: FakeDevice) -> None:
    names = list[str]()
    with Gate(device, ROW) as gate:
        running = device.runtime.submit(PROMPT, candidate="base@8", max_ms=500)
        assert gate.reached.wait(60)
        waiting = device.runtime.submit(PROMPT, max_ms=510, on_route=lambda route: names.append(route.chosen.name))
        device.wait_for_waiting(1)
        running.cancel()
    waiting.result(60)
    assert names == ["turbo@2", "base@8"]


def test_a_waiting_job_has_a_place_until_its_work_begins(device: FakeDevice) -> None:
    with Gate(device, DECODE) as gate:
        first = device.runtime.submit(PROMPT, candidate="turbo@1")
        assert gate.reached.wait(60)
        second = device.runtime.submit(PROMPT, candidate="turbo@1")
        device.wait_for_waiting(1)
        assert first.place is None
        place = second.place
        assert place is not None
        assert (place.ahead, place.wait_ms) == (1, pytest.approx(10))
    second.result(60)
    assert second.place is None


def test_unloaded_engines_come_back_within_the_next_request(device: FakeDevice) -> None:
    before = device.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    engines = dict(device.engines)
    assert set(device.runtime.unload()) == set(engines)
    assert all(engine.is_closed for engine in engines.values())
    route = device.runtime.route(PROMPT, candidate="turbo@1")
    assert not route.option.resident
    assert route.option.cost.swap_ms > 0
    after = device.runtime.generate(PROMPT, candidate="turbo@1", seed=1)
    np.testing.assert_array_equal(before.pixels, after.pixels)
    assert after.timings.swap_ms > 0


def test_engines_that_a_request_uses_stay(device: FakeDevice) -> None:
    stream = device.runtime.stream(PROMPT, candidate="turbo@2")
    next(stream)
    closed = device.runtime.unload()
    assert "tiny/turbo/step" not in closed
    assert "tiny/base/guided_step" in closed
    assert [type(each).__name__ for each in stream] == ["StepEvent", "Result"]


def test_unloading_waits_for_the_unit_that_runs(device: FakeDevice) -> None:
    with Gate(device, DECODE) as gate:
        job = device.runtime.submit(PROMPT, candidate="turbo@1")
        assert gate.reached.wait(60)
        unloading = threading.Thread(target=device.runtime.unload)
        unloading.start()
        device.wait_for_waiting(1)
        assert not device.engines[DECODE].is_closed
    unloading.join(60)
    assert job.result(60).pixels.any()


def test_the_sizes_of_images_begin_with_the_default(device: FakeDevice) -> None:
    height, width = device.runtime.image_sizes[0]
    assert device.runtime.generate(PROMPT, candidate="turbo@1").pixels.shape[1:3] == (height, width)


def test_what_cannot_fit_behind_others_is_refused_before_its_prompt_is_read(device: FakeDevice) -> None:
    with Gate(device, ROW) as gate:
        first = device.runtime.submit(PROMPT, candidate="base@8", max_ms=600)
        assert gate.reached.wait(60)
        encoded = device.engines["tiny/text_encoder/encode"].calls
        with pytest.raises(BudgetError) as caught:
            device.runtime.submit("another prompt", max_ms=100, candidate="base@8", refuse_early=True)
        assert caught.value.reason is Reason.TOO_SLOW
        job = device.runtime.submit("another prompt", max_ms=100, candidate="base@8")
        assert isinstance(job.exception(60), BudgetError)
        assert device.engines["tiny/text_encoder/encode"].calls == encoded
    first.result(60)


def test_a_request_whose_prompt_is_still_being_read_counts_for_those_that_follow(device: FakeDevice) -> None:
    with Gate(device, "tiny/text_encoder/encode") as gate:
        first = device.runtime.submit(PROMPT, max_ms=60)
        assert gate.reached.wait(60)
        with pytest.raises(BudgetError) as caught:
            device.runtime.submit(PROMPT, max_ms=61, refuse_early=True)
        assert caught.value.queue_ms > 30
    assert first.result(60).met


def test_a_budget_may_have_begun_before_the_call(device: FakeDevice) -> None:
    assert device.runtime.submit(PROMPT, max_ms=100).result(60).route.chosen.name == "turbo@2"
    result = device.runtime.submit(PROMPT, max_ms=100, spent_ms=50).result(60)
    assert result.route.chosen.name == "turbo@1"
    assert (result.settings["max_ms"], result.route.max_ms) == (100, 100)
    assert "within 100 ms" in result.route.reason
    assert result.timings.caller_ms == pytest.approx(50, abs=1)
    assert 80 < result.timings.total_ms < 100
    route = device.runtime.route(PROMPT, max_ms=100, spent_ms=50)
    assert (route.chosen.name, route.max_ms) == ("turbo@1", 100)
    with pytest.raises(ConfigError, match="spent_ms"):
        device.runtime.route(PROMPT, spent_ms=-1)
