"""Candidates, and the pool a router chooses from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costroute_rt.engines.bundle.manifest import step_graph
from costroute_rt.error import ConfigError

if TYPE_CHECKING:
    from costroute_rt.engines.bundle.bundle import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to make an image: what a router chooses between."""

    name: str
    denoiser: str
    """Component name in the bundle."""
    scheduler: str
    """Name of a scheduler configuration in the bundle."""
    num_inference_steps: int
    guidance_scale: float = 1.0
    """1 means no guidance: one denoiser pass per step instead of two."""
    decoder: str = "vae"
    """Component name in the bundle."""

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise ConfigError("num_inference_steps", self.num_inference_steps, "1 or more")
        if not 0 <= self.guidance_scale < float("inf"):
            raise ConfigError("guidance_scale", self.guidance_scale, "a finite number, 0 or more")

    @property
    def is_guided(self) -> bool:
        """Whether each step also asks the denoiser about the negative prompt."""
        return self.step_graph == "guided_step"

    @property
    def step_graph(self) -> str:
        """The denoiser's graph this candidate runs."""
        return step_graph(self.guidance_scale)


@dataclass(frozen=True, slots=True)
class Pool:
    """The ordered candidates of one bundle."""

    candidates: tuple[Candidate, ...]

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Pool:
        """The bundle's candidates, in its order."""
        names = ("name", "denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder")
        return cls(tuple(Candidate(**{name: row[name] for name in names}) for row in bundle.pool))

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def find(self, name: str) -> Candidate:
        """The candidate called `name`; raises ConfigError that lists the names there are."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise ConfigError("candidate", name, "one of " + ", ".join(candidate.name for candidate in self.candidates))
