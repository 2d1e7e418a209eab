"""Checking what an engine is fed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.error import ConfigError


def check_feeds(inputs: Mapping[str, TensorSpec], found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare feeds (name: dtype, shape) with what a graph takes; raises ConfigError at the first that does not fit."""
    if found.keys() != inputs.keys():
        raise ConfigError("feeds", sorted(found), f"the inputs {sorted(inputs)}")
    for name, (dtype, shape) in found.items():
        spec = inputs[name]
        if dtype != spec.dtype or not _fits(spec.shape, shape):
            raise ConfigError(name, f"{dtype}{list(shape)}", f"{spec.dtype}[{', '.join(map(str, spec.shape))}]")


def describe_array(array: object) -> tuple[str, tuple[int, ...]]:
    """dtype and shape of a host array; raises ConfigError for anything else."""
    if not isinstance(array, np.ndarray):
        raise ConfigError("feed", type(array).__name__, "a numpy array (numpy.asarray makes one of a number)")
    return _dtype_name(array.dtype), array.shape


@lru_cache(maxsize=512)
def _fits(axes: tuple[int | str, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array of that shape has these axes; a name stands for any length. An image asks some 200 times, for a few shapes."""
    return len(shape) == len(axes) and all(isinstance(axis, str) or axis == length for axis, length in zip(axes, shape, strict=True))


@lru_cache(maxsize=64)
def _dtype_name(dtype: np.dtype[Any]) -> str:
    """NumPy puts the name together anew each time, which took 2 microseconds of each feed of each step."""
    return str(dtype.name)
