"""The step tables of a family's schedulers, and of other schedulers by name, each built once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.named_scheduler import NamedScheduler, named_scheduler
from costroute_rt.sampling.scheduler import build_table
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.step_table import StepTable

_KEPT = 256
"""Capacity of the caches, which grow with the names and sizes requested."""


class Tables:
    """Step tables by scheduler, number of steps and, if the scheduler's shift depends on it, number of latent tokens.

    scheduler: the name of one of the family's. instead: the name of another that replaces it (`named_scheduler`); None means itself.
    """

    def __init__(self, schedulers: Mapping[str, Mapping[str, Any]]) -> None:
        """schedulers: diffusers' scheduler configurations by name; each is read when it is first used."""
        self._schedulers = schedulers
        self._configs: dict[tuple[str, str | None], NamedScheduler] = {}
        self._tables: dict[tuple[str, str | None, int, int | None], StepTable] = {}

    def config(self, scheduler: str, instead: str | None = None) -> SchedulerConfig:
        """The configuration of a scheduler; raises ConfigError if it cannot be compiled, or does not exist."""
        return self.named(scheduler, instead).config

    def named(self, scheduler: str, instead: str | None = None) -> NamedScheduler:
        """`config`, with a note if it is another scheduler than its name says."""
        key = scheduler, instead
        found = self._configs.get(key)
        if found is None:
            if instead is None:
                found = NamedScheduler(from_diffusers(self._schedulers[scheduler]), None)
            else:
                found = named_scheduler(instead, self.config(scheduler))
            _keep(self._configs, key, found)
        return found

    def table(self, scheduler: str, num_inference_steps: int, tokens: int, *, instead: str | None = None) -> StepTable:
        """The table of a whole run without guidance; raises ConfigError if the scheduler cannot take that many steps."""
        config = self.config(scheduler, instead)
        key = scheduler, instead, num_inference_steps, tokens if config.use_dynamic_shifting else None
        found = self._tables.get(key)
        if found is None:
            if instead is not None and num_inference_steps == 1 and config.timestep_spacing == "linspace":
                config = replace(config, timestep_spacing="trailing")  # the only step of linspace is the lowest timestep
            found = build_table(config, num_inference_steps, tokens)
            _keep(self._tables, key, found)
        return found


def _keep(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= _KEPT:
        cache.clear()
    cache[key] = value
