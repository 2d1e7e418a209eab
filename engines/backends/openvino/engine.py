"""Running an engine of OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import Value
from costroute_rt.engines.backends.feed import Fed, describe_array
from costroute_rt.engines.backends.key import EngineKey, make_engine_error
from costroute_rt.engines.backends.openvino.request import BoundRequest
from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.error import Reason

_LONGEST_REASON = 300
_SOURCE_POSITIONS = ("Exception from ", "Check '")


class OpenVinoEngine:
    """A compiled model. Values are arrays in host memory: read where they lie, and made anew by each call."""

    def __init__(
        self,
        ov: ModuleType,
        compiled: Any,
        angles: Any,
        interface: GraphSpec,
        provider: str,
        folder: Path,
        size: int,
        key: EngineKey | None,
        mapped: object = None,
    ) -> None:
        """ov: the module. angles: the compiled model that `split_angles` cut off, or None.

        mapped: memory that the model reads weights from.
        """
        self._mapped = mapped
        self.key, self.provider, self.resident_bytes = key, provider, size
        self.inputs, self.outputs = interface.inputs, interface.outputs
        self._folder, self._fed = folder, Fed(self.inputs, describe_array)
        self._request: BoundRequest | None = BoundRequest(ov, compiled)
        self._angles = None if angles is None else BoundRequest(ov, angles)

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        request = self._request
        if request is None:
            raise make_engine_error("the engine is closed", Reason.CLOSED, self._folder, self.key)
        changed = self._fed.find_changes(feeds)
        try:
            for name, value in changed.items():
                request.set(name, value)
                self._fed.note(name, value)
            if self._angles is not None:
                self._set_angles(request, self._angles, changed)
            results = request.run()
        except RuntimeError as error:
            self._fed.forget()
            raise make_engine_error(f"it failed while running: {short_reason(error)}", Reason.FAILED, self._folder, self.key) from error
        return {name: results[name] for name in self.outputs}

    @staticmethod
    def _set_angles(request: BoundRequest, angles: BoundRequest, changed: Mapping[str, Value]) -> None:
        """Compute the sines and cosines again, if what they depend on has changed."""
        taken = [name for name, value in changed.items() if angles.set(name, value)]
        if taken:
            for name, wave in angles.run().items():
                request.set(name, wave)

    def to_device(self, array: npt.NDArray[Any]) -> Value:
        return np.ascontiguousarray(array).reshape(np.shape(array))

    def to_host(self, value: Value) -> npt.NDArray[Any]:
        return np.asarray(value)

    def stop(self) -> None:
        if self._request is not None:
            self._request.raw.cancel()

    def close(self) -> None:
        self._request = self._angles = None
        self._fed.forget()
        self._mapped = None  # after the model, which the request keeps

    def __enter__(self) -> OpenVinoEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def short_reason(error: BaseException) -> str:
    """The text of an OpenVINO error, without its source positions."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(_SOURCE_POSITIONS)]
    return " ".join(kept)[:_LONGEST_REASON] or type(error).__name__
