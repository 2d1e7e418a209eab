"""VAE encoders that give a distribution of latents, as optimum exports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import ModelProto


def keep_mean(encoder: ModelProto, channels: int) -> None:
    """Leave the mean of the distribution, the first half of the output's channels; a graph that gives latents stays as it is.

    channels: of a latent.
    """
    from onnx import numpy_helper
    from onnx.helper import make_node

    (output,) = encoder.graph.output
    axis = output.type.tensor_type.shape.dim[1]
    if axis.dim_value == channels:
        return
    bounds = {"mean_start": 0, "mean_end": channels, "mean_axis": 1}
    encoder.graph.initializer.extend(numpy_helper.from_array(_int64(value), name) for name, value in bounds.items())
    encoder.graph.node.append(make_node("Slice", [output.name, *bounds], ["mean"]))
    output.name, axis.dim_value = "mean", channels


def _int64(value: int) -> npt.NDArray[np.int64]:
    return np.array([value], dtype=np.int64)
