"""Schedulers: diffusers' schedulers, compiled to step tables.

    from_diffusers(scheduler_config.json) -> SchedulerConfig -> build_table(config, num_inference_steps, tokens) -> StepTable
    replan(config, table, row, rows_left) -> StepTable for the rest of a run

To add a scheduler, add a function to `solver`, a function that chooses its steps here, and a line to `SCHEDULERS` and to `_DIFFUSERS`, so
that bundles can name it. A row can use D, the D of the row before, and one carried latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.sampling import noise_schedule, solver
from costroute_rt.sampling.step_table import COLUMNS, MEMORY, Descent, FloatArray, StepTable

_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "time_shift_type": ("exponential", "linear"),
}
_FLAGS = (
    "rescale_betas_zero_snr",
    "use_karras_sigmas",
    "set_alpha_to_one",
    "lower_order_final",
    "euler_at_final",
    "stochastic_sampling",
    "use_dynamic_shifting",
)
_COUNTS = {
    "num_train_timesteps": (2, 100_000),
    "steps_offset": (0, 1000),
    "solver_order": (1, 2),
    "original_inference_steps": (1, 100_000),
    "base_image_seq_len": (1, 1 << 20),
    "max_image_seq_len": (2, 1 << 20),
}
_QUANTITIES = {
    "beta_start": (1e-8, 0.999),
    "beta_end": (1e-8, 0.999),
    "eta": (0.0, 1.0),
    "lambda_min_clipped": (-math.inf, 0.0),
    "timestep_scaling": (1e-3, 1e6),
    "shift": (1e-3, 1e3),
    "base_shift": (1e-3, 1e2),
    "max_shift": (1e-3, 1e2),
    "shift_terminal": (0.0, 0.999),
}
_OF_TABLES = {*COLUMNS, *MEMORY, "entry", "exit", "initial_noise_scale"}
"""Arrays of steps and tables, which refuse numbers that are not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """A scheduler and the schedule its model was trained with; fields have diffusers' names and meanings.

    A field that the scheduler does not use is ignored, unless it would change the image: then it is refused.
    """

    name: str
    """One of `SCHEDULERS`."""
    prediction_type: str
    """What the denoiser predicts: epsilon, v_prediction, sample or flow_prediction."""
    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    rescale_betas_zero_snr: bool = False
    timestep_spacing: str = "trailing"
    steps_offset: int = 0
    use_karras_sigmas: bool = False
    final_sigmas_type: str = "zero"
    """euler, dpmpp_2m and unipc: noise level at which a run ends."""
    set_alpha_to_one: bool = True
    """ddim: whether a run ends without noise."""
    eta: float = 0.0
    """ddim: share of each step's noise that is drawn anew, 0 to 1."""
    algorithm_type: str = "dpmsolver++"
    """dpmpp_2m; sde-dpmsolver++ adds noise."""
    solver_order: int = 2
    solver_type: str = "midpoint"
    """dpmpp_2m: midpoint or heun; unipc: bh1 or bh2."""
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf
    original_inference_steps: int = 50
    """lcm: steps of the schedule the model was distilled on."""
    timestep_scaling: float = 10.0
    """lcm"""
    shift: float = 1.0
    """flow_match_euler, flow_dpmpp_2m and flow_unipc: a shift above 1 spends more of the steps at high noise."""
    stochastic_sampling: bool = False
    """flow_match_euler"""
    use_dynamic_shifting: bool = False
    """flow_match_euler: the shift grows with the number of latent tokens, between the two points that follow."""
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15
    time_shift_type: str = "exponential"
    """exponential: the shift is e^mu; linear: the shift is mu; with mu between base_shift and max_shift."""
    shift_terminal: float = 0.0
    """flow_match_euler: noise level of the last step, to which the others are stretched; 0 means no stretching."""

    def __post_init__(self) -> None:
        scheduler = SCHEDULERS.get(self.name)
        if scheduler is None:
            raise ConfigError("scheduler", self.name, f"one of {', '.join(SCHEDULERS)}")
        if self.prediction_type not in scheduler.prediction_types:
            raise ConfigError("prediction_type", self.prediction_type, f"{_either(scheduler.prediction_types)} for {self.name}")
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ConfigError(field, getattr(self, field), _either(choices))
        for field in _FLAGS:
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(field, getattr(self, field), "true or false")
        for field, (least, most) in _COUNTS.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ConfigError(field, value, f"a whole number from {least} to {most}")
        for field, (low, high) in _QUANTITIES.items():
            value = getattr(self, field)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigError(field, value, f"a number from {low:g} to {high:g}")
        if self.solver_type not in scheduler.solver_types:
            raise ConfigError("solver_type", self.solver_type, f"{_either(scheduler.solver_types)} for {self.name}")
        if self.base_image_seq_len >= self.max_image_seq_len:
            raise ConfigError("max_image_seq_len", self.max_image_seq_len, f"more than base_image_seq_len, {self.base_image_seq_len}")
        for feature in ("use_karras_sigmas", "rescale_betas_zero_snr", "use_dynamic_shifting"):
            if getattr(self, feature) and feature not in scheduler.features:
                having = [name for name, other in SCHEDULERS.items() if feature in other.features]
                raise ConfigError(feature, True, f"false for {self.name} (only {', '.join(having)} can)")


