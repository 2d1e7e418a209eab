"""The order in which candidates are preferred before anything was measured: a prior, so that a pool without labels routes from the start.

Not a measurement. It says what is known of such models: more steps give better images, with less and less gain; a distilled model needs
few steps but does not reach what its base reaches with many; a tiny decoder loses detail; families differ. Labels and `fit-router`
replace it.
"""

from __future__ import annotations

import math

STANDARD_ERROR = 0.05
_BASE_STEPS = 6.0
"""Steps in which a base model's distance to its best falls to a third (1/e)."""
_DISTILLED_BEST, _DISTILLED_LOSS, _DISTILLED_STEPS = 0.92, 0.2, 1.2
_TINY_LOSS = 0.01
_UNGUIDED_LOSS = 0.1
"""Of a run without guidance; the first steps need it most, so the loss grows with the square of the share without it."""


def expected_quality(
    best: float, num_inference_steps: int, *, is_distilled: bool, has_tiny_decoder: bool = False, guidance_end: float = 1.0
) -> float:
    """A score in 0..1 that grows with the number of steps; best: of the family's best candidate."""
    if is_distilled:
        share = _DISTILLED_BEST * (1 - _DISTILLED_LOSS * math.exp(-(num_inference_steps - 1) / _DISTILLED_STEPS))
    else:
        share = 1 - math.exp(-num_inference_steps / _BASE_STEPS)
    loss = (_TINY_LOSS if has_tiny_decoder else 0.0) + _UNGUIDED_LOSS * (1 - guidance_end) ** 2
    return round(best * share - loss, 4)
