"""Routers that read text states, or run networks of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.prompt_encoder import StatesEncoder, TextStates
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_bundle import text_encoder_sha256
from tests.small_network import make_estimator, open_encoder, write_encoder, write_estimator
from tests.small_router import PROMPTS, make_router
from tests.tiny_bundle import WIDTH


def states_router(bundle: Bundle, width: int = 3, **changes: Any) -> tuple[Router, TextStates]:
    rng = np.random.default_rng(0)
    states = TextStates(rng.normal(size=(len(PROMPTS), 4, width)).astype(np.float32), np.full(len(PROMPTS), 4))
    features = StatesEncoder(width).encode(PROMPTS, states)
    mean = 0.5 + 0.1 * rng.normal(size=(len(PROMPTS), len(bundle.pool)))
    knn = Knn.fit(features, mean, np.ones_like(mean))
    arguments = {"encoder": StatesEncoder(width), "reduction": None, "estimator": knn, "features": features}
    return make_router(bundle.pool, **{**arguments, "text_encoder": text_encoder_sha256(bundle), **changes}), states


def write_network_router(bundle: Bundle, folder: Path, estimator: str = "transformer") -> tuple[np.ndarray, np.ndarray]:
    """A router that reads prompts with a network, judges with another, and trusts it everywhere; returns what the networks hold."""
    folder.mkdir()
    table, matrix = write_encoder(folder), write_estimator(folder, WIDTH, len(bundle.pool))
    features = np.random.default_rng(0).normal(size=(len(PROMPTS), table.shape[1])).astype(np.float32)
    network = make_estimator(WIDTH, len(bundle.pool))
    changes = {"estimator": network, "encoder": open_encoder(folder), "reduction": None, "features": features, "near": 2.0, "far": 2.0}
    if estimator == "mean":
        changes["estimator"] = Mean((Knn.fit(features, np.full((60, 4), 0.5), np.ones((60, 4))), network))
    make_router(bundle.pool, text_encoder=text_encoder_sha256(bundle), **changes).save(folder)
    return table, matrix


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
