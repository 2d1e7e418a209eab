"""Schedulers: diffusers' schedulers, compiled to step tables.

    from_diffusers(scheduler_config.json) -> SchedulerConfig -> build_table(config, num_inference_steps, tokens) -> StepTable
    replan(config, table, row, rows_left) -> StepTable for the rest of a run, with fewer rows
    refine(config, table, row, finer) -> StepTable for the rest of a run, with more rows

To add a scheduler, add a function to `solver`, one that chooses its steps to `steps`, and a line to `SCHEDULERS` here, to `KINDS` in
`scheduler_config`, and to `_DIFFUSERS` in `diffusers_config`, so that bundles can name it. A row can use D, the D of the row before, and
one carried latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError
from costroute_rt.sampling import noise_schedule, steps
from costroute_rt.sampling.scheduler_config import KINDS, SchedulerConfig
from costroute_rt.sampling.solver import dpmpp, flow, preserving, singlestep, two_rows, unipc, unscaled
from costroute_rt.sampling.step_table import COLUMNS, MEMORY, Descent, FloatArray, StepTable

_OF_TABLES = {*COLUMNS, *MEMORY, "entry", "exit", "initial_noise_scale"}
"""Arrays of steps and tables, which refuse numbers that are not finite."""


class Scheduler(NamedTuple):
    """The functions of a scheduler, which choose its steps and solve them."""

    choose: Callable[[SchedulerConfig, int], Descent]
    solve: Callable[[SchedulerConfig, Descent], StepTable]


def build_table(config: SchedulerConfig, num_inference_steps: int, tokens: int | None = None) -> StepTable:
    """The table of a whole run; heun has 2 * num_inference_steps - 1 rows, every other scheduler one row per step.

    tokens: number of latent tokens of the image, required with `config.use_dynamic_shifting`.
    Raises ConfigError if the scheduler cannot take that many steps, or needs the number of tokens.
    """
    if not 1 <= num_inference_steps <= config.num_train_timesteps:
        raise ConfigError("num_inference_steps", num_inference_steps, f"1 to {config.num_train_timesteps}")
    config, scheduler = steps.shift_by_tokens(config, tokens), SCHEDULERS[config.name]
    try:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # the table is checked for finite numbers instead
            table = scheduler.solve(config, scheduler.choose(config, num_inference_steps))
    except ConfigError as error:
        if error.name not in _OF_TABLES:
            raise
        raise _unusable(config, num_inference_steps) from error
    except np.linalg.LinAlgError as error:
        raise _unusable(config, num_inference_steps) from error
    if np.abs(table.rows(memory=True)).max() > np.finfo(np.float32).max:
        raise _unusable(config, num_inference_steps)
    return table


def _unusable(config: SchedulerConfig, num_inference_steps: int) -> ConfigError:
    """The error for a table with numbers that are not finite: two of its noise levels are equal, or one of them is 0 or infinite."""
    what = f"fewer steps, another timestep_spacing or other betas: {config.name} would divide by zero with this schedule"
    return ConfigError("num_inference_steps", num_inference_steps, what)


def replan(config: SchedulerConfig, table: StepTable, row: int, rows_left: int) -> StepTable:
    """A shorter table from the noise level at `row` of a running `table` to the same end, with at most `rows_left` rows.

    The new steps start at an evenly spaced selection of the table's remaining noise levels, so the denoiser gets only timesteps that were
    planned, and the spacing (Karras, shifted ...) is kept. With all the rows that are left, nothing changes.

    Schedulers with two rows per step take whole steps: an even rows_left leaves one row unused. Between the two rows, the new steps start
    at the level where the latent is; for heun that is the next step's level, so its corrector is skipped. (The timesteps in the middle of
    new steps lie between planned ones.) Singlestep groups start anew, at first order.
    dpmpp_2m continues to use D_prev: its formula holds for uneven distances, so the new row 0 is second order, with the distance to
    D_prev in the old table. (On a mixture of Gaussians this is as good as a first-order restart if few rows are dropped, and clearly
    better if few are left.) dpmpp_3m and unipc do the same, and their carried latent remains valid at `row`. The caller keeps D and y
    for the new table, and re-plans again only after one of its rows has run. Rows that remain keep their guidance scale.
    Raises ConfigError for a row outside the table, or rows_left outside 1 to the rows that are left.
    """
    if not 0 <= row < len(table):
        raise ConfigError("row", row, f"0 to {len(table) - 1}")
    if not 1 <= rows_left <= len(table) - row:
        raise ConfigError("rows_left", rows_left, f"1 to {len(table) - row}, the rows that are left")
    if rows_left == len(table) - row:
        return table.tail(row)
    stride = KINDS[config.name].rows_per_step
    starts = _starts(table, row, stride)
    count = min(len(starts), (rows_left + stride - 1) // stride)
    kept = starts[np.ceil(np.arange(count) * len(starts) / count).astype(np.int64)]
    levels = np.append(table.noise_levels[kept], table.noise_levels[-1])
    shorter = _go_on(config, table, row, table.timestep[kept], levels)
    sources = kept[(np.arange(len(shorter)) + stride - 1) // stride]
    return shorter.with_guidance(np.asarray(table.guidance)[sources])


def refine(config: SchedulerConfig, table: StepTable, row: int, finer: StepTable) -> StepTable:
    """A table from the noise level at `row` of a running `table` through the lower levels of a finer one to its end.

    finer: the table of a whole run of the same scheduler, with one row per step, as `table` must have. As with `replan`, the denoiser gets
    only timesteps that were planned, and solvers go on with what earlier rows computed.
    """
    below = finer_rows(table, row, finer)
    timestep = np.concatenate([table.timestep[row : row + 1], finer.timestep[below]])
    levels = np.concatenate([table.noise_levels[row : row + 1], finer.noise_levels[below], finer.noise_levels[-1:]])
    guidance = np.concatenate([np.asarray(table.guidance)[row : row + 1], np.asarray(finer.guidance)[below]])
    return _go_on(config, table, row, timestep, levels).with_guidance(guidance)


def finer_rows(table: StepTable, row: int, finer: StepTable) -> npt.NDArray[np.int64]:
    """The rows of a finer table that follow a first step from the noise level at `row` of a running one.

    A level that is nearer to that one than half of the finer table's step is left out.
    """
    here, levels = table.noise_levels[row], finer.noise_levels
    below = np.flatnonzero(levels[:-1] < here)
    is_near = len(below) > 0 and below[0] > 0 and here - levels[below[0]] < (levels[below[0] - 1] - levels[below[0]]) / 2
    return below[1:] if is_near else below


def _go_on(config: SchedulerConfig, table: StepTable, row: int, timestep: FloatArray, levels: FloatArray) -> StepTable:
    """The rows of a run that was at `row` of a table and goes on through these levels."""
    descent = replace(Descent.through(timestep, levels, table.initial_noise_scale), before=table.descent.before_row(row))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return SCHEDULERS[config.name].solve(config, descent)


def _starts(table: StepTable, row: int, stride: int) -> npt.NDArray[np.int64]:
    """Rows from `row` on at which a step starts or, for `row` itself, can start: x is at its level."""
    starts = np.arange(row + row % stride, len(table), stride)
    if row % stride and table.noise_levels[row] != table.noise_levels[row + 1]:
        starts = np.concatenate([[row], starts])
    return starts


def _to_timestep(config: SchedulerConfig) -> Callable[[FloatArray], FloatArray]:
    train_sigmas = noise_schedule.to_sigmas(steps.train_signal(config))
    return lambda sigmas: noise_schedule.sigma_to_timestep(sigmas, train_sigmas)


def _solve_tcd(config: SchedulerConfig, descent: Descent) -> StepTable:
    following = np.append(descent.timestep[1:], 0.0)
    below = np.floor((1 - config.eta) * following).astype(np.int64)
    return preserving.tcd(descent, config.prediction_type, np.sqrt(1 - steps.train_signal(config)[below]))


def _solve_unipc(config: SchedulerConfig, descent: Descent) -> StepTable:
    return unipc.unipc(
        descent,
        config.prediction_type,
        solver_order=config.solver_order,
        solver_type=config.solver_type,
        lower_order_final=config.lower_order_final,
    )


def _solve_multistep(config: SchedulerConfig, descent: Descent) -> StepTable:
    return dpmpp.dpmpp_multistep(
        descent,
        config.prediction_type,
        is_stochastic=config.algorithm_type == "sde-dpmsolver++",
        solver_order=config.solver_order,
        solver_type=config.solver_type,
        lower_order_final=config.lower_order_final,
        euler_at_final=config.euler_at_final,
    )


def _solve_singlestep(config: SchedulerConfig, descent: Descent) -> StepTable:
    return singlestep.dpmpp_singlestep(
        descent,
        config.prediction_type,
        is_stochastic=config.algorithm_type == "sde-dpmsolver++",
        solver_order=config.solver_order,
        solver_type=config.solver_type,
        lower_order_final=config.lower_order_final,
    )


def _solve_ddpm(config: SchedulerConfig, descent: Descent) -> StepTable:
    return preserving.ddpm(descent, config.prediction_type, is_large=config.variance_type == "fixed_large")


def _solve_lcm(config: SchedulerConfig, descent: Descent) -> StepTable:
    return preserving.lcm(descent, config.prediction_type, config.timestep_scaling)


def _two_rows(solve: Callable[..., StepTable], **settings: bool) -> Scheduler:
    """A scheduler that calls the denoiser at each step's start and in its middle."""
    return Scheduler(
        steps.choose_unscaled, lambda config, descent: solve(descent, config.prediction_type, _to_timestep(config), **settings)
    )


