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


class Kind(NamedTuple):
    """What a scheduler supports."""

    prediction_types: tuple[str, ...] = ("epsilon", "v_prediction", "sample")
    features: tuple[str, ...] = ()
    rows_per_step: int = 1
    solver_types: tuple[str, ...] = ("midpoint", "heun")


_FLOW = ("flow_prediction",)
_UNIPC_TYPES = ("bh2", "bh1")
KINDS: dict[str, Kind] = {
    "ddim": Kind(features=("rescale_betas_zero_snr",)),
    "euler": Kind(features=("rescale_betas_zero_snr", "use_karras_sigmas")),
    "euler_ancestral": Kind(prediction_types=("epsilon", "v_prediction"), features=("rescale_betas_zero_snr",)),
    "dpmpp_2m": Kind(features=("rescale_betas_zero_snr", "use_karras_sigmas")),
    "heun": Kind(features=("use_karras_sigmas",), rows_per_step=2),
    "lcm": Kind(features=("rescale_betas_zero_snr",)),
    "flow_match_euler": Kind(prediction_types=_FLOW, features=("use_karras_sigmas", "use_dynamic_shifting")),
    "flow_dpmpp_2m": Kind(prediction_types=_FLOW),
    "unipc": Kind(features=("rescale_betas_zero_snr", "use_karras_sigmas"), solver_types=_UNIPC_TYPES),
    "flow_unipc": Kind(prediction_types=_FLOW, solver_types=_UNIPC_TYPES),
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
        if self.base_image_seq_len >= self.max_image_seq_len:
            raise ConfigError("max_image_seq_len", self.max_image_seq_len, f"more than base_image_seq_len, {self.base_image_seq_len}")
        for feature in ("use_karras_sigmas", "rescale_betas_zero_snr", "use_dynamic_shifting"):
            if getattr(self, feature) and feature not in kind.features:
                having = [name for name, other in KINDS.items() if feature in other.features]
                raise ConfigError(feature, True, f"false for {self.name} (only {', '.join(having)} can)")


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join(choices)
