"""What a denoiser predicts: the noise (epsilon), or the velocity (v_prediction) of Salimans and Ho, "Progressive Distillation", 2022."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costroute_rt.error import ConfigError

EPSILON, V_PREDICTION = "epsilon", "v_prediction"
PREDICTIONS = (EPSILON, V_PREDICTION)
_V_MARKER, _ZERO_SNR_MARKER = "v_pred", "ztsnr"
"""Tensors that trainers add to a file, as ComfyUI reads them."""
_IN_METADATA = {"epsilon": EPSILON, "eps": EPSILON, "v": V_PREDICTION, "v_prediction": V_PREDICTION, "v-prediction": V_PREDICTION}
"""Values of `modelspec.prediction_type` (github.com/Stability-AI/ModelSpec)."""
_ARCHITECTURES = {"stable-diffusion-v2-512": EPSILON, "stable-diffusion-v2-768-v": V_PREDICTION}
_BASE_STEPS = 875_000
"""Training steps of Stable Diffusion 2 at 512 pixels, as diffusers tells it from the version at 768."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is known of a single file's training."""

    type: str
    has_zero_snr: bool = False
    """Whether it was trained to start from pure noise (Lin et al., "Common Diffusion Noise Schedules", 2024)."""
    note: str | None = None
    """What was assumed."""

    @classmethod
    def find(cls, family: str, names: Mapping[str, Any], metadata: Mapping[str, str], given: str | None) -> Prediction:
        """The prediction type of a single file: that which is given, else as its markers say, else the usual one of the family.

        names: of the tensors in the file.
        """
        has_zero_snr = _ZERO_SNR_MARKER in names
        known = given or (V_PREDICTION if _V_MARKER in names else _from_metadata(metadata))
        if known is not None:
            return cls(known, has_zero_snr)
        if family != "sd2":
            return cls(V_PREDICTION if has_zero_snr else EPSILON, has_zero_snr)
        note = f"The file does not tell its prediction type: {V_PREDICTION} is assumed, as Stable Diffusion 2.x for 768 pixels has it; "
        return cls(V_PREDICTION, has_zero_snr, note + f"models for 512 pixels need {EPSILON}.")

    def configure(self, scheduler: Mapping[str, Any]) -> dict[str, Any]:
        """A scheduler's configuration for this training."""
        found = with_prediction(scheduler, self.type)
        if self.has_zero_snr:
            found |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
            if found["_class_name"] == "PNDMScheduler":  # which cannot start from pure noise
                del found["skip_prk_steps"]
                found["_class_name"] = "DDIMScheduler"
        return found


def _from_metadata(metadata: Mapping[str, str]) -> str | None:
    architecture = _ARCHITECTURES.get(metadata.get("modelspec.architecture", "").lower())
    base = EPSILON if metadata.get("global_step") == str(_BASE_STEPS) else None
    return _IN_METADATA.get(metadata.get("modelspec.prediction_type", "").lower()) or architecture or base


def check_prediction(prediction_type: str | None) -> None:
    """Raises ConfigError for a name that is no prediction type."""
    if prediction_type is not None and prediction_type not in PREDICTIONS:
        raise ConfigError("prediction_type", prediction_type, " or ".join(PREDICTIONS))


def with_prediction(scheduler: Mapping[str, Any], prediction_type: str | None) -> dict[str, Any]:
    """A scheduler's configuration with this prediction type, or with its own if it is None."""
    return dict(scheduler) | ({} if prediction_type is None else {"prediction_type": prediction_type})
