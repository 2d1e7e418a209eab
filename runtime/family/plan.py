"""Plans: everything about a candidate and an image size that stays the same from request to request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from costroute_rt.call import Call, Stage
from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.name import Size
from costroute_rt.family.tiling import Tiling
from costroute_rt.sampling.scheduler_config import SchedulerConfig
from costroute_rt.sampling.step_table import StepTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Engine calls, step table and shapes of a candidate at one size; `Family.plan` compiles and keeps them."""

    candidate: Candidate
    size: Size
    """Height and width of the image, in pixels."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width."""
    sources: tuple[str, ...]
    """Names of the conditioning tensors that the denoiser takes."""
    tokenizers: tuple[str, ...]
    """Names of the tokenizers whose tokens the text encoders or the denoiser take."""
    image_calls: tuple[Call, ...]
    """Every engine run for one image, in order; the fields below are taken from it."""
    encoders: Mapping[str, Call]
    """The call of each text encoder whose outputs the denoiser takes, by component."""
    condition: Call | None
    """The call of the denoiser's `condition` graph; None if it has none."""
    step: Call
    """One call for each row of the table that `plain_step` does not take."""
    decode: Call
    """One call for each tile of the image."""
    encode: Call | None
    """The call that turns an initial image into a latent; None without one."""
    table: StepTable
    """The rows of a whole run, or of one that begins with an image, with the candidate's guidance scale."""
    scheduler: SchedulerConfig
    scheduler_note: str | None = None
    """What the scheduler replaces, if it is not what the request's name says."""
    tiling: Tiling | None = None
    """How the latent is cut for `decode`; None if it is decoded in one."""
    plain_step: Call | None = None
    """For a guided candidate, the call of its rows without guidance, if they run another graph."""
    plain_condition: Call | None = None
    """The call of the `condition` graph for these rows, which has one text."""

    def calls(self, count: int, texts: int, chunks: int) -> tuple[Call, ...]:
        """Every engine run for `count` images, in order; the arguments are those of `Family.calls`."""
        encoders = set(self.encoders.values())
        conditions = {each: grown(each, chunks) for each in (self.condition, self.plain_condition) if each is not None}

        def times(call: Call) -> int:
            if call.stage in (Stage.DENOISE, Stage.DECODE):
                return count * call.times
            return texts if call in encoders else 1

        return tuple(replace(conditions.get(call) or call, times=times(call)) for call in self.image_calls)


def grown(condition: Call, chunks: int) -> Call:
    """The call of a `condition` graph for prompts of so many chunks, whose work grows with them."""
    return replace(condition, area=chunks * condition.area)