SCHEDULERS: dict[str, Scheduler] = {
    "ddim": Scheduler(steps.choose_ddim, lambda config, descent: preserving.ddim(descent, config.prediction_type, config.eta)),
    "ddpm": Scheduler(steps.choose_ddpm, _solve_ddpm),
    "euler": Scheduler(steps.choose_unscaled, lambda config, descent: unscaled.euler(descent, config.prediction_type)),
    "euler_ancestral": Scheduler(steps.choose_unscaled, lambda config, descent: unscaled.euler_ancestral(descent, config.prediction_type)),
    "heun": Scheduler(steps.choose_unscaled, lambda config, descent: unscaled.heun(descent, config.prediction_type)),
    "kdpm2": _two_rows(two_rows.kdpm2),
    "kdpm2_ancestral": _two_rows(two_rows.kdpm2, is_ancestral=True),
    "dpmpp_2s_ancestral": _two_rows(two_rows.dpmpp_2s_ancestral),
    "dpmpp_sde": _two_rows(two_rows.dpmpp_sde),
    "dpmpp_2m": Scheduler(steps.choose_dpmpp, _solve_multistep),
    "dpmpp_3m": Scheduler(steps.choose_dpmpp, _solve_multistep),
    "dpmpp_2s": Scheduler(steps.choose_dpmpp, _solve_singlestep),
    "dpmpp_3s": Scheduler(steps.choose_dpmpp, _solve_singlestep),
    "unipc": Scheduler(steps.choose_unipc, _solve_unipc),
    "lcm": Scheduler(steps.choose_distilled, _solve_lcm),
    "tcd": Scheduler(steps.choose_distilled, _solve_tcd),
    "flow_match_euler": Scheduler(steps.choose_flow, lambda config, descent: flow.flow_match_euler(descent, config.stochastic_sampling)),
    "flow_heun": Scheduler(steps.choose_flow, lambda config, descent: unscaled.heun(descent, config.prediction_type)),
    "flow_dpmpp_2m": Scheduler(steps.choose_flow_dpmpp, _solve_multistep),
    "flow_dpmpp_3m": Scheduler(steps.choose_flow_dpmpp, _solve_multistep),
    "flow_dpmpp_2s": Scheduler(steps.choose_flow_dpmpp, _solve_singlestep),
    "flow_dpmpp_3s": Scheduler(steps.choose_flow_dpmpp, _solve_singlestep),
    "flow_unipc": Scheduler(steps.choose_flow_unipc, _solve_unipc),
}
"""The functions of every scheduler in `KINDS`."""
