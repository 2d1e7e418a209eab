"""Previews of the image in progress."""

from __future__ import annotations

import numpy as np

from costroute_rt.engines.bundle.manifest import PreviewSpec
from costroute_rt.generation.preview import draw_preview


def test_a_preview_of_a_latent_that_is_not_finite_warns_of_nothing() -> None:
    spec = PreviewSpec(matrix=((1.0, 1.0, 1.0),), bias=(0.5, 0.5, 0.5))
    latent = np.array([[[np.nan, np.inf], [-np.inf, 0.0]]], dtype=np.float32)
    assert draw_preview(latent, spec, 4, 4).size == (4, 4)
