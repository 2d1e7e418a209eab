"""The step tables of a family's schedulers, each built once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.scheduler import build_table
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.step_table import StepTable


class Tables:
    """Step tables by scheduler, number of steps and, if the scheduler's shift depends on it, number of latent tokens."""

    def __init__(self, schedulers: Mapping[str, Mapping[str, Any]]) -> None:
        """schedulers: diffusers' scheduler configurations by name; each is read when it is first used."""
        self._schedulers = schedulers
        self._configs: dict[str, SchedulerConfig] = {}
        self._tables: dict[tuple[str, int, int | None], StepTable] = {}

    def config(self, scheduler: str) -> SchedulerConfig:
        """The configuration of a scheduler; raises ConfigError if it cannot be compiled."""
        if scheduler not in self._configs:
            self._configs[scheduler] = from_diffusers(self._schedulers[scheduler])
        return self._configs[scheduler]

    def table(self, scheduler: str, num_inference_steps: int, tokens: int) -> StepTable:
        """The table of a whole run without guidance; raises ConfigError if the scheduler cannot take that many steps."""
        config = self.config(scheduler)
        key = scheduler, num_inference_steps, tokens if config.use_dynamic_shifting else None
        if key not in self._tables:
            self._tables[key] = build_table(config, num_inference_steps, tokens)
        return self._tables[key]