class Scheduler(NamedTuple):
    """The functions of a scheduler, which choose its steps and solve them, and the settings that it supports."""

    choose: Callable[[SchedulerConfig, int], Descent]
    solve: Callable[[SchedulerConfig, Descent], StepTable]
    prediction_types: tuple[str, ...] = ("epsilon", "v_prediction", "sample")
    features: tuple[str, ...] = ()
    rows_per_step: int = 1
    solver_types: tuple[str, ...] = ("midpoint", "heun")


def build_table(config: SchedulerConfig, num_inference_steps: int, tokens: int | None = None) -> StepTable:
    """The table of a whole run; heun has 2 * num_inference_steps - 1 rows, every other scheduler one row per step.

    tokens: number of latent tokens of the image, required with `config.use_dynamic_shifting`.
    Raises ConfigError if the scheduler cannot take that many steps, or needs the number of tokens.
    """
    if not 1 <= num_inference_steps <= config.num_train_timesteps:
        raise ConfigError("num_inference_steps", num_inference_steps, f"1 to {config.num_train_timesteps}")
    config, scheduler = shift_by_tokens(config, tokens), SCHEDULERS[config.name]
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


def shift_by_tokens(config: SchedulerConfig, tokens: int | None) -> SchedulerConfig:
    """The scheduler with the shift for an image of `tokens` latent tokens, as diffusers' FLUX pipelines compute it."""
    if not config.use_dynamic_shifting:
        return config
    if tokens is None or tokens < 1:
        raise ConfigError("tokens", tokens, "the number of latent tokens, which this scheduler's shift depends on")
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
    if config.time_shift_type == "linear":
        return replace(config, shift=mu)
    return replace(config, shift=math.exp(min(mu, _LARGEST_MU)))


