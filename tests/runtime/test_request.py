"""Requests: what is refused before any work is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError
from costroute_rt.request import LAST_SEED, Request, check_seed, check_size


def request_with(**changes: Any) -> Request:
    return Request(**{"prompt": "a house", "height": 64, "width": 64, **changes})


@pytest.mark.parametrize("max_ms", [0, -1, -0.0, float("nan"), float("inf"), "300", True, [1], 10**400])
def test_a_budget_is_a_positive_number(max_ms: object) -> None:
    with pytest.raises(ConfigError, match="max_ms"):
        request_with(max_ms=max_ms)


@pytest.mark.parametrize("name", ["lam", "tolerance"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None])
def test_trade_offs_are_finite_and_not_negative(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        request_with(**{name: value})


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_a_count_is_a_whole_number_from_one(count: object) -> None:
    with pytest.raises(ConfigError, match="count"):
        request_with(count=count)


def test_numpy_numbers_are_numbers() -> None:
    request = request_with(max_ms=np.float32(300), count=np.int64(2))
    assert (type(request.max_ms), type(request.count)) == (float, int)
    assert check_seed(np.uint32(7), 1) == 7  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, LAST_SEED + 1, 2**64, 1.0, "7", True])
def test_a_seed_out_of_range_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed"):
        check_seed(seed, 1)


def test_the_last_image_has_a_seed_too() -> None:
    assert check_seed(LAST_SEED - 2, 3) == LAST_SEED - 2
    with pytest.raises(ConfigError, match="seed"):
        check_seed(LAST_SEED - 1, 3)


def test_sizes_are_the_bundles_own_or_multiples(bundle: Bundle) -> None:
    assert check_size(bundle.image, None, None) == (64, 64)
    assert check_size(bundle.image, 128, 16) == (128, 16)
    for height, width in ((63, 64), (64, 65), (0, 64), (-64, 64), (144, 64), (64, 1_000_000)):
        with pytest.raises(ConfigError, match="multiple of 16 from 16 to 128"):
            check_size(bundle.image, height, width)


def test_a_bundle_may_allow_its_listed_sizes_only(bundle: Bundle) -> None:
    image = replace(bundle.image, any_size=False)
    assert check_size(image, 64, 96) == (64, 96)
    with pytest.raises(ConfigError, match="64x64, 64x96"):
        check_size(image, 96, 64)
    with pytest.raises(ConfigError, match="whole number"):
        check_size(image, 64.0, None)  # type: ignore[arg-type]
