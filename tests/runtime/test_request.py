"""Requests: validation of their fields and sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError
from costroute_rt.family.family import Family
from costroute_rt.request import LAST_SEED, MOST_IMAGES, Request, make_request


def request_with(**changes: Any) -> Request:
    return Request(**{"prompt": "a house", **changes})


@pytest.mark.parametrize("max_ms", [0, -1, -0.0, float("nan"), float("inf"), "300", True, [1], 10**400])
def test_a_budget_is_a_positive_number(max_ms: object) -> None:
    with pytest.raises(ConfigError, match="max_ms"):
        request_with(max_ms=max_ms)


@pytest.mark.parametrize("name", ["lam", "tolerance"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None])
def test_trade_offs_are_finite_and_not_negative(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        request_with(**{name: value})


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, MOST_IMAGES + 1, 2**32])
def test_a_count_is_a_whole_number_within_limits(count: object) -> None:
    with pytest.raises(ConfigError, match="count"):
        request_with(count=count)


def test_numpy_numbers_become_python_numbers() -> None:
    request = request_with(max_ms=np.float32(300), count=np.int64(2), seed=np.uint32(7))
    assert (type(request.max_ms), type(request.count), type(request.seed), request.seed) == (float, int, int, 7)


def test_a_candidate_is_a_name() -> None:
    with pytest.raises(ConfigError, match=r"^candidate is"):
        request_with(candidate=["tiny-base@4"])


@pytest.mark.parametrize("seed", [-1, LAST_SEED + 1, 2**64, 1.0, "7", True])
def test_a_seed_out_of_range_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed"):
        request_with(seed=seed)


def test_the_seed_of_the_last_image_must_be_in_range() -> None:
    assert request_with(seed=LAST_SEED - 2, count=3).seed == LAST_SEED - 2
    with pytest.raises(ConfigError, match="seed"):
        request_with(seed=LAST_SEED - 1, count=3)


def test_options_replace_fields_of_a_request() -> None:
    request = make_request(request_with(max_ms=300, seed=7), seed=8)
    assert (request.prompt, request.max_ms, request.seed) == ("a house", 300.0, 8)
    with pytest.raises(ConfigError, match="count"):
        make_request(request, count=0)


def test_sizes_are_the_default_or_multiples_within_limits(bundle: Bundle) -> None:
    family = Family.open(bundle)
    assert family.size(request_with()) == (64, 64)
    assert family.size(request_with(height=128, width=16)) == (128, 16)
    for height, width in ((63, 64), (64, 65), (0, 64), (-64, 64), (144, 64), (64, 1_000_000)):
        with pytest.raises(ConfigError, match="multiple of 16 from 16 to 128"):
            family.size(request_with(height=height, width=width))


def test_without_any_size_only_listed_sizes_are_allowed(bundle: Bundle) -> None:
    family = Family.open(replace(bundle, image=replace(bundle.image, any_size=False)))
    assert family.size(request_with(height=64, width=96)) == (64, 96)
    with pytest.raises(ConfigError, match="64x64, 64x96"):
        family.size(request_with(height=96, width=64))


@pytest.mark.parametrize("value", [64.0, "64", True])
def test_a_size_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        request_with(height=value)
