"""Symmetric quantisation to int8 with one scale per channel: w = scale * q, with q from -127 to 127."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST = 127
_SMALLEST_SCALE = np.finfo(np.float32).tiny


def quantise(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 of the shape of `values`, and float32[channels]: the largest magnitude of a channel becomes 127.

    values: finite. axis: that of the channels. An error is at most half the scale of its channel (Jacob et al. 2018, section 2.1, without
    zero points).
    """
    others = tuple(each for each in range(values.ndim) if each != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / np.float32(LARGEST), _SMALLEST_SCALE)
    shape = [1] * values.ndim
    shape[axis] = -1
    rounded = np.rint(values / scale.reshape(shape))
    return np.clip(rounded, -LARGEST, LARGEST).astype(np.int8), scale.astype("<f4")
