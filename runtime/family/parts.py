"""What a runtime is made of, ready to use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from costroute_rt.candidate import Candidate, Pool
from costroute_rt.cost.correction import Clock
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName, Size
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.error import EngineError, Reason
from costroute_rt.family.conditioning import NegativeStates
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.family.prompt import Tokenizer
from costroute_rt.family.upgrade import Upgrade
from costroute_rt.generation.loop import Shorten
from costroute_rt.routing.quality import QualityEstimator
from costroute_rt.sampling.scheduler import SchedulerConfig, build_table, from_diffusers, replan
from costroute_rt.sampling.step_table import StepTable

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine


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
    """Zero latents on the device, one for each of the engines and shapes last used."""

    def __init__(self, kept: int = 8) -> None:
        self._kept = kept
        self._values: OrderedDict[tuple[int, tuple[int, ...]], Any] = OrderedDict()

    def get(self, engine: Engine, shape: tuple[int, ...]) -> Any:
        """float32[shape], which no engine writes to."""
        key = id(engine), shape
        if key not in self._values:
            self._values[key] = engine.to_device(np.zeros(shape, dtype=np.float32))
            while len(self._values) > self._kept:
                self._values.popitem(last=False)
        return self._values[key]

    def clear(self) -> None:
        """Forget all of them: an engine is to be closed, and another may get its number."""
        self._values.clear()


@dataclass(frozen=True, slots=True)
class Profiles:
    """For which sizes of images there are engines."""

    sizes: frozenset[Size] = frozenset()
    """Those that have engines of their own."""
    has_usual: bool = True
    """Whether there are the engines that take any size the bundle makes."""
    setup: Mapping[str, str] = field(default_factory=dict)
    """Backend, provider, precision and target of such engines, as errors carry them."""

    def resolve(self, bundle: Bundle, name: str, size: Size) -> str:
        """Name of the engine of the same graph for images of that size.

        Raises EngineError, with the nearest size, where there is none.
        """
        if size in self.sizes:
            return with_size(bundle, [name], size)[0]
        if not self.has_usual:
            near = min(self.sizes, key=lambda each: abs(each[0] - size[0]) + abs(each[1] - size[1]))
            problem = f"no engines make images of {size[0]}x{size[1]}; the nearest size they were built for is {near[0]}x{near[1]}"
            engine = EngineName.parse(name)._replace(size=size)
            raise EngineError(problem, reason=Reason.SIZE_MISSING, engine=str(engine), setup=self.setup, bundle=bundle.root)
        return name

    def first(self, bundle: Bundle) -> Size:
        """The bundle's usual size, where there are engines for it, else the smallest there is."""
        usual = bundle.image.height, bundle.image.width
        return usual if self.has_usual or usual in self.sizes else min(self.sizes)


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
    precision: str
    """What they compute in."""
    fallback: str | None = None
    """Why ONNX Runtime on the CPU stands in for what was asked for, and what mends that; None: it does not."""
    versions: Mapping[str, str]
    """What made the images, by name."""
    profiles: Profiles = field(default_factory=Profiles)
    """The sizes there are engines for."""
    upgrade: Upgrade | None = None
    """Better engines on their way."""
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
        return step_name(self.bundle, candidate)

    def decode(self, candidate: Candidate) -> str:
        """Name of the candidate's decoder engine."""
        return decode_name(self.bundle, candidate)

    @property
    def router_engines(self) -> tuple[str, ...]:
        """Names of the engines that the router runs."""
        return tuple(f"{self.bundle.family}/{name}" for name in self.quality.engines)

    def at(self, name: str, size: Size) -> str:
        """Name of the engine that is called for images of that size; raises EngineError where there is none."""
        return self.profiles.resolve(self.bundle, name, size)

    def locate(self, error: EngineError) -> EngineError:
        """The error with bundle and setup, that of the engine it names where this is in use."""
        engine = self.engines.find(error.engine or "")
        key = None if engine is None else engine.key
        return error.located(setup=self.profiles.setup if key is None else key.setup, bundle=self.bundle.root)

    def swap_in(self) -> None:
        """Put engines that became ready in the place of those in use; to be called between two requests."""
        for name, (engine, cost) in (self.upgrade.take() if self.upgrade is not None else {}).items():
            self.zeros.clear()
            self.engines.replace(name, engine)
            self.costs.replace(name, cost)


def encode_name(bundle: Bundle) -> str:
    """Engine of the text encoder, which every bundle has."""
    return next(f"{bundle.family}/{name}/encode" for name, component in bundle.components.items() if component.role == "text_encoder")


def condition_name(bundle: Bundle, candidate: Candidate) -> str | None:
    """Engine of the part of the candidate's denoiser that depends on the text alone; None where its steps do all of it."""
    has_condition = "condition" in bundle.components[candidate.denoiser].graphs
    return f"{bundle.family}/{candidate.denoiser}/condition" if has_condition else None


def step_name(bundle: Bundle, candidate: Candidate) -> str:
    """Engine of the candidate's denoiser."""
    return f"{bundle.family}/{candidate.denoiser}/{candidate.step_graph}"


def decode_name(bundle: Bundle, candidate: Candidate) -> str:
    """Engine of the candidate's decoder."""
    return f"{bundle.family}/{candidate.decoder}/decode"
