"""A router fitted to sixty made-up prompts, for any pool."""

from __future__ import annotations

from typing import Any

import numpy as np

from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.prompt_encoder import HashedEncoder
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.router import Router, describe_pool

COLOURS, THINGS = ("red", "blue", "green", "white", "old"), ("house", "boat", "tree", "mountain", "bird", "lake")
PROMPTS = tuple(f"a {colour} {thing}{more}" for colour in COLOURS for thing in THINGS for more in ("", " at night, with snow"))
IS_LONG = np.array([prompt.endswith("snow") for prompt in PROMPTS])


def make_router(pool: tuple[Any, ...], kind: str = "mean", **changes: Any) -> Router:
    """Short prompts are served best by the first candidate, long ones by the last."""
    encoder, candidates = HashedEncoder(512), len(pool)
    reduction = Reduction.fit(encoder.encode(PROMPTS), 16)
    features = reduction.apply(encoder.encode(PROMPTS))
    rising = np.linspace(0, 0.2, candidates)
    mean = 0.6 + np.where(IS_LONG[:, None], rising, -rising) + 0.005 * np.random.default_rng(0).normal(size=(len(PROMPTS), candidates))
    variance = np.full_like(mean, 0.005**2)
    knn, linear = Knn.fit(features, mean, variance, k=15), Linear.fit(features, mean, variance, alpha=0.1)
    found: dict[str, Estimator] = {"knn": knn, "linear": linear, "mean": Mean((knn, linear)), "average": Average.fit(mean, variance)}
    arguments: dict[str, Any] = {
        "pool": describe_pool(pool), "encoder": encoder, "reduction": reduction, "estimator": found[kind],
        "average": Average.fit(mean, variance), "prompts": PROMPTS, "features": features, "near": 0.6, "far": 0.75,
        "reason": "it gains", "record": {"labels": {"rows": 60}},
    }  # fmt: skip
    return Router(**{**arguments, **changes})
