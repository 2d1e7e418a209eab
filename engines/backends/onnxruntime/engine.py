"""Running an engine of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import Value
from costroute_rt.engines.backends.feed import SMALL_BYTES, Fed, describe_array
from costroute_rt.engines.backends.key import EngineKey, make_engine_error
from costroute_rt.engines.backends.onnxruntime.arena import NO_ROOM, is_no_room, shrink_arena
from costroute_rt.engines.backends.onnxruntime.providers import DEVICE_TYPES, shorten_error
from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.error import EngineError, Reason

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
_TYPES |= {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool"}


class OnnxRuntimeEngine:
    """An open session; outputs stay where the provider computes."""

    def __init__(
        self,
        ort: ModuleType,
        session: InferenceSession,
        provider: str,
        folder: Path,
        size: int,
        key: EngineKey | None,
        *,
        is_replayed: bool = False,
        shrinks_arena: bool = False,
    ) -> None:
        """is_replayed: all shapes are fixed, and the addresses of inputs and outputs must be too.

        shrinks_arena: closing gives back the memory that `limit_arena` lends.
        """
        self.key, self.provider, self.resident_bytes = key, provider, size
        self.inputs = {value.name: _tensor_spec(value) for value in session.get_inputs()}
        self.outputs = {value.name: _tensor_spec(value) for value in session.get_outputs()}
        self._ort, self._folder = ort, folder
        self._session: InferenceSession | None = session
        self._run_options = ort.RunOptions()
        self._shrinks_arena = shrinks_arena
        self._names = list(self.outputs)
        self._device_type = DEVICE_TYPES.get(provider)
        if self._device_type is None:  # set, as ONNX Runtime otherwise catches an exception in each run to find its default (70 us)
            self._run_options.add_run_config_entry("gpu_graph_id", "0")
        self._fed = Fed(self.inputs, self._describe)
        is_fixed = self._device_type is None and all(isinstance(axis, int) for spec in self.outputs.values() for axis in spec.shape)
        self._binding = _HostBinding(ort, session, self.inputs, self.outputs) if is_fixed else None
        self._replay = _Replay(ort, session, self._device_type, self.inputs, self.outputs) if is_replayed and self._device_type else None

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        if self._session is None:
            raise self._fail("the engine is closed", Reason.CLOSED)
        changed = self._fed.find_changes(feeds)
        try:
            results = self._compute(self._session, feeds, changed)
        except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
            self._fed.forget()
            if is_no_room(error):
                raise self._fail(NO_ROOM, Reason.NO_MEMORY) from error
            raise self._fail(f"it failed while running: {shorten_error(error)}", Reason.FAILED) from error
        return dict(zip(self._names, results, strict=True))

    def _compute(self, session: InferenceSession, feeds: Mapping[str, Value], changed: Mapping[str, Value]) -> list[Value]:
        """All outputs, in their order; changed: the feeds that differ from those of the last run."""
        if self._binding is not None:
            for name, value in changed.items():
                self._binding.set(name, value)
                self._fed.note(name, value)
            return self._binding.run(session, self._run_options)
        if self._device_type is not None:
            return self._run_bound(session, feeds)
        return list(session.run(self._names, dict(feeds), self._run_options))

    def to_device(self, array: npt.NDArray[Any]) -> Value:
        if self._device_type is None:
            return np.ascontiguousarray(array).reshape(np.shape(array))
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(np.shape(array)), self._device_type, 0)

    def to_host(self, value: Value) -> npt.NDArray[Any]:
        return np.asarray(value if self._device_type is None else value.numpy())

    def stop(self) -> None:
        self._run_options.terminate = True

    def close(self) -> None:
        was_open, self._session, self._replay, self._binding = self._session is not None, None, None, None
        self._fed.forget()
        if was_open and self._shrinks_arena:
            shrink_arena(self._ort)

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _fail(self, problem: str, reason: Reason) -> EngineError:
        return make_engine_error(problem, reason, self._folder, self.key)

    def _describe(self, value: Value) -> tuple[str, tuple[int, ...]]:
        if self._device_type is None:
            return describe_array(value)
        return _TYPES.get(value.data_type(), value.data_type()), tuple(value.shape())

    def _run_bound(self, session: InferenceSession, feeds: Mapping[str, Value]) -> list[Value]:
        """Outputs that are complete: the CUDA provider waits for its stream at the end of a run, replayed or not, and after each copy."""
        if self._replay is not None:
            return self._replay.run(session, feeds)
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, self._device_type, 0)
        session.run_with_iobinding(binding, self._run_options)
        return list(binding.get_outputs())


class _HostBinding:
    """Inputs in host memory that stay bound from run to run, and outputs of known shapes.

    Small tensors are copied, which takes less time than to bind others; large ones are read and written where they lie.
    """

    def __init__(
        self, ort: ModuleType, session: InferenceSession, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
    ) -> None:
        self._value = ort.OrtValue.ortvalue_from_numpy
        self._binding = session.io_binding()
        self._small_inputs = {name: _empty(spec) for name, spec in inputs.items() if _is_small(spec)}
        self._outputs = [(name, spec, _empty(spec) if _is_small(spec) else None) for name, spec in outputs.items()]
        for name, buffer in self._small_inputs.items():
            self._binding.bind_cpu_input(name, buffer)
        for name, _, small in self._outputs:
            if small is not None:
                self._binding.bind_ortvalue_output(name, self._value(small))

    def set(self, name: str, array: Array) -> None:
        """Let the session read the array as the input of that name."""
        buffer = self._small_inputs.get(name)
        if buffer is not None:
            buffer[...] = array
        else:
            self._binding.bind_cpu_input(name, np.ascontiguousarray(array).reshape(array.shape))

    def run(self, session: InferenceSession, options: Any) -> list[Value]:
        """All outputs, in their order, in new memory."""
        large = dict[str, Array]()
        for name, spec, small in self._outputs:
            if small is None:
                large[name] = _empty(spec)
                self._binding.bind_ortvalue_output(name, self._value(large[name]))
        session.run_with_iobinding(self._binding, options)
        return [large[name] if small is None else small.copy() for name, _, small in self._outputs]


def _empty(spec: TensorSpec) -> Array:
    return np.empty([int(axis) for axis in spec.shape], spec.dtype)


def _is_small(spec: TensorSpec) -> bool:
    """Whether the tensor has a known shape and little data."""
    lengths = [axis for axis in spec.shape if isinstance(axis, int)]
    return len(lengths) == len(spec.shape) and prod(lengths) * np.dtype(spec.dtype).itemsize <= SMALL_BYTES


class _Replay:
    """Inputs and outputs at fixed addresses on the device, which a recorded CUDA graph reads and writes."""

    def __init__(
        self,
        ort: ModuleType,
        session: InferenceSession,
        device_type: str,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
    ) -> None:
        def empty(spec: TensorSpec) -> Value:
            return ort.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), np.dtype(spec.dtype).type, device_type, 0)

        self._empty, self._specs = empty, outputs
        self._inputs, self._outputs = ({name: empty(spec) for name, spec in side.items()} for side in (inputs, outputs))
        self._fed: dict[str, Value] = {}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, session: InferenceSession, feeds: Mapping[str, Value]) -> list[Value]:
        """Copies happen on the device; what is fed again, such as text states, is copied once."""
        for name, value in feeds.items():
            if self._fed.get(name) is not value:
                self._inputs[name].update_inplace(value)
        self._fed = dict(feeds)
        session.run_with_iobinding(self._binding)
        results = {name: self._empty(spec) for name, spec in self._specs.items()}
        for name, value in results.items():
            value.update_inplace(self._outputs[name])
        return list(results.values())


def _tensor_spec(value: Any) -> TensorSpec:
    shape = [axis if axis is not None else "?" for axis in value.shape]
    return TensorSpec(_TYPES.get(value.type, value.type), tuple(shape))
