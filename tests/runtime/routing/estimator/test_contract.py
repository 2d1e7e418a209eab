"""One contract for every estimator."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.export.router.addition import Known, fit_addition
from costroute_rt.export.router.likeness import distances
from costroute_rt.routing.array import Float32Array, FloatArray
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.extended import Extended
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.loading import load_estimator
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.router_network import no_engine
from tests.export.small_checkpoint import needs_export
from tests.runtime.routing.estimator.world import World, estimate, stand_in, states_of

Fit = Callable[[Float32Array, FloatArray, FloatArray], Estimator]

FITS: dict[str, Fit] = {
    "average": lambda features, mean, variance: Average.fit(mean, variance),
    "knn": lambda features, mean, variance: Knn.fit(features, mean, variance, k=15),
    "linear": lambda features, mean, variance: Linear.fit(features, mean, variance, alpha=1.0),
    "transformer": lambda features, mean, variance: stand_in(features, mean, variance),
    "transformer, with torch": lambda features, mean, variance: fit_network(features, mean, variance),
    "extended": lambda features, mean, variance: extend(features, mean, variance),
    "mean": lambda features, mean, variance: Mean(
        (Knn.fit(features, mean, variance, k=15), Linear.fit(features, mean, variance, alpha=1.0))
    ),
}
PARAMETERS = [pytest.param(fit, id=name, marks=needs_export if "torch" in name else ()) for name, fit in FITS.items()]
each = pytest.mark.parametrize("fit", PARAMETERS)
each_by_itself = pytest.mark.parametrize("fit", [each for each in PARAMETERS if each.id != "extended"])
"""Without the one whose added candidate leans on the others."""
each_reader = pytest.mark.parametrize("fit", PARAMETERS[1:])


def fit_network(features: Float32Array, mean: FloatArray, variance: FloatArray) -> Estimator:
    from costroute_rt.export.router.transformer import fit_transformer

    return fit_transformer(states_of(features), mean, variance)


def extend(features: Float32Array, mean: FloatArray, variance: FloatArray) -> Estimator:
    """The middle candidate added to the two others."""
    base, average = Linear.fit(features, mean[:, ::2], variance[:, ::2], alpha=1.0), Average.fit(mean[:, ::2], variance[:, ::2])
    known = Known(
        features=features,
        others=np.where(np.isnan(mean[:, ::2]), base.estimate(features)[0], mean[:, ::2]),
        is_label=~np.isnan(mean[:, ::2]),
        spread=average.spread,
        center=average.mean,
        between=distances([{}] * 3),
    )
    return Extended(base, (fit_addition(known, mean[:, 1], variance[:, 1]),), (0, 2, 1))


def error_of(estimator: Estimator, world: World) -> float:
    return float(np.sqrt(((estimate(estimator, world.features)[0] - world.truth) ** 2).mean()))


@each
def test_estimates_have_a_row_per_prompt_and_are_finite(fit: Fit) -> None:
    world = World()
    mean, error = estimate(fit(world.features, world.mean, world.variance), world.features[:7])
    assert mean.shape == error.shape == (7, 3)
    assert mean.dtype == error.dtype == np.float64
    assert np.isfinite(mean).all()
    assert (error > 0).all()


@each_reader
def test_the_best_candidate_for_each_kind_of_prompt_is_learned(fit: Fit) -> None:
    world, held_out = World(), World(seed=1)
    estimator = fit(world.features, world.mean, world.variance)
    assert error_of(estimator, held_out) < 0.45 * error_of(Average.fit(world.mean, world.variance), held_out)
    best = estimate(estimator, held_out.features)[0].argmax(1)
    assert (best == held_out.kind).mean() > 0.97


@each
def test_a_single_prompt_gets_the_same_estimate_as_in_a_batch(fit: Fit) -> None:
    world = World()
    estimator = fit(world.features, world.mean, world.variance)
    many, one = estimate(estimator, world.features), estimate(estimator, world.features[5:6])
    np.testing.assert_allclose(one[0][0], many[0][5], rtol=1e-5)
    np.testing.assert_allclose(one[1][0], many[1][5], rtol=1e-4)


@each
@pytest.mark.parametrize("prompts", [0, 1, 60, 1100])
def test_what_is_predicted_is_the_mean_of_the_estimate(fit: Fit, prompts: int) -> None:
    world, asked = World(), World(prompts, seed=1).features
    estimator = fit(world.features, world.mean, world.variance)
    found = estimator.predict(asked, states_of(asked) if estimator.needs_states else None)
    np.testing.assert_array_equal(found, estimate(estimator, asked)[0])
    assert found.shape == (prompts, 3)


@each
def test_noisy_labels_count_less(fit: Fit) -> None:
    world, held_out, rng = World(), World(seed=1), np.random.default_rng(2)
    spoiled = rng.random(len(world.mean)) < 0.4
    world.mean[spoiled] += 3 * rng.normal(size=world.mean[spoiled].shape) + 2
    naive = fit(world.features, world.mean, world.variance)
    world.variance[spoiled] = 13
    assert error_of(fit(world.features, world.mean, world.variance), held_out) < 0.5 * error_of(naive, held_out)


@each
def test_missing_labels_are_left_out(fit: Fit) -> None:
    world, held_out, rng = World(400), World(seed=1), np.random.default_rng(2)
    whole = error_of(fit(world.features, world.mean, world.variance), held_out)
    missing = rng.random(world.mean.shape) < 0.3
    world.mean[missing] = world.variance[missing] = np.nan
    mean, _ = estimate(fit(world.features, world.mean, world.variance), held_out.features)
    assert np.isfinite(mean).all()
    assert error_of(fit(world.features, world.mean, world.variance), held_out) < 1.5 * whole


@each_by_itself
def test_a_candidate_without_a_label_gets_the_average_of_the_others(fit: Fit) -> None:
    world = World()
    world.mean[:, 2] = world.variance[:, 2] = np.nan
    mean, error = estimate(fit(world.features, world.mean, world.variance), world.features[:2])
    np.testing.assert_allclose(mean[:, 2], world.mean[:, :2].mean(), atol=0.01)
    assert (error[:, 2] > 0.05).all()


@each
@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_one_to_three_prompts_give_finite_estimates(fit: Fit, prompts: int) -> None:
    world = World(prompts)
    mean, error = estimate(fit(world.features, world.mean, world.variance), World(seed=1).features)
    assert np.isfinite(mean).all()
    assert np.isfinite(error).all()
    assert np.abs(mean).max() < 2


@each_by_itself
def test_a_constant_candidate_stays_constant(fit: Fit) -> None:
    world = World()
    world.mean[:, 1], world.variance[:, 1] = 0.5, 0
    mean, error = estimate(fit(world.features, world.mean, world.variance), world.features)
    np.testing.assert_allclose(mean[:, 1], 0.5, atol=1e-6)
    np.testing.assert_allclose(error[:, 1], 0, atol=1e-6)


@each
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_give_the_average(fit: Fit, value: float) -> None:
    world = World()
    world.features[:] = value
    mean, _ = estimate(fit(world.features, world.mean, world.variance), world.features[:2])
    np.testing.assert_allclose(mean[0], world.mean.mean(0), atol=0.08)


@each
def test_scores_of_any_unit_give_the_same_choice(fit: Fit) -> None:
    world = World()
    small, large = (fit(world.features, scale * world.mean, scale**2 * world.variance) for scale in (1.0, 100.0))
    for one, other in zip(estimate(small, world.features), estimate(large, world.features), strict=True):
        np.testing.assert_allclose(100 * one, other, rtol=1e-4)


@each
def test_equal_variances_of_any_size_give_equal_estimates(fit: Fit) -> None:
    world = World()
    known, unknown = (fit(world.features, world.mean, np.full_like(world.mean, variance)) for variance in (0.0025, 1.0))
    np.testing.assert_allclose(estimate(known, world.features), estimate(unknown, world.features), rtol=1e-5)


@each
def test_more_labels_make_errors_smaller(fit: Fit) -> None:
    few, many = (World(prompts) for prompts in (30, 1000))
    errors = [estimate(fit(each.features, each.mean, each.variance), few.features)[1].mean() for each in (few, many)]
    assert errors[1] < errors[0]


@each
def test_a_saved_estimator_estimates_the_same(fit: Fit) -> None:
    world = World()
    estimator = fit(world.features, world.mean, world.variance)
    arrays = {name: array.astype(np.float32) for name, array in estimator.arrays().items()}
    again = load_estimator(json.loads(json.dumps(estimator.to_json())), arrays, getattr(estimator, "open_engine", no_engine))
    assert again.kind == estimator.kind
    for one, other in zip(estimate(estimator, world.features), estimate(again, world.features), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)


@each
@pytest.mark.parametrize("damage", ["missing", "NaN", "shape", "rank"])
def test_damaged_arrays_are_refused(fit: Fit, damage: str) -> None:
    world = World()
    estimator = fit(world.features, world.mean, world.variance)
    for name, array in estimator.arrays().items():
        arrays = {**estimator.arrays(), name: {"NaN": array * np.nan, "shape": array[..., 1:], "rank": array[None]}.get(damage)}
        if damage == "missing":
            del arrays[name]
        if damage == "shape" and name.endswith("features"):
            continue  # a router sees that they do not fit its encoder
        with pytest.raises((ValueError, KeyError)):
            load_estimator(estimator.to_json(), arrays)


@pytest.mark.parametrize("settings", [{}, {"kind": "abacus"}, {"kind": "mean", "members": []}, {"kind": "knn", "k": "3"}])
def test_invalid_settings_are_refused(settings: dict[str, object]) -> None:
    world = World()
    with pytest.raises((ValueError, KeyError)):
        load_estimator(settings, Knn.fit(world.features, world.mean, world.variance).arrays())


@pytest.mark.parametrize(
    ("arguments", "fit"), [({"k": 0}, Knn.fit), ({"pseudo": 0}, Knn.fit), ({"alpha": 0}, Linear.fit), ({"alpha": np.inf}, Linear.fit)]
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], fit: Callable[..., Estimator]) -> None:
    world = World()
    with pytest.raises(ConfigError):
        fit(world.features, world.mean, world.variance, **arguments)
