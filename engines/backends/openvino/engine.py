"""Running an engine of OpenVINO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.backends.engine import Value
from costroute_rt.engines.backends.feed import check_feeds, describe_array
from costroute_rt.engines.backends.key import EngineKey, make_engine_error
from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.error import Reason

_LONGEST_REASON = 300
_SOURCE_POSITIONS = ("Exception from ", "Check '")


class OpenVinoEngine:
    """A compiled model with its one request. Values are arrays in host memory: read where they lie, and made anew by each call."""

    def __init__(
        self,
        compiled: Any,
        angles: Any,
        interface: GraphSpec,
        provider: str,
        folder: Path,
        size: int,
        key: EngineKey | None,
        mapped: object = None,
    ) -> None:
        """angles: the compiled model that `split_angles` cut off, or None. mapped: memory that the model reads weights from."""
        self._mapped = mapped
        self.key, self.provider, self.resident_bytes = key, provider, size
        self.inputs, self.outputs = interface.inputs, interface.outputs
        self._folder = folder
        self._request: Any = compiled.create_infer_request()
        self._angles: Any = None if angles is None else angles.create_infer_request()
        self._given = None if angles is None else [_names_of(model.inputs, self.inputs) for model in (angles, compiled)]
        """The inputs of the engine that each of the two models has."""

    def run(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        if self._request is None:
            raise make_engine_error("the engine is closed", Reason.CLOSED, self._folder, self.key)
        check_feeds(self.inputs, {name: describe_array(value) for name, value in feeds.items()})
        try:
            results = self._request.infer(self._with_angles(feeds), share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise make_engine_error(f"it failed while running: {short_reason(error)}", Reason.FAILED, self._folder, self.key) from error
        return {name: results[name] for name in self.outputs}

    def _with_angles(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """What the model is fed: the inputs that it has, and the sines and cosines of those that it may not have."""
        if self._given is None:
            return dict(feeds)
        of_angles, of_model = self._given
        waves = self._angles.infer({name: feeds[name] for name in of_angles}, share_inputs=True, share_outputs=False)
        found = {port.get_any_name(): array for port, array in waves.items()}
        return {name: feeds[name] for name in of_model} | found

    def to_device(self, array: npt.NDArray[Any]) -> Value:
        return np.ascontiguousarray(array).reshape(np.shape(array))

    def to_host(self, value: Value) -> npt.NDArray[Any]:
        return np.asarray(value)

    def stop(self) -> None:
        if self._request is not None:
            self._request.cancel()

    def close(self) -> None:
        self._request = self._angles = None
        self._mapped = None  # after the model, which the request keeps

    def __enter__(self) -> OpenVinoEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _names_of(ports: Iterable[Any], names: Iterable[str]) -> list[str]:
    """Those of the names that the ports have."""
    known = {name for port in ports for name in port.names}
    return [name for name in names if name in known]


def short_reason(error: BaseException) -> str:
    """The text of an OpenVINO error, without its source positions."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(_SOURCE_POSITIONS)]
    return " ".join(kept)[:_LONGEST_REASON] or type(error).__name__
