"""An infer request whose inputs stay set from run to run, and whose outputs are written to where the caller gets them.

`InferRequest.infer` with a dictionary sets every input each time and copies the outputs, which takes 160 microseconds for 21 inputs and 2
outputs of 16 KB; here a run takes 33, three changed inputs included.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class BoundRequest:
    """The one request of a compiled model."""

    def __init__(self, ov: ModuleType, compiled: Any) -> None:
        """ov: the module."""
        self.raw = compiled.create_infer_request()
        self._tensor = ov.Tensor
        self._inputs = {name: index for index, port in enumerate(compiled.inputs) for name in port.names}
        self._outputs = [(name, index) for index, port in enumerate(compiled.outputs) for name in port.names]
        self._fixed = [(index, port.element_type, port.shape) for index, port in enumerate(compiled.outputs) if _is_fixed(port)]
        self._free = [index for index, port in enumerate(compiled.outputs) if not _is_fixed(port)]

    def set(self, name: str, array: Array) -> bool:
        """Let the model read the array, where it lies, as the input of that name; False if it has no such input."""
        index = self._inputs.get(name)
        if index is None:
            return False
        if not (array.flags.c_contiguous and array.flags.writeable):  # OpenVINO shares no other memory
            array = np.array(array, order="C")
        self.raw.set_input_tensor(index, self._tensor(array, shared_memory=True))
        return True

    def run(self) -> dict[str, Array]:
        """Compute all outputs into new memory; returns them by each of their names. Raises RuntimeError."""
        raw, results = self.raw, dict[int, Array]()
        for index, kind, shape in self._fixed:
            tensor = self._tensor(kind, shape)
            raw.set_output_tensor(index, tensor)
            results[index] = tensor.data
        raw.infer(share_outputs=True)
        for index in self._free:
            results[index] = raw.get_output_tensor(index).data.copy()
        return {name: results[index] for name, index in self._outputs}


def _is_fixed(port: Any) -> bool:
    """Whether the shape of an output does not depend on the inputs."""
    return bool(port.partial_shape.is_static)
