"""The configuration of a scheduler, and what each scheduler supports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from costroute_rt.error import ConfigError

_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "time_shift_type": ("exponential", "linear"),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large"),
}
_FLAGS = (
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
    "lower_order_final",
    "euler_at_final",
    "stochastic_sampling",
    "use_dynamic_shifting",
)
_COUNTS = {
    "num_train_timesteps": (2, 100_000),
    "steps_offset": (0, 1000),
    "solver_order": (1, 3),
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


class Kind(NamedTuple):
    """What a scheduler supports."""

    prediction_types: tuple[str, ...] = ("epsilon", "v_prediction", "sample")
    features: tuple[str, ...] = ()
    sigma_schedules: tuple[str, ...] = ("timesteps",)
    rows_per_step: int = 1
    """1, or 2 for solvers that call the denoiser twice in every step but the last."""
    solver_types: tuple[str, ...] = ("midpoint", "heun")
    solver_orders: tuple[int, ...] = (1, 2)


_FLOW = ("flow_prediction",)
_NOISE = ("epsilon", "v_prediction")
_UNIPC_TYPES = ("bh2", "bh1")
_ZERO_SNR = ("rescale_betas_zero_snr",)
_TIMES = ("timesteps", "simple", "sgm_uniform", "beta_timesteps")
_SIGMAS = (*_TIMES, "karras", "exponential", "beta", "kl_optimal", "align_your_steps_sd15", "align_your_steps_sdxl")
KINDS: dict[str, Kind] = {
    "ddim": Kind(features=_ZERO_SNR),
    "ddpm": Kind(features=_ZERO_SNR),
    "euler": Kind(features=_ZERO_SNR, sigma_schedules=_SIGMAS),
    "euler_ancestral": Kind(_NOISE, _ZERO_SNR, _SIGMAS),
    "heun": Kind(sigma_schedules=_SIGMAS, rows_per_step=2),
    "kdpm2": Kind(_NOISE, sigma_schedules=_SIGMAS, rows_per_step=2),
    "kdpm2_ancestral": Kind(_NOISE, sigma_schedules=_SIGMAS, rows_per_step=2),
    "dpmpp_2s_ancestral": Kind(sigma_schedules=_SIGMAS, rows_per_step=2),
    "dpmpp_sde": Kind(_NOISE, sigma_schedules=_SIGMAS, rows_per_step=2),
    "dpmpp_2m": Kind(features=_ZERO_SNR, sigma_schedules=(*_SIGMAS, "lu")),
    "dpmpp_3m": Kind(features=_ZERO_SNR, sigma_schedules=(*_SIGMAS, "lu"), solver_orders=(3,)),
    "dpmpp_2s": Kind(features=_ZERO_SNR, sigma_schedules=_SIGMAS),
    "dpmpp_3s": Kind(features=_ZERO_SNR, sigma_schedules=_SIGMAS, solver_orders=(3,)),
    "unipc": Kind(features=_ZERO_SNR, sigma_schedules=_SIGMAS, solver_types=_UNIPC_TYPES),
    "lcm": Kind(features=_ZERO_SNR),
    "tcd": Kind(features=_ZERO_SNR),
    "flow_match_euler": Kind(_FLOW, ("use_dynamic_shifting", "shift_terminal"), (*_TIMES, "karras", "exponential", "beta")),
    "flow_heun": Kind(_FLOW, ("use_dynamic_shifting",), _TIMES, rows_per_step=2),
    "flow_dpmpp_2m": Kind(_FLOW, ("use_dynamic_shifting",), sigma_schedules=_TIMES),
    "flow_dpmpp_3m": Kind(_FLOW, ("use_dynamic_shifting",), sigma_schedules=_TIMES, solver_orders=(3,)),
    "flow_dpmpp_2s": Kind(_FLOW, ("use_dynamic_shifting",), sigma_schedules=_TIMES),
    "flow_dpmpp_3s": Kind(_FLOW, ("use_dynamic_shifting",), sigma_schedules=_TIMES, solver_orders=(3,)),
    "flow_unipc": Kind(_FLOW, ("use_dynamic_shifting",), sigma_schedules=_TIMES, solver_types=_UNIPC_TYPES),
}
"""Every scheduler by name; `scheduler.SCHEDULERS` has their functions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """A scheduler and the schedule its model was trained with; fields have diffusers' names and meanings.

    A field that the scheduler does not use is ignored, unless it would change the image: then it is refused.
    """

    name: str
    """One of `KINDS`."""
    prediction_type: str
    """What the denoiser predicts: epsilon, v_prediction, sample or flow_prediction."""
    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    rescale_betas_zero_snr: bool = False
    timestep_spacing: str = "trailing"
    steps_offset: int = 0
    sigma_schedule: str = "timesteps"
    """How noise levels are spaced: by timestep_spacing, or as `sigma_spacing` says; diffusers has a flag for each (use_karras_sigmas)."""
    final_sigmas_type: str = "zero"
    """euler, dpmpp_* and unipc: noise level at which a run ends."""
    set_alpha_to_one: bool = True
    """ddim: whether a run ends without noise."""
    eta: float = 0.0
    """ddim and tcd (the paper's gamma): share of each step's noise that is drawn anew, 0 to 1."""
    variance_type: str = "fixed_small"
    """ddpm: noise of each step; fixed_large adds more, also to the last."""
    algorithm_type: str = "dpmsolver++"
    """dpmpp_2m, dpmpp_3m, dpmpp_2s and dpmpp_3s; sde-dpmsolver++ adds noise."""
    solver_order: int = 2
    solver_type: str = "midpoint"
    """dpmpp_*: midpoint or heun; unipc: bh1 or bh2."""
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf
    original_inference_steps: int = 50
    """lcm and tcd: steps of the schedule the model was distilled on."""
    timestep_scaling: float = 10.0
    """lcm"""
    shift: float = 1.0
    """flow_*: a shift above 1 spends more of the steps at high noise."""
    stochastic_sampling: bool = False
    """flow_match_euler"""
    use_dynamic_shifting: bool = False
    """flow_*: the shift grows with the number of latent tokens, between the two points that follow."""
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15
    time_shift_type: str = "exponential"
    """exponential: the shift is e^mu; linear: the shift is mu; with mu between base_shift and max_shift."""
    shift_terminal: float = 0.0
    """flow_match_euler: noise level of the last step, to which the others are stretched; 0 means no stretching."""

    @property
    def title(self) -> str:
        """Its name, with the forms that change the image: `dpmpp_2m sde karras`."""
        words = [self.name, *(["sde"] if self.algorithm_type == "sde-dpmsolver++" else [])]
        words += [] if self.sigma_schedule == "timesteps" else [self.sigma_schedule]
        return " ".join(words)

    def __post_init__(self) -> None:
        kind = KINDS.get(self.name)
        if kind is None:
            raise ConfigError("scheduler", self.name, f"one of {', '.join(KINDS)}")
        if self.prediction_type not in kind.prediction_types:
            raise ConfigError("prediction_type", self.prediction_type, f"{_either(kind.prediction_types)} for {self.name}")
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
        if self.solver_type not in kind.solver_types:
            raise ConfigError("solver_type", self.solver_type, f"{_either(kind.solver_types)} for {self.name}")
        if self.solver_order not in kind.solver_orders:
            orders = " or ".join(str(order) for order in kind.solver_orders)
            raise ConfigError("solver_order", self.solver_order, f"{orders} for {self.name}")
        if self.sigma_schedule not in kind.sigma_schedules:
            raise ConfigError("sigma_schedule", self.sigma_schedule, f"one of {', '.join(kind.sigma_schedules)} for {self.name}")
        if self.base_image_seq_len >= self.max_image_seq_len:
            raise ConfigError("max_image_seq_len", self.max_image_seq_len, f"more than base_image_seq_len, {self.base_image_seq_len}")
        for feature in ("rescale_betas_zero_snr", "use_dynamic_shifting", "shift_terminal"):
            if getattr(self, feature) and feature not in kind.features:
                having = [name for name, other in KINDS.items() if feature in other.features]
                value = getattr(self, feature)
                raise ConfigError(feature, value, f"{'false' if value is True else 0} for {self.name} (only {', '.join(having)} can)")


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join(choices)
