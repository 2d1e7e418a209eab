"""Checking what an engine is fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.error import ConfigError

SMALL_BYTES = 1 << 16
"""A tensor of up to so many bytes is copied faster than a library is told of another address."""


class Fed:
    """What an engine was fed last. A value that is fed again need neither be checked nor set again, such as the text from step to step."""

    def __init__(self, inputs: Mapping[str, TensorSpec], describe: Callable[[Any], tuple[str, tuple[int, ...]]]) -> None:
        """describe: returns dtype and shape of a value; raises ConfigError for what is none."""
        self._inputs, self._describe = inputs, describe
        self._values: dict[str, Any] = {}

    def find_changes(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The feeds that are not those of the last run; raises ConfigError if any does not fit the graph's inputs."""
        known = self._values
        changed = {name: value for name, value in feeds.items() if known.get(name) is not value}
        if len(feeds) != len(self._inputs) or any(name not in self._inputs for name in changed):
            raise ConfigError("feeds", sorted(feeds), f"the inputs {sorted(self._inputs)}")
        for name, value in changed.items():
            check_feed(name, self._inputs[name], *self._describe(value))
        return changed

    def note(self, name: str, value: Any) -> None:
        """Record that the engine reads this value from now on, which is kept as long."""
        self._values[name] = value

    def forget(self) -> None:
        """Keep nothing: the next run sets every input."""
        self._values.clear()


def check_feeds(inputs: Mapping[str, TensorSpec], found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Compare feeds (name: dtype, shape) with what a graph takes; raises ConfigError at the first that does not fit."""
    if found.keys() != inputs.keys():
        raise ConfigError("feeds", sorted(found), f"the inputs {sorted(inputs)}")
    for name, (dtype, shape) in found.items():
        check_feed(name, inputs[name], dtype, shape)


def check_feed(name: str, spec: TensorSpec, dtype: str, shape: tuple[int, ...]) -> None:
    """Compare one feed with what a graph takes; raises ConfigError."""
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
