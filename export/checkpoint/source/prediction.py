"""What a denoiser predicts: the noise (epsilon), or the velocity (v_prediction) of Salimans and Ho, "Progressive Distillation", 2022."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.error import ConfigError

PREDICTIONS = ("epsilon", "v_prediction")


def check_prediction(prediction_type: str | None) -> None:
    """Raises ConfigError for a name that is no prediction type."""
    if prediction_type is not None and prediction_type not in PREDICTIONS:
        raise ConfigError("prediction_type", prediction_type, " or ".join(PREDICTIONS))


def with_prediction(scheduler: Mapping[str, Any], prediction_type: str | None) -> dict[str, Any]:
    """A scheduler's configuration with this prediction type, or with its own if it is None."""
    return dict(scheduler) | ({} if prediction_type is None else {"prediction_type": prediction_type})
