"""F16: a number of images that no run can make is refused at once; fewer are made and written one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from costroute_rt import read_settings
from tests.cli.conftest import Run
from tests.runtime.fakes import FakeDevice


def images() -> list[str]:
    return sorted(path.name for path in Path().glob("*.png"))


@pytest.mark.parametrize("count", [10_001, 50_000_000, 2**31 - 1])
def test_f16_more_images_than_the_limit_are_refused_before_any_work(count: int, gen: Run, fake: FakeDevice) -> None:
    for source in (("a lake",), ("--prompts", "-")):
        done = gen(*source, "--count", count, stdin="a lake\n")
        assert done.exit_code == 2
        assert done.stderr == f"error: --count is {count}: expected 1 to 10000; further runs make more\n"
    assert fake.engines["tiny/vae/decode"].calls == 1  # of the warm-up


@pytest.fixture
def cancel_at(fake: FakeDevice) -> Callable[[int], None]:
    """Presses Ctrl-C when an image is decoded for the n-th time."""

    def cancel(image: int) -> None:
        decoded = 0

        def note(name: str) -> None:
            nonlocal decoded
            decoded += name.endswith("/decode")
            if decoded == image:
                raise KeyboardInterrupt

        fake.on_call.append(note)

    return cancel


def test_f16_images_are_written_as_they_are_made(gen: Run, cancel_at: Callable[[int], None]) -> None:
    cancel_at(4)
    done = gen("a lake", "--seed", 5, "--count", 1000, "-o", "x.png")
    assert done.exit_code == 130
    assert images() == ["x-1.png", "x-2.png", "x-3.png"]
    assert [read_settings(name)["seed"] for name in images()] == [5, 6, 7]
    assert done.stdout.count("\n") == 3
    assert done.stderr == "3 of 1000 images made\n\nerror: cancelled\n"


def test_f16_several_images_are_those_of_single_runs(gen: Run, fake: FakeDevice) -> None:
    expected = [fake.runtime.generate("a lake", seed=seed, candidate="base@8").pixels[0].tobytes() for seed in (5, 6)]
    gen("a lake", "--seed", 5, "--count", 2, "-o", "x.png")
    from PIL import Image

    for name, pixels in zip(images(), expected, strict=True):
        with Image.open(name) as image:
            assert image.tobytes() == pixels


def test_f16_a_budget_is_for_all_images_together(gen: Run, fake: FakeDevice) -> None:
    done = gen("a lake", "--count", 4, "--max-ms", 240, "-o", "x.png", "--json")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {report["settings"]["candidate"] for report in reports} == {"turbo@2"}
    assert [(report["max_ms"], report["met"]) for report in reports] == [(240, True)] * 4
    assert sum(report["actual_ms"] for report in reports) <= 240


def test_f16_the_last_image_says_whether_the_budget_was_met(gen: Run, fake: FakeDevice) -> None:
    first, *_, last = gen("a lake", "--count", 4, "--max-ms", 240, "-o", "x.png").stdout.splitlines()
    assert "budget" not in first
    assert last.endswith("budget 240 ms met")
    assert ", 4 images in " in last


def test_f16_too_little_time_for_all_images_is_refused_with_the_time_they_need(gen: Run, fake: FakeDevice) -> None:
    done = gen("a lake", "--count", 4, "--max-ms", 100, "-o", "x.png")
    assert done.exit_code == 3
    assert done.stderr.startswith("error: nothing fits in 100 ms: the fastest candidate, turbo@1, needs about 1")
    assert images() == []


def test_f16_or_fastest_makes_all_images_and_reports_the_miss(gen: Run, fake: FakeDevice) -> None:
    done = gen("a lake", "--count", 4, "--max-ms", 100, "--or-fastest", "-o", "x.png")
    assert done.exit_code == 0
    assert done.stdout.endswith("budget 100 ms missed\n")
    assert len(images()) == 4


def test_f16_when_the_machine_slows_down_the_other_images_are_cheaper(gen: Run, fake: FakeDevice) -> None:
    fake.on_call.append(lambda name: fake.slowdown.update({"": 1.5}) if name.endswith("/decode") else None)
    done = gen("a lake", "--count", 6, "--max-ms", 500, "-o", "x.png")
    assert done.exit_code == 0, done.stderr
    assert len(images()) == 6
    assert done.stdout.endswith("budget 500 ms met\n")
