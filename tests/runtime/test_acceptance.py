"""What the acceptance of a request rests on: the time that has passed, the work that is done, and what the others still need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from costroute_rt import BudgetError
from costroute_rt.generation import generation
from costroute_rt.generation.queue import Ticket
from costroute_rt.judgement import Judgement
from tests.runtime.fakes import CALL_MS, LOAD_MS, FakeDevice
from tests.runtime.generation.test_guard import POOL
from tests.runtime.test_waiting import Gate

PROMPT = "a red house by a lake"
ENCODE, ROW, DECODE = "tiny/text_encoder/encode", "tiny/base/guided_step", "tiny/vae/decode"
OpenDevice = Callable[..., FakeDevice]


class Averages:
    """Reads text states, if wanted, and gives averages; `on_judge` is called before."""

    engines: tuple[str, ...] = ()

    def __init__(self, *, needs_states: bool = False) -> None:
        self.needs_states, self.on_judge = needs_states, list[Callable[[], None]]()

    def judge(self, prompt: str, states: Any) -> Judgement:
        for each in self.on_judge:
            each()
        mean = np.array([0.5, 0.6, 0.8, 0.9])
        return Judgement(mean=mean, standard_error=0 * mean, basis="test")


@pytest.mark.parametrize(("passed_ms", "chosen"), [(0, "turbo@2"), (50, "turbo@1"), (70, None)])
def test_time_in_which_others_ran_while_the_prompt_was_judged_is_not_left(
    open_device: OpenDevice, passed_ms: float, chosen: str | None
) -> None:
    """As when the thread of a request that runs gets the processor in the middle of that."""
    averages = Averages()
    device = open_device(quality=averages)
    averages.on_judge.append(lambda: device.clock.pass_ms(passed_ms))
    if chosen is None:
        with pytest.raises(BudgetError) as caught:
            device.runtime.generate(PROMPT, max_ms=100, seed=1)
        assert caught.value.queue_ms == pytest.approx(passed_ms, abs=2)
    else:
        result = device.runtime.generate(PROMPT, max_ms=100, seed=1)
        assert (result.route.chosen.name, result.met, result.replanned) == (chosen, True, 0)
        assert result.predicted_ms == pytest.approx(result.actual_ms, abs=2)


def test_time_in_which_others_ran_while_the_prompt_was_tokenized_is_not_left(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_calls = generation.plan_calls

    def plan(*arguments: Any) -> Any:
        device.clock.pass_ms(50)
        return plan_calls(*arguments)

    monkeypatch.setattr(generation, "plan_calls", plan)
    result = device.runtime.generate(PROMPT, max_ms=100, seed=1)
    assert (result.route.chosen.name, result.met, result.replanned) == ("turbo@1", True, 0)


def test_loading_the_text_encoder_for_the_router_takes_time_of_the_budget(open_device: OpenDevice) -> None:
    """It is loaded when the choice is made, so it is not among the engines that are still to be loaded."""
    device = open_device(quality=Averages(needs_states=True), preload=False)
    loads_ms, runs_ms = 3 * LOAD_MS, 1 + 4 + 20 + 10
    result = device.runtime.generate(PROMPT, candidate="turbo@1", max_ms=1000, seed=1)
    assert result.actual_ms == pytest.approx(loads_ms + runs_ms, abs=2)
    assert result.predicted_ms == pytest.approx(result.actual_ms, abs=2)


def test_work_that_is_done_counts_once(open_device: OpenDevice) -> None:
    """The text encoder has run for the router when the choice is made, and its output is used again."""
    device = open_device(quality=Averages(needs_states=True))
    before = device.engines[ENCODE].calls
    result = device.runtime.generate(PROMPT, max_ms=37, seed=1)
    assert (device.engines[ENCODE].calls, result.met) == (before + 1, True)
    assert result.predicted_ms == pytest.approx(result.actual_ms, abs=2)


def test_a_request_whose_text_was_encoded_before_it_was_accepted_leaves_no_time_to_more_urgent_ones(open_device: OpenDevice) -> None:
    """It needs 56 of 58 ms, 4 of which have passed: if it counted as late, others would be put before it."""
    device = open_device(quality=Averages(needs_states=True))
    refused = list[BudgetError]()

    def ask(route: object) -> None:
        with pytest.raises(BudgetError) as caught:
            device.runtime.route(PROMPT, max_ms=45)
        refused.append(caught.value)

    result = device.runtime.submit(PROMPT, max_ms=58, seed=1, on_route=ask).result(60)
    assert (result.route.chosen.name, result.met, len(refused)) == ("turbo@2", True, 1)


def test_a_choice_after_a_wait_may_use_all_that_was_reserved(open_device: OpenDevice) -> None:
    """Another request was accepted behind it, without time to spare; then all wait longer than was expected."""
    device = open_device(quality=Averages(needs_states=True))
    with Gate(device, ROW) as gate:
        running = device.runtime.submit(PROMPT, candidate="base@8", seed=1)
        assert gate.reached.wait(60)
        waiting = device.runtime.submit("another house", max_ms=113, seed=2)
        device.wait_for_waiting(1)
        queue = device.runtime._device
        behind = Ticket(device.clock() + 1, remaining_ms=30.0)
        behind.deadline_s = device.clock() + (queue.forecast(behind).queue_ms + behind.remaining_ms) / 1000
        queue.enter(behind, None)
        device.clock.pass_ms(2)
    result = waiting.result(60)
    queue.leave(behind)
    running.result(60)
    assert (result.route.chosen.name, result.met) == ("turbo@2", True)


def test_others_wait_for_the_decoder_that_a_run_changes_to(open_device: OpenDevice) -> None:
    """An image that has time left gets the better decoder; from then on, requests that arrive count with it."""
    device = open_device(pool=POOL, profile={**CALL_MS, DECODE: 100.0, "tiny/tiny/decode": 10.0})
    device.slowdown[""] = 1.3
    for _ in range(9):
        device.runtime.generate(PROMPT, candidate="base@8", seed=1)
    device.slowdown.clear()
    route, expected = device.runtime.route(PROMPT), list[tuple[float, float]]()
    max_ms = (route.find("base@8-tiny").p95_ms + route.find("base@8").p95_ms) / 2
    device.on_call.append(lambda name: expected.append((device.clock(), device.runtime._device.forecast(Ticket()).queue_ms)))
    result = device.runtime.generate(PROMPT, max_ms=max_ms, seed=1)
    assert (result.route.chosen.name, result.made[0].name) == ("base@8-tiny", "base@8")
    left = [(device.clock() - now_s) * 1000 for now_s, _ in expected]
    assert [(found, queue_ms) for found, (_, queue_ms) in zip(left, expected, strict=True) if queue_ms < found - 0.1] == []
