"""The estimator that runs a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from costroute_rt.error import ConfigError, EngineError
from costroute_rt.routing.estimator.loading import load_estimator
from costroute_rt.routing.prompt_encoder import TextStates
from tests.runtime.routing.estimator.world import estimate, make_transformer, states_of


def test_padding_beyond_the_longest_prompt_is_not_passed_to_the_network() -> None:
    estimator, engine, world = make_transformer()
    rows = np.flatnonzero(states_of(world.features).lengths <= 2)[:9]
    estimate(estimator, world.features[rows])
    assert engine.shapes == [(9, 2, 8)]


def test_a_network_of_fixed_size_is_called_for_each_prompt() -> None:
    free, _, world = make_transformer()
    fixed, engine, _ = make_transformer((1, 3))
    for one, other in zip(estimate(fixed, world.features[:5]), estimate(free, world.features[:5]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert engine.shapes == [(1, 3, 8)] * 5


def test_a_transformer_refuses_states_of_other_prompts_or_width() -> None:
    estimator, _, world = make_transformer()
    states = states_of(world.features[:3])
    for wrong in (
        None,
        states.select([0, 1]),
        TextStates(states.states[:, :, :7], states.lengths),
        TextStates(states.states[0], states.lengths),
    ):
        with pytest.raises(ConfigError, match="those of 3 prompts, 8 wide"):
            estimator.estimate(world.features[:3], wrong)


def test_output_that_is_not_finite_is_an_engine_error() -> None:
    estimator, engine, world = make_transformer()
    engine.run = lambda feeds: {"mean": np.array([[0.5, np.nan, 0.5]])}  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="router_estimator/estimate made numbers that are not finite"):
        estimate(estimator, world.features[:1])


@pytest.mark.parametrize(
    "change", [{"standard_error": []}, {"standard_error": [-1]}, {"standard_error": ["0"]}, {"width": 0}, {"width": "8"}]
)
def test_invalid_transformer_settings_are_refused(change: dict[str, Any]) -> None:
    estimator, _, _ = make_transformer()
    with pytest.raises((ValueError, ConfigError)):
        load_estimator({**estimator.to_json(), **change}, {})


def test_a_transformer_without_an_engine_raises_config_error() -> None:
    estimator, _, world = make_transformer()
    with pytest.raises(ConfigError, match="router_estimator/estimate"):
        estimate(load_estimator(estimator.to_json(), {}), world.features[:1])
