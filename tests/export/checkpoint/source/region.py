"""Reads the numbers that a region points at, for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from costroute_rt.export.checkpoint.source.network import Network
from tests.tensor_file import decode


def read_parameter(network: Network, name: str) -> np.ndarray[Any, Any]:
    """float32, as the parameter is: not transposed; axes of length 1 may differ."""
    region = network.weights[name]
    with region.file.open("rb") as file:
        file.seek(region.offset)
        array = decode(file.read(region.length), region.dtype, region.shape)
    return array.T if region.is_transposed else array
