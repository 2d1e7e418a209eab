"""Engine keys: a stored engine is stale if any field of its key differs from the one wanted now."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

from costroute_rt.engines.bundle.section import Section
from costroute_rt.error import EngineError, Reason

DIGEST_LENGTH = 32
ANY_DRIVER = "any"
"""The driver in the key of an engine that is not bound to one device."""
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field in which a stored engine differs from the wanted one."""

    field: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: wanted {_short(self.wanted)}, stored {_short(self.found)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """Everything that decides the content of an engine file and where it may run; any change makes another engine."""

    graph: str
    """family/component/graph, such as postcard/base/guided_step."""
    weights_sha256: str
    graph_sha256: str
    backend: str
    backend_version: str
    provider: str
    precision: str
    shapes: str
    """Axes built to one length, such as `batch=1 height=32`; empty: every free axis stays free."""
    options: str
    """Builder options, such as `optimization=all`."""
    device: str
    """Processor name and the features code is chosen by."""
    driver: str
    os: str

    @property
    def digest(self) -> str:
        """The engine's name in the store."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]

    def to_json(self) -> dict[str, str]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_section(cls, section: Section) -> EngineKey:
        """Read from a manifest; fails as the section does."""
        return cls(**{field.name: str(section.get(field.name, str, "text")) for field in fields(cls)})

    @property
    def setup(self) -> dict[str, str]:
        """Backend, provider, precision and target that ask for such engines."""
        target = self.device if self.driver == ANY_DRIVER else ""
        return {"backend": self.backend, "provider": self.provider, "precision": self.precision, "target": target}

    def differences(self, found: EngineKey) -> list[FieldDifference]:
        """The fields in which `found` is not this key."""
        pairs = [(field.name, getattr(self, field.name), getattr(found, field.name)) for field in fields(self)]
        return [FieldDifference(name, wanted, other) for name, wanted, other in pairs if wanted != other]


def make_engine_error(problem: str, reason: Reason, folder: Path | None, key: EngineKey | None) -> EngineError:
    """The error about an open engine; key: None for one that is not in the store."""
    return EngineError(problem, reason=reason, path=folder, engine=key.graph if key else None, setup=key.setup if key else None)


def _short(value: str) -> str:
    """A value of a key for a message: a hash is cut short."""
    return (value[:12] if _HASH.fullmatch(value) else value) or "none"
