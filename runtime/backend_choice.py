"""Which library runs the engines of a runtime, if that was left to `auto`, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Basis = Literal["measured", "not_measured", "only", "rule", "environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """What `backend="auto"` has chosen."""

    backend: str
    provider: str
    precision: str
    basis: Basis
    """measured: whole images were compared on this machine. not_measured: they were not yet, so that ONNX Runtime runs. only: nothing else
    can be used. rule: the models are too large to compare. environment: $COSTROUTE_BACKEND."""
    reason: str
    image_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Median milliseconds of an image, by set of engines (backend, provider and precision) and candidate; empty if none were measured. Of
    processor time if the reason says so."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Backends that were not considered, with the reason."""

    @property
    def engines(self) -> str:
        """`openvino cpu bfloat16`"""
        return f"{self.backend} {self.provider} {self.precision}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        left_out = "".join(f"; {name} is left out: {why}" for name, why in self.left_out.items())
        return f"{self.engines}: {self.reason}{left_out}"
