"""F30: `Runtime.plan` took a text for a list and planned each of its letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError
from costroute_rt.request import Request
from tests.runtime.fakes import FakeDevice, open_fake_runtime


@pytest.fixture
def device(tiny_bundle: Path) -> FakeDevice:
    return open_fake_runtime(Bundle.open(tiny_bundle))


@pytest.mark.parametrize(
    "prompts",
    [
        "a red house",
        np.str_("a red house"),
        b"a red house",
        bytearray(b"a red house"),
        memoryview(b"a red house"),
        {"a red house", "a lake"},
        frozenset({"a lake"}),
        {"a red house": 1},
        {}.keys(),
        None,
        5,
        np.array("a red house"),
        Request(prompt="a red house"),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_f30_what_is_no_list_of_prompts_is_refused(device: FakeDevice, prompts: Any) -> None:
    with pytest.raises(ConfigError, match=r"^prompts is .*expected a list") as caught:
        device.runtime.plan(prompts, total_ms=1000)
    assert caught.value.name == "prompts"


@pytest.mark.parametrize("item", [b"a lake", None, 5, ["a lake"], np.array(["a lake"])], ids=lambda value: type(value).__name__)
def test_f30_what_is_no_prompt_in_a_list_is_refused(device: FakeDevice, item: Any) -> None:
    with pytest.raises(ConfigError, match="expected text"):
        device.runtime.plan(["a red house", item], total_ms=1000)


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, np.array, lambda given: (each for each in given), lambda given: dict(enumerate(given)).values()],
    ids=["list", "tuple", "iterator", "array", "generator", "values of a dict"],
)
def test_f30_anything_else_that_gives_prompts_in_order_is_planned(device: FakeDevice, make: Callable[[list[str]], Iterable[str]]) -> None:
    given = ["a red house", "a lake"]
    assert [route.prompt for route in device.runtime.plan(make(given), total_ms=1000)] == given


def test_f30_an_empty_iterator_gives_an_empty_plan(device: FakeDevice) -> None:
    assert device.runtime.plan(iter(()), total_ms=1000) == []


def test_f30_an_error_of_the_callers_generator_is_the_callers(device: FakeDevice) -> None:
    def prompts() -> Iterable[str]:
        yield "a lake"
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        device.runtime.plan(prompts(), total_ms=1000)
