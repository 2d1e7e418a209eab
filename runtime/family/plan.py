"""How a candidate makes images of one size: everything that stays the same from request to request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from costroute_rt.call import Call
from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.name import Size
from costroute_rt.sampling.scheduler import SchedulerConfig
from costroute_rt.sampling.step_table import StepTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Compiled once for a candidate and a size; `Family.plan` keeps it."""

    candidate: Candidate
    size: Size
    """Height and width of the image, in pixels."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width."""
    sources: tuple[str, ...]
    """Names of the conditioning tensors that the denoiser takes."""
    encoders: Mapping[str, Call]
    """The call of each text encoder that it takes outputs of, by component."""
    condition: Call | None
    step: Call
    """One call for each row of the table."""
    decode: Call
    table: StepTable
    """The whole run, with the candidate's guidance scale."""
    scheduler: SchedulerConfig

    def calls(self, count: int, texts: int) -> tuple[Call, ...]:
        """Every engine run for `count` images, in order; texts: 2 if the negative prompt has to be encoded too."""
        text = [replace(call, times=texts) for call in self.encoders.values()]
        condition = [] if self.condition is None else [self.condition]
        return (*text, *condition, replace(self.step, times=count * self.step.times), replace(self.decode, times=count))
