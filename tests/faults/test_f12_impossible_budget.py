"""F12: a budget for a whole file that cannot be kept is refused at once, with the budget that was given and what would be needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Runtime
from tests.cli.conftest import Run, fake_device
from tests.runtime.fakes import FakeDevice

LINES = "a lake\n" * 4000


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that were judged."""
    judged, route = list[str](), Runtime.route

    def counting_route(self: Runtime, prompt: str, **options: Any) -> Any:
        judged.append(prompt)
        return route(self, prompt, **options)

    monkeypatch.setattr(Runtime, "route", counting_route)
    return judged


def test_f12_a_total_that_is_too_small_is_refused_before_prompts_are_judged(gen: Run, fake: FakeDevice, judged: list[str]) -> None:
    started = fake.clock()
    done = gen("--prompts", "-", "-o", "out", "--total-s", 8, stdin=LINES)
    assert done.exit_code == 3
    assert "4000 prompts do not fit in 8000 ms: the fastest candidate, turbo@1, needs about 14" in done.stderr
    assert "(--total-s 14" in done.stderr
    assert len(judged) <= 1
    assert fake.clock() - started < 1
    assert not Path("out").exists()


def test_f12_the_total_that_the_message_names_is_enough(
    gen: Run, fake: FakeDevice, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = gen("--prompts", "-", "-o", "out", "--total-s", 1, stdin="a lake\n" * 40)
    needed = refused.stderr.partition("--total-s ")[2].partition(" ")[0]
    fake_device(tiny_bundle, monkeypatch)
    done = gen("--prompts", "-", "-o", "out", "--total-s", needed, stdin="a lake\n" * 40)
    assert done.exit_code == 0, done.stderr


def test_f12_a_mean_that_is_too_small_is_refused_as_it_was_given(gen: Run, fake: FakeDevice, judged: list[str]) -> None:
    done = gen("--prompts", "-", "-o", "out", "--mean-ms", 20, stdin=LINES)
    assert done.exit_code == 3
    assert "nothing fits in 20 ms: the fastest candidate, turbo@1, needs about 3" in done.stderr
    assert len(judged) <= 1


def test_f12_several_images_of_each_line_count(gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", "-o", "out", "--total-s", 1, "--count", 100, stdin="a lake\na house\n")
    assert done.exit_code == 3
    assert "2 prompts do not fit in 1000 ms" in done.stderr


def test_f12_or_fastest_makes_the_images_all_the_same(gen: Run, fake: FakeDevice) -> None:
    done = gen("--prompts", "-", "-o", "out", "--total-s", 0.1, "--or-fastest", stdin="a lake\n" * 10)
    assert done.exit_code == 0, done.stderr
    assert "budget missed" in done.stderr
    assert done.stdout.count("turbo@1") == 10


def test_f12_the_first_image_does_not_wait_until_all_prompts_are_judged(
    gen: Run, fake: FakeDevice, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_before_image, generate = list[int](), Runtime.generate

    def noting_generate(self: Runtime, prompt: str, **options: Any) -> Any:
        judged_before_image.append(len(judged))
        return generate(self, prompt, **options)

    monkeypatch.setattr(Runtime, "generate", noting_generate)
    assert gen("--prompts", "-", "-o", "out", "--total-s", 60, stdin="a lake\n" * 300).exit_code == 0
    assert judged_before_image[0] == 128
    assert len(judged_before_image) == 300


@pytest.mark.parametrize("budget", [("--total-s", 30), ("--mean-ms", 100)])
def test_f12_a_budget_is_kept_over_several_groups_of_prompts(budget: tuple[str, float], gen: Run, fake: FakeDevice) -> None:
    started = fake.clock()
    done = gen("--prompts", "-", "-o", "out", "--json", *budget, stdin="a lake\n" * 300)
    assert done.exit_code == 0, done.stderr
    assert 25 < fake.clock() - started <= 30.5
    halves = [json.loads(line)["settings"]["num_inference_steps"] for line in done.stdout.splitlines()]
    assert abs(sum(halves[:150]) - sum(halves[150:])) < 100  # the time is spread over the whole file


def test_f12_more_lines_than_one_total_can_serve_are_refused(gen: Run, fake: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costroute_rt.cli.budget.MOST_LINES", 5)
    done = gen("--prompts", "-", "-o", "out", "--total-s", 60, stdin="a lake\n" * 6)
    assert done.exit_code == 2
    assert "at most 5 prompts" in done.stderr
    assert not Path("out").exists()
