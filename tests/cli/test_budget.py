"""How `gen --total-s` spends its time, on fake engines and a fake clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.cli.budget import Budget
from costroute_rt.cli.choice import ImageChoice
from costroute_rt.cli.output import Job
from costroute_rt.cli.progress import Status
from costroute_rt.cli.report import Report
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.judgement import Judgement
from costroute_rt.routing.prompt_encoder import TextStates
from costroute_rt.runtime import Runtime
from tests.runtime.fakes import FakeDevice, open_fake_runtime

IMAGE = ImageChoice(
    max_ms=None, or_fastest=False, candidate=None, lam=0.0, tolerance=0.0, count=1, negative_prompt=None, height=None, width=None,
    plain_prompt=False,
)  # fmt: skip
PROMPTS = ["a lake", "a long and winding road to a house behind the hills"] * 20


class LikesLong:
    needs_states = False
    engines = ()

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        step = 0.1 if len(prompt) > 20 else 0.001
        return Judgement(mean=0.5 + step * np.arange(4), standard_error=np.full(4, 0.01), basis="test")


@pytest.fixture
def device(tiny_bundle: Path) -> FakeDevice:
    return open_fake_runtime(Bundle.open(tiny_bundle), quality=LikesLong())


def spend(device: FakeDevice, total_s: float, prompts: list[str]) -> tuple[Budget, list[tuple[str, str]]]:
    """Generates every prompt; returns which candidate each got."""
    budget = Budget(total_s=total_s, mean_ms=None, clock=device.clock)
    jobs = [Job(prompt=prompt, line=line, seed=1, indices=(0,)) for line, prompt in enumerate(prompts, 1)]
    work = budget.divide(lambda: device.runtime, jobs, IMAGE, Report(Status(device.clock), as_json=False))
    return budget, [(job.prompt, share.generate(device.runtime, job.prompt, 1, None).route.chosen.name) for job, share in work]


@pytest.mark.parametrize("total_s", [2.0, 4.0, 8.0])
def test_the_budget_is_kept_and_used_and_goes_to_those_who_gain(device: FakeDevice, total_s: float) -> None:
    started = device.clock()
    _, got = spend(device, total_s, PROMPTS)
    assert 0.85 * total_s < device.clock() - started <= total_s
    base = [sum(name.startswith("base") for prompt, name in got if prompt == kind) for kind in PROMPTS[:2]]
    assert base[1] > base[0]


def test_a_device_that_slows_down_gets_cheaper_candidates(device: FakeDevice) -> None:
    calls = 0

    def slow_down(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            device.slowdown[""] = 1.5

    device.on_call.append(slow_down)
    started = device.clock()
    spend(device, 5.0, PROMPTS)
    assert calls > 80
    assert device.clock() - started <= 5.0


def test_when_the_time_has_run_out_the_fastest_finish_the_job(device: FakeDevice) -> None:
    device.slowdown[""] = 20.0
    budget, got = spend(device, 2.0, PROMPTS[:10])
    assert len(got) == 10
    assert {name for _, name in got[2:]} == {"turbo@1"}
    assert budget.describe(10).endswith("budget missed")


def test_many_prompts_are_not_planned_anew_after_every_image(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, plan = [], Runtime.plan

    def note(self: Runtime, routes: Any, **wanted: Any) -> Any:
        planned.append(len(routes))
        return plan(self, routes, **wanted)

    monkeypatch.setattr(Runtime, "plan", note)
    spend(device, 60.0, ["a lake"] * 300)
    assert planned[:3] == [128, 124, 120]
    assert planned[-5:] == [6, 5, 4, 3, 2]
    assert len(planned) < 200
