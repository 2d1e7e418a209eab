"""What a runtime is made of, ready to use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from costroute_rt.budget import CostModel
from costroute_rt.candidate import Candidate, Pool
from costroute_rt.correction import Clock
from costroute_rt.engine_set import EngineSet
from costroute_rt.engines.build import router_graphs
from costroute_rt.engines.bundle import Bundle
from costroute_rt.loop import Shorten
from costroute_rt.prompt import Tokenizer
from costroute_rt.quality import QualityEstimator
from costroute_rt.scheduler import SchedulerConfig, build_table, from_diffusers, replan
from costroute_rt.step_table import StepTable
from costroute_rt.text import NegativeStates

if TYPE_CHECKING:
    from costroute_rt.engines.engine import Engine


class Tables:
    """Step tables of a bundle's schedulers, each built once."""

    def __init__(self, schedulers: Mapping[str, Mapping[str, Any]]) -> None:
        """schedulers: diffusers' scheduler configurations by name; raises ConfigError for one that cannot be compiled."""
        self._configs = {name: from_diffusers(config) for name, config in schedulers.items()}
        self._tables: dict[tuple[str, int], StepTable] = {}

    def config(self, candidate: Candidate) -> SchedulerConfig:
        """The candidate's scheduler."""
        return self._configs[candidate.scheduler]

    def table(self, candidate: Candidate) -> StepTable:
        """The candidate's whole run."""
        key = candidate.scheduler, candidate.num_inference_steps
        if key not in self._tables:
            self._tables[key] = build_table(self._configs[candidate.scheduler], candidate.num_inference_steps)
        return self._tables[key]

    def shorten(self, candidate: Candidate) -> Shorten:
        """What re-plans the candidate's runs."""
        config = self.config(candidate)

        def shorten(table: StepTable, row: int, rows_left: int) -> StepTable:
            return replan(config, table, row, rows_left)

        return shorten


class Zeros:
    """Zero latents on the device, one for each of the shapes last used."""

    def __init__(self, kept: int = 8) -> None:
        self._kept = kept
        self._values: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def get(self, engine: Engine, shape: tuple[int, ...]) -> Any:
        """float32[shape], which no engine writes to."""
        if shape not in self._values:
            self._values[shape] = engine.to_device(np.zeros(shape, dtype=np.float32))
            while len(self._values) > self._kept:
                self._values.popitem(last=False)
        return self._values[shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One family, its engines and their costs; `Runtime.open` puts them together, tests put in others."""

    bundle: Bundle
    pool: Pool
    tokenizer: Tokenizer
    tables: Tables
    engines: EngineSet
    costs: CostModel
    quality: QualityEstimator
    clock: Clock
    backend: str
    """Name of the backend the engines were built with."""
    versions: Mapping[str, str]
    """What made the images, by name."""
    negatives: NegativeStates = field(default_factory=NegativeStates)
    zeros: Zeros = field(default_factory=Zeros)

    @property
    def encode(self) -> str:
        """Name of the text encoder's engine."""
        return encode_name(self.bundle)

    def condition(self, candidate: Candidate) -> str | None:
        """Name of the engine for what the denoiser makes of the text alone, where it has one."""
        return condition_name(self.bundle, candidate)

    def step(self, candidate: Candidate) -> str:
        """Name of the candidate's step engine."""
        return step_name(candidate)

    def decode(self, candidate: Candidate) -> str:
        """Name of the candidate's decoder engine."""
        return decode_name(candidate)

    def needed(self, candidate: Candidate) -> tuple[str, ...]:
        """Names of the engines the candidate needs, in the order in which they are called."""
        return needed_names(self.bundle, candidate)


def engine_names(bundle: Bundle, pool: Pool) -> tuple[str, ...]:
    """Every engine the pool and the router need, once."""
    return tuple(dict.fromkeys([*(name for candidate in pool for name in needed_names(bundle, candidate)), *router_graphs(bundle)]))


def needed_names(bundle: Bundle, candidate: Candidate) -> tuple[str, ...]:
    """Every engine one candidate needs, in the order in which they are called."""
    names = (encode_name(bundle), condition_name(bundle, candidate), step_name(candidate), decode_name(candidate))
    return tuple(name for name in names if name is not None)


def encode_name(bundle: Bundle) -> str:
    """Engine of the text encoder, which every bundle has."""
    return next(f"{name}/encode" for name, component in bundle.components.items() if component.role == "text_encoder")


def condition_name(bundle: Bundle, candidate: Candidate) -> str | None:
    """Engine of what the candidate's denoiser makes of the text alone; None where its steps do all of it."""
    return f"{candidate.denoiser}/condition" if "condition" in bundle.components[candidate.denoiser].graphs else None


def step_name(candidate: Candidate) -> str:
    """Engine of the candidate's denoiser."""
    return f"{candidate.denoiser}/{candidate.step_graph}"


def decode_name(candidate: Candidate) -> str:
    """Engine of the candidate's decoder."""
    return f"{candidate.decoder}/decode"
