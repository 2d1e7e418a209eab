"""The models: every family, as it was trained and distilled, as settings of diffusers' and transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = dict[str, Any]

SIDE_PX = 128
_LEVELS = 4
_UNET: Settings = {
    "sample_size": SIDE_PX // 8,
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
_UNET_2: Settings = _UNET | {"attention_head_dim": (2, 4, 4, 4), "use_linear_projection": True}
_UNET_XL: Settings = {
    "sample_size": SIDE_PX // 8,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32 + 48,
    "attention_head_dim": (2, 4, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 40 + 6 * 8,
}
VAE: Settings = {
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * _LEVELS,
    "up_block_types": ("UpDecoderBlock2D",) * _LEVELS,
    "layers_per_block": 1,
    "sample_size": SIDE_PX,
}
_TEXT: Settings = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "projection_dim": 32,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
_OPEN_CLIP: Settings = _TEXT | {"hidden_act": "gelu", "pad_token_id": 0}
_CLIP: Settings = _TEXT | {"hidden_act": "quick_gelu", "pad_token_id": 49407}
_SECOND: Settings = _OPEN_CLIP | {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 3, "projection_dim": 40}
_TRAINING: Settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
_PNDM: Settings = _TRAINING | {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False}
_EULER: Settings = _TRAINING | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1}
_LCM: Settings = _TRAINING | {"_class_name": "LCMScheduler", "original_inference_steps": 50, "clip_sample": False}
_TURBO: Settings = _TRAINING | {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
_V: Settings = _TRAINING | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "clip_sample": False, "steps_offset": 1}
_ZERO_SNR: Settings = _V | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

_TEXTS = {"sd1": (_CLIP,), "sd2": (_OPEN_CLIP,), "sdxl": (_CLIP, _SECOND)}
_UNETS = {"sd1": _UNET, "sd2": _UNET_2, "sdxl": _UNET_XL}
_SCALING = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
_GUIDANCE = {"sd1": 7.0, "sd2": 7.0, "sdxl": 6.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A checkpoint, and what is added to it when it is exported."""

    name: str
    """Also the name of its folder, by which the export tells its kind."""
    family: str
    """sd1, sd2 or sdxl."""
    scheduler: Settings
    """Its scheduler_config.json."""
    spacing: str
    """Timestep spacing of the candidates' scheduler, which schedulers by name keep."""
    own: Settings
    """The candidates' scheduler, as settings for diffusers besides the training schedule."""
    is_guided: bool = False
    denoiser: Settings = field(default_factory=dict)
    """Settings that differ from those of the family."""
    eta: float | None = None
    """Argument of diffusers' pipelines for its own scheduler, where theirs is another than the scheduler's."""
    lora: str | None = None
    """Name of a LoRA file that is fused."""
    clip_skip: int = 0
    steps: tuple[int, ...] = (1, 4, 20)
    """Of its candidates."""
    timesteps: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Of its own scheduler by number of steps, for those that diffusers' users write out."""
    kind: str | None = None
    """How it is distilled, where its name does not tell."""
    has_extras: bool = False
    """Whether a textual inversion and a tiny decoder are added."""

    @property
    def guidance_scale(self) -> float:
        """Of the candidates; 1 without guidance, 8 for the model that takes it as an input."""
        if "time_cond_proj_dim" in self.denoiser:
            return 8.0
        return _GUIDANCE[self.family] if self.is_guided else 1.0

    @property
    def guidance_rescale(self) -> float:
        """Of the candidates: 0.7 for models with zero terminal SNR, as their authors advise (Lin et al. 2024)."""
        return 0.7 if self.is_guided and self.scheduler.get("rescale_betas_zero_snr") else 0.0

    @property
    def unet(self) -> Settings:
        return _UNETS[self.family] | self.denoiser

    @property
    def texts(self) -> tuple[Settings, ...]:
        """Of each text encoder."""
        return _TEXTS[self.family]

    @property
    def vae(self) -> Settings:
        return VAE | {"scaling_factor": _SCALING[self.family]}

    @property
    def training(self) -> Settings:
        """The training schedule and prediction type, which all schedulers of the model share."""
        kept = (*_TRAINING, "prediction_type", "rescale_betas_zero_snr")
        return {key: value for key, value in self.scheduler.items() if key in kept}


_KARRAS: Settings = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True, "timestep_spacing": "linspace"}
_EULER_TRAILING: Settings = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
_ANCESTRAL: Settings = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
_OWN_LCM: Settings = {"_class_name": "LCMScheduler", "original_inference_steps": 50, "clip_sample": False}
_OWN_TCD: Settings = {"_class_name": "TCDScheduler", "original_inference_steps": 50}
_DMD2_STEPS = {1: (999,), 2: (999, 499), 4: (999, 749, 499, 249)}
"""As in the model card."""

MODELS = (
    Model(name="sd15", family="sd1", scheduler=_PNDM, spacing="linspace", own=_KARRAS, is_guided=True),
    Model(name="sd15-more", family="sd1", scheduler=_PNDM, spacing="linspace", own=_KARRAS, is_guided=True, lora="style", has_extras=True),
    Model(name="sd15-clip2", family="sd1", scheduler=_PNDM, spacing="linspace", own=_KARRAS, is_guided=True, clip_skip=1),
    Model(name="sd21-v", family="sd2", scheduler=_V, spacing="linspace", own=_KARRAS, is_guided=True),
    Model(name="sd21-zero-snr", family="sd2", scheduler=_ZERO_SNR, spacing="trailing", own=_EULER_TRAILING, is_guided=True),
    Model(name="sdxl", family="sdxl", scheduler=_EULER, spacing="linspace", own=_KARRAS, is_guided=True),
    Model(
        name="sdxl-more", family="sdxl", scheduler=_EULER, spacing="linspace", own=_KARRAS, is_guided=True, lora="style", has_extras=True
    ),
    Model(name="sd-turbo", family="sd2", scheduler=_TURBO, spacing="trailing", own=_ANCESTRAL),
    Model(name="sdxl-turbo", family="sdxl", scheduler=_TURBO, spacing="trailing", own=_ANCESTRAL),
    Model(name="dreamshaper-lcm", family="sd1", scheduler=_LCM, spacing="leading", own=_OWN_LCM, denoiser={"time_cond_proj_dim": 16}),
    Model(name="sd15-lora", family="sd1", scheduler=_PNDM, spacing="leading", own=_OWN_LCM, lora="lcm-lora-sdv1-5"),
    Model(name="sdxl-lightning", family="sdxl", scheduler=_EULER, spacing="trailing", own=_EULER_TRAILING),
    Model(name="sdxl-tcd", family="sdxl", scheduler=_EULER, spacing="leading", own=_OWN_TCD, eta=0.3, lora="Hyper-SDXL-1step-lora"),
    Model(name="sdxl-dmd2", family="sdxl", scheduler=_EULER, spacing="leading", own=_OWN_LCM, steps=(1, 2, 4), timesteps=_DMD2_STEPS),
)