def replan(config: SchedulerConfig, table: StepTable, row: int, rows_left: int) -> StepTable:
    """A shorter table from the noise level at `row` of a running `table` to the same end, with at most `rows_left` rows.

    The new steps start at an evenly spaced selection of the table's remaining noise levels, so the denoiser gets only timesteps that were
    planned, and the spacing (Karras, shifted ...) is kept. With all the rows that are left, nothing changes.

    heun takes whole steps: an even rows_left leaves one row unused. If a run of heun stops after a predictor, its corrector is skipped,
    because the latent is already at the next level. dpmpp_2m continues to use D_prev: its formula holds for uneven distances,
    so the new row 0 is second order, with the distance to D_prev in the old table. (On a mixture of Gaussians this is as good as a
    first-order restart if few rows are dropped, and clearly better if few are left.) unipc does the same, and its carried latent remains
    valid at `row`. The caller keeps D and y for the new table, and re-plans again only after one of its rows has run. Rows that remain
    keep their guidance scale.
    Raises ConfigError for a row outside the table, or rows_left outside 1 to the rows that are left.
    """
    if not 0 <= row < len(table):
        raise ConfigError("row", row, f"0 to {len(table) - 1}")
    if not 1 <= rows_left <= len(table) - row:
        raise ConfigError("rows_left", rows_left, f"1 to {len(table) - row}, the rows that are left")
    if rows_left == len(table) - row:
        return table.tail(row)
    scheduler = SCHEDULERS[config.name]
    stride = scheduler.rows_per_step
    starts = np.arange(row + row % stride, len(table), stride)
    steps = min(len(starts), (rows_left + stride - 1) // stride)
    kept = starts[np.ceil(np.arange(steps) * len(starts) / steps).astype(np.int64)]
    levels = np.append(table.noise_levels[kept], table.noise_levels[-1])
    descent = replace(Descent.through(table.timestep[kept], levels, table.initial_noise_scale), before=table.descent.before_row(row))
    shorter = scheduler.solve(config, descent)
    sources = kept[(np.arange(len(shorter)) + stride - 1) // stride]
    return shorter.with_guidance(np.asarray(table.guidance)[sources])


def from_diffusers(scheduler_config: Mapping[str, object], *, eta: float = 0.0) -> SchedulerConfig:
    """The configuration in diffusers' scheduler_config.json; missing settings have the defaults of its `_class_name`.

    eta: of ddim, which diffusers takes per call. Raises ConfigError for an unknown class, for settings whose steps are not linear
    (clip_sample, thresholding), and for settings that are not supported here.
    """
    class_name = scheduler_config.get("_class_name")
    known = _DIFFUSERS.get(str(class_name))
    if known is None:
        raise ConfigError("_class_name", class_name, f"one of {', '.join(_DIFFUSERS)}")
    for setting in known.refusable:
        wanted, why = _REFUSALS[setting]
        found = scheduler_config.get(setting, known.defaults.get(setting, wanted))
        if found != wanted and (found, wanted) != (None, False):
            raise ConfigError(setting, found, f"{wanted}: {why}")
    own = {field.name for field in fields(SchedulerConfig)} - {"name", "shift"}
    values = dict(known.defaults) | {key: value for key, value in scheduler_config.items() if value is not None}
    flows = bool(values.get("use_flow_sigmas"))
    name = f"flow_{known.name}" if flows and f"flow_{known.name}" in SCHEDULERS else known.name
    shift = values.get("flow_shift" if flows else "shift", 1.0)
    chosen = {key: value for key, value in values.items() if key in own}
    if "solver_type" in chosen and chosen["solver_type"] not in SCHEDULERS[name].solver_types:
        chosen["solver_type"] = known.defaults.get("solver_type", "midpoint")  # diffusers replaces it too
    return SchedulerConfig(**(chosen | {"name": name, "shift": shift, "eta": eta}))  # type: ignore[arg-type]


class _DiffusersClass(NamedTuple):
    name: str
    defaults: dict[str, object]
    """Defaults that differ from those of `SchedulerConfig`, and the defaults of settings in `_REFUSALS`."""
    refusable: tuple[str, ...]
    """Settings of this class for which only one value, that of `_REFUSALS`, is supported."""


_REFUSALS: dict[str, tuple[object, str]] = {
    "clip_sample": (False, "clipping is not linear; latent models do not need it"),
    "thresholding": (False, "thresholding is not linear; latent models do not need it"),
    "trained_betas": (None, "the schedule is given by beta_start, beta_end and beta_schedule"),
    "use_exponential_sigmas": (False, "use_karras_sigmas or plain timesteps"),
    "use_beta_sigmas": (False, "use_karras_sigmas or plain timesteps"),
    "use_lu_lambdas": (False, "use_karras_sigmas or plain timesteps"),
    "use_dynamic_shifting": (False, "only FlowMatchEulerDiscreteScheduler is compiled with it; give a fixed flow_shift"),
    "predict_x0": (True, "the solver of predicted noise is not compiled"),
    "disable_corrector": ([], "the corrector runs at every step"),
    "solver_p": (None, "another scheduler's predictor is not compiled"),
    "invert_sigmas": (False, "inverted flow times are not compiled"),
    "interpolation_type": ("linear", "log_linear sigmas are not compiled"),
    "timestep_type": ("discrete", "continuous timesteps are not compiled"),
    "sigma_min": (None, "the range is that of the training schedule"),
    "sigma_max": (None, "the range is that of the training schedule"),
    "variance_type": (None, "the denoiser must predict no variance"),
}
_TRAINING: dict[str, object] = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon"}
_SIGMAS = ("trained_betas", "use_exponential_sigmas", "use_beta_sigmas")
_DIFFUSERS = {
    "DDIMScheduler": _DiffusersClass(
        "ddim", _TRAINING | {"timestep_spacing": "leading", "clip_sample": True}, ("clip_sample", "thresholding", "trained_betas")
    ),
    "EulerDiscreteScheduler": _DiffusersClass(
        "euler",
        _TRAINING | {"timestep_spacing": "linspace"},
        (*_SIGMAS, "interpolation_type", "timestep_type", "sigma_min", "sigma_max"),
    ),
    "EulerAncestralDiscreteScheduler": _DiffusersClass("euler_ancestral", _TRAINING | {"timestep_spacing": "linspace"}, ("trained_betas",)),
    "DPMSolverMultistepScheduler": _DiffusersClass(
        "dpmpp_2m",
        _TRAINING | {"timestep_spacing": "linspace"},
        (*_SIGMAS, "thresholding", "use_lu_lambdas", "use_dynamic_shifting", "variance_type"),
    ),
    "HeunDiscreteScheduler": _DiffusersClass(
        "heun",
        _TRAINING | {"beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "linspace"},
        (*_SIGMAS, "clip_sample"),
    ),
    "LCMScheduler": _DiffusersClass(
        "lcm", {"prediction_type": "epsilon", "timestep_spacing": "leading"}, ("clip_sample", "thresholding", "trained_betas")
    ),
    "FlowMatchEulerDiscreteScheduler": _DiffusersClass(
        "flow_match_euler",
        {"prediction_type": "flow_prediction"},
        ("use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas"),
    ),
    "UniPCMultistepScheduler": _DiffusersClass(
        "unipc",
        _TRAINING | {"timestep_spacing": "linspace", "solver_type": "bh2"},
        (
            *_SIGMAS,
            "thresholding",
            "use_dynamic_shifting",
            "predict_x0",
            "disable_corrector",
            "solver_p",
            "sigma_min",
            "sigma_max",
        ),
    ),
}

SUPPORTED = tuple(_DIFFUSERS)
"""Classes of diffusers that can be compiled."""


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join(choices)


def _train_signal(config: SchedulerConfig) -> FloatArray:
    return noise_schedule.alphas_cumprod(
        config.num_train_timesteps, config.beta_start, config.beta_end, config.beta_schedule, config.rescale_betas_zero_snr
    )


def _space(config: SchedulerConfig, num_inference_steps: int) -> FloatArray:
    return noise_schedule.space_timesteps(config.timestep_spacing, num_inference_steps, config.num_train_timesteps, config.steps_offset)


def _choose_ddim(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """Steps that each aim a fixed stride below their timestep, as in diffusers; the next need not start there (7 steps of 1000)."""
    signal = _train_signal(config)
    timestep = _space(config, num_inference_steps).round()
    if timestep[0] >= config.num_train_timesteps:
        raise ConfigError("steps_offset", config.steps_offset, f"timesteps below {config.num_train_timesteps}, not {timestep[0]:.0f}")
    now = timestep.astype(np.int64)
    target = now - config.num_train_timesteps // num_inference_steps
    last = 1.0 if config.set_alpha_to_one else signal[0]
    signal_after = np.where(target >= 0, signal[np.maximum(target, 0)], last)
    return Descent(timestep=timestep, entry=np.sqrt(1 - signal[now]), exit=np.sqrt(1 - signal_after))


def _choose_lcm(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """An evenly spaced selection of the distillation's timesteps; timestep_spacing has no effect."""
    original = config.original_inference_steps
    if not num_inference_steps <= original <= config.num_train_timesteps:
        raise ConfigError("num_inference_steps", num_inference_steps, f"1 to {original}, the model's original_inference_steps")
    distilled = np.arange(original, 0, -1) * (config.num_train_timesteps // original) - 1
    now = distilled[np.floor(np.linspace(0, original, num_inference_steps, endpoint=False)).astype(np.int64)]
    levels = np.append(np.sqrt(1 - _train_signal(config)[now]), 0.0)
    return Descent.through(now.astype(np.float64), levels)


def _choose_unscaled(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    train_sigmas = noise_schedule.to_sigmas(_train_signal(config))
    timestep = _space(config, num_inference_steps)
    sigmas = np.interp(timestep, np.arange(len(train_sigmas)), train_sigmas)
    if config.use_karras_sigmas:
        sigmas = noise_schedule.space_karras(sigmas[0], sigmas[-1], num_inference_steps)
        timestep = noise_schedule.sigma_to_timestep(sigmas, train_sigmas)
    # The denoiser sees x / sqrt(1 + sigma^2); with "leading", diffusers starts such that this has exactly unit variance.
    start = math.hypot(sigmas[0], 1) if config.timestep_spacing == "leading" else float(sigmas[0])
    ends_clean = config.final_sigmas_type == "zero" or config.name != "euler"
    return Descent.through(timestep, np.append(sigmas, 0.0 if ends_clean else train_sigmas[0]), start)


def _choose_dpmpp(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    train_sigmas = noise_schedule.to_sigmas(_train_signal(config))
    used = len(train_sigmas) - int(np.searchsorted(-np.log(train_sigmas[::-1]), config.lambda_min_clipped))
    timestep = noise_schedule.space_inner_timesteps(
        config.timestep_spacing, num_inference_steps, config.num_train_timesteps, used, config.steps_offset
    )
    sigmas = np.interp(timestep, np.arange(len(train_sigmas)), train_sigmas)
    if config.use_karras_sigmas:
        sigmas = noise_schedule.space_karras(train_sigmas[-1], train_sigmas[0], num_inference_steps)
        timestep = noise_schedule.sigma_to_timestep(sigmas, train_sigmas)
        timestep = np.trunc(timestep if config.beta_schedule == "squaredcos_cap_v2" else timestep.round())
    return Descent.through(timestep, np.append(sigmas, 0.0 if config.final_sigmas_type == "zero" else train_sigmas[0]))


def _choose_flow_dpmpp(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """Shifted flow times; like diffusers, the timesteps are truncated to whole numbers, slightly below their noise levels."""
    times = 1 - np.linspace(1, 1 / config.num_train_timesteps, num_inference_steps + 1)
    sigmas = noise_schedule.shift_flow(times, config.shift)[:0:-1]
    end = 0.0 if config.final_sigmas_type == "zero" else noise_schedule.to_sigmas(_train_signal(config)[:1])[0]
    return Descent.through(np.trunc(sigmas * config.num_train_timesteps), np.append(sigmas, end))


def _choose_unipc(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    train_sigmas = noise_schedule.to_sigmas(_train_signal(config))
    count = config.num_train_timesteps
    timestep = noise_schedule.space_inner_timesteps(config.timestep_spacing, num_inference_steps, count, count, config.steps_offset)
    sigmas = np.interp(timestep, np.arange(count), train_sigmas)
    if config.use_karras_sigmas:
        sigmas = noise_schedule.space_karras(train_sigmas[-1], train_sigmas[0], num_inference_steps)
        timestep = noise_schedule.sigma_to_timestep(sigmas, train_sigmas).round()
    lowest = sigmas[-1] if config.use_karras_sigmas else train_sigmas[0]
    return Descent.through(timestep, np.append(sigmas, 0.0 if config.final_sigmas_type == "zero" else lowest))


def _choose_flow_unipc(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """Shifted flow times; a first level of 1, whose signal of 0 has no logarithm, is lowered by 1e-6 in float32, as in diffusers."""
    times = np.linspace(1, 1 / config.num_train_timesteps, num_inference_steps + 1)[:-1]
    sigmas = noise_schedule.shift_flow(times, config.shift)
    if abs(sigmas[0] - 1) < _LEAST_SIGNAL:
        sigmas[0] = np.float32(sigmas[0] - _LEAST_SIGNAL)
    return Descent.through(
        np.trunc(sigmas * config.num_train_timesteps), np.append(sigmas, 0.0 if config.final_sigmas_type == "zero" else sigmas[-1])
    )


def _choose_flow(config: SchedulerConfig, num_inference_steps: int) -> Descent:
    """diffusers' default sigmas, whose lowest is shifted twice: once for sigma_min and once here.

    With use_dynamic_shifting, the sigmas that its FLUX pipelines pass instead: from 1 to 1 / steps, shifted.
    """
    count = config.num_train_timesteps
    if config.use_dynamic_shifting:
        times = np.linspace(1, 1 / num_inference_steps, num_inference_steps)
    else:
        times = np.linspace(count, noise_schedule.shift_flow(np.array(1 / count), config.shift) * count, num_inference_steps) / count
    sigmas = noise_schedule.shift_flow(times, config.shift)
    if config.shift_terminal:
        if num_inference_steps == 1:
            raise ConfigError("num_inference_steps", 1, "2 or more with shift_terminal, which is the level of the last of them")
        sigmas = 1 - (1 - sigmas) * (1 - config.shift_terminal) / (1 - sigmas[-1])
    if config.use_karras_sigmas:
        sigmas = noise_schedule.space_karras(sigmas[0], sigmas[-1], num_inference_steps)
    return Descent.through(sigmas * count, np.append(sigmas, 0.0))


def _solve_unipc(config: SchedulerConfig, descent: Descent) -> StepTable:
    return solver.unipc(
        descent,
        config.prediction_type,
        solver_order=config.solver_order,
        solver_type=config.solver_type,
        lower_order_final=config.lower_order_final,
    )


def _solve_dpmpp(config: SchedulerConfig, descent: Descent) -> StepTable:
    return solver.dpmpp_2m(
        descent,
        config.prediction_type,
        is_stochastic=config.algorithm_type == "sde-dpmsolver++",
        solver_order=config.solver_order,
        solver_type=config.solver_type,
        lower_order_final=config.lower_order_final,
        euler_at_final=config.euler_at_final,
    )


_FLOW = ("flow_prediction",)
_UNIPC_TYPES = ("bh2", "bh1")
_LEAST_SIGNAL = 1e-6
_LARGEST_MU = 100.0
"""Larger values, which overflow, give a shift that is refused as too large."""
SCHEDULERS: dict[str, Scheduler] = {
    "ddim": Scheduler(
        _choose_ddim,
        lambda config, descent: solver.ddim(descent, config.prediction_type, config.eta),
        features=("rescale_betas_zero_snr",),
    ),
    "euler": Scheduler(
        _choose_unscaled,
        lambda config, descent: solver.euler(descent, config.prediction_type),
        features=("rescale_betas_zero_snr", "use_karras_sigmas"),
    ),
    "euler_ancestral": Scheduler(
        _choose_unscaled,
        lambda config, descent: solver.euler_ancestral(descent, config.prediction_type),
        prediction_types=("epsilon", "v_prediction"),
        features=("rescale_betas_zero_snr",),
    ),
    "dpmpp_2m": Scheduler(_choose_dpmpp, _solve_dpmpp, features=("rescale_betas_zero_snr", "use_karras_sigmas")),
    "heun": Scheduler(
        _choose_unscaled,
        lambda config, descent: solver.heun(descent, config.prediction_type),
        features=("use_karras_sigmas",),
        rows_per_step=2,
    ),
    "lcm": Scheduler(
        _choose_lcm,
        lambda config, descent: solver.lcm(descent, config.prediction_type, config.timestep_scaling),
        features=("rescale_betas_zero_snr",),
    ),
    "flow_match_euler": Scheduler(
        _choose_flow,
        lambda config, descent: solver.flow_match_euler(descent, config.stochastic_sampling),
        prediction_types=_FLOW,
        features=("use_karras_sigmas", "use_dynamic_shifting"),
    ),
    "flow_dpmpp_2m": Scheduler(_choose_flow_dpmpp, _solve_dpmpp, prediction_types=_FLOW),
    "unipc": Scheduler(_choose_unipc, _solve_unipc, features=("rescale_betas_zero_snr", "use_karras_sigmas"), solver_types=_UNIPC_TYPES),
    "flow_unipc": Scheduler(_choose_flow_unipc, _solve_unipc, prediction_types=_FLOW, solver_types=_UNIPC_TYPES),
}
