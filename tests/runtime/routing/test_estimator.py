"""One contract for every estimator, and what each alone promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.manifest import TensorSpec
from costroute_rt.error import ConfigError, EngineError
from costroute_rt.routing.estimator import (
    Average,
    Estimator,
    FloatArray,
    Knn,
    Linear,
    Mean,
    Transformer,
    find_knn,
    label_weights,
    load_estimator,
)
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import Float32Array, TextStates
from costroute_rt.routing.router_network import no_engine
from tests.export.small_checkpoint import needs_export

Fit = Callable[[Float32Array, FloatArray, FloatArray], Estimator]

FITS: dict[str, Fit] = {
    "average": lambda features, mean, variance: Average.fit(mean, variance),
    "knn": lambda features, mean, variance: Knn.fit(features, mean, variance, k=15),
    "linear": lambda features, mean, variance: Linear.fit(features, mean, variance, alpha=1.0),
    "transformer": lambda features, mean, variance: stand_in(features, mean, variance),
    "transformer, with torch": lambda features, mean, variance: fit_network(features, mean, variance),
    "mean": lambda features, mean, variance: Mean(
        (Knn.fit(features, mean, variance, k=15), Linear.fit(features, mean, variance, alpha=1.0))
    ),
}
PARAMETERS = [pytest.param(fit, id=name, marks=needs_export if "torch" in name else ()) for name, fit in FITS.items()]
each = pytest.mark.parametrize("fit", PARAMETERS)
each_reader = pytest.mark.parametrize("fit", PARAMETERS[1:])


class World:
    """Prompts in two kinds; each candidate is good at one of them, and the third at neither."""

    def __init__(self, prompts: int = 200, noise: float = 0.05, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.kind = rng.integers(0, 2, prompts)
        self.features = (np.eye(2, 8)[self.kind] + 0.1 * rng.normal(size=(prompts, 8))).astype(np.float32)
        self.truth = np.stack([0.4 + 0.3 * (self.kind == 0), 0.4 + 0.3 * (self.kind == 1), np.full(prompts, 0.3)], axis=1)
        self.variance = np.full(self.truth.shape, noise**2)
        self.mean = self.truth + noise * rng.normal(size=self.truth.shape)


def states_of(features: Float32Array) -> TextStates:
    """Three tokens, of which up to two are padding full of nonsense."""
    states = np.stack([features, np.roll(features, 1, axis=1), -features], axis=1)
    lengths = 1 + (100 * np.abs(features).sum(1)).astype(np.int64) % 3
    states[np.arange(3) >= lengths[:, None]] = 1e4
    return TextStates(states, lengths)


def judge(estimator: Estimator, features: Float32Array) -> tuple[FloatArray, FloatArray]:
    return estimator.estimate(features, states_of(features) if estimator.needs_states else None)


class StandIn:
    """An engine that reads the first token's state, and knows ridge regression."""

    def __init__(self, linear: Linear, axes: tuple[int | str, int | str] = ("batch", "tokens")) -> None:
        self.inputs = {"states": TensorSpec("float32", (*axes, len(linear.coefficients)))}
        self._linear, self.shapes = linear, list[tuple[int, ...]]()

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        states, lengths = feeds["states"], feeds["lengths"]
        assert (states.dtype, lengths.dtype) == (np.float32, np.int64)
        self.shapes.append(states.shape)
        return {"mean": self._linear.estimate(states[:, 0], None)[0].astype(np.float32)}

    def to_device(self, array: Any) -> Any:
        return array

    def to_host(self, value: Any) -> Any:
        return value


def stand_in(features: Float32Array, mean: FloatArray, variance: FloatArray) -> Transformer:
    """The runtime's side of a transformer, without torch."""
    linear = Linear.fit(features, mean, variance, alpha=1.0)
    engine: Any = StandIn(linear)
    return Transformer(lambda component, graph: engine, linear.estimate(features, None)[1].mean(0), width=features.shape[1])


def fit_network(features: Float32Array, mean: FloatArray, variance: FloatArray) -> Estimator:
    from costroute_rt.export.router.transformer import fit_transformer

    return fit_transformer(states_of(features), mean, variance)


def error_of(estimator: Estimator, world: World) -> float:
    return float(np.sqrt(((judge(estimator, world.features)[0] - world.truth) ** 2).mean()))


@each
def test_estimates_have_a_row_per_prompt_and_are_finite(fit: Fit) -> None:
    world = World()
    mean, error = judge(fit(world.features, world.mean, world.variance), world.features[:7])
    assert mean.shape == error.shape == (7, 3)
    assert mean.dtype == error.dtype == np.float64
    assert np.isfinite(mean).all()
    assert (error > 0).all()


@each_reader
def test_what_prompts_need_is_learned(fit: Fit) -> None:
    world, held_out = World(), World(seed=1)
    estimator = fit(world.features, world.mean, world.variance)
    assert error_of(estimator, held_out) < 0.45 * error_of(Average.fit(world.mean, world.variance), held_out)
    best = judge(estimator, held_out.features)[0].argmax(1)
    assert (best == held_out.kind).mean() > 0.97


@each
def test_one_prompt_is_estimated_as_among_many(fit: Fit) -> None:
    world = World()
    estimator = fit(world.features, world.mean, world.variance)
    many, one = judge(estimator, world.features), judge(estimator, world.features[5:6])
    np.testing.assert_allclose(one[0][0], many[0][5], rtol=1e-5)
    np.testing.assert_allclose(one[1][0], many[1][5], rtol=1e-4)


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
    mean, _ = judge(fit(world.features, world.mean, world.variance), held_out.features)
    assert np.isfinite(mean).all()
    assert error_of(fit(world.features, world.mean, world.variance), held_out) < 1.5 * whole


@each
def test_a_candidate_without_a_label_gets_the_average_of_the_others(fit: Fit) -> None:
    world = World()
    world.mean[:, 2] = world.variance[:, 2] = np.nan
    mean, error = judge(fit(world.features, world.mean, world.variance), world.features[:2])
    np.testing.assert_allclose(mean[:, 2], world.mean[:, :2].mean(), atol=0.01)
    assert (error[:, 2] > 0.05).all()


@each
@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_three_prompts_are_enough_not_to_fail(fit: Fit, prompts: int) -> None:
    world = World(prompts)
    mean, error = judge(fit(world.features, world.mean, world.variance), World(seed=1).features)
    assert np.isfinite(mean).all()
    assert np.isfinite(error).all()
    assert np.abs(mean).max() < 2


@each
def test_a_constant_candidate_stays_constant(fit: Fit) -> None:
    world = World()
    world.mean[:, 1], world.variance[:, 1] = 0.5, 0
    mean, error = judge(fit(world.features, world.mean, world.variance), world.features)
    np.testing.assert_allclose(mean[:, 1], 0.5, atol=1e-6)
    np.testing.assert_allclose(error[:, 1], 0, atol=1e-6)


@each
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_give_the_average(fit: Fit, value: float) -> None:
    world = World()
    world.features[:] = value
    mean, _ = judge(fit(world.features, world.mean, world.variance), world.features[:2])
    np.testing.assert_allclose(mean[0], world.mean.mean(0), atol=0.08)


@each
def test_scores_of_any_unit_give_the_same_choice(fit: Fit) -> None:
    world = World()
    small, large = (fit(world.features, scale * world.mean, scale**2 * world.variance) for scale in (1.0, 100.0))
    for one, other in zip(judge(small, world.features), judge(large, world.features), strict=True):
        np.testing.assert_allclose(100 * one, other, rtol=1e-4)


@each
def test_unknown_noise_is_the_same_for_all(fit: Fit) -> None:
    world = World()
    known, unknown = (fit(world.features, world.mean, np.full_like(world.mean, variance)) for variance in (0.0025, 1.0))
    np.testing.assert_allclose(judge(known, world.features), judge(unknown, world.features), rtol=1e-5)


@each
def test_more_labels_make_errors_smaller(fit: Fit) -> None:
    few, many = (World(prompts) for prompts in (30, 1000))
    errors = [judge(fit(each.features, each.mean, each.variance), few.features)[1].mean() for each in (few, many)]
    assert errors[1] < errors[0]


@each
def test_a_saved_estimator_says_the_same(fit: Fit) -> None:
    world = World()
    estimator = fit(world.features, world.mean, world.variance)
    arrays = {name: array.astype(np.float32) for name, array in estimator.arrays().items()}
    again = load_estimator(json.loads(json.dumps(estimator.to_json())), arrays, getattr(estimator, "open_engine", no_engine))
    assert again.kind == estimator.kind
    for one, other in zip(judge(estimator, world.features), judge(again, world.features), strict=True):
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
def test_unknown_settings_are_refused(settings: dict[str, object]) -> None:
    world = World()
    with pytest.raises((ValueError, KeyError)):
        load_estimator(settings, Knn.fit(world.features, world.mean, world.variance).arrays())


def test_a_ridge_fit_is_the_textbook_one() -> None:
    world, alpha = World(), 2.0
    mean = Linear.fit(world.features, world.mean, np.ones_like(world.mean), alpha=alpha).estimate(world.features, None)[0]
    x = world.features - world.features.mean(0, dtype=np.float64)
    beta = np.linalg.solve(x.T @ x + alpha * np.eye(8), x.T @ world.mean)
    np.testing.assert_allclose(mean, world.mean.mean(0) + x @ beta, rtol=1e-6)


@pytest.mark.parametrize(("noisier", "fits"), [((2, 2.2, 2.4), 1), ((1, 1, 100), 3)])
def test_candidates_whose_labels_weigh_alike_share_one_linear_fit(noisier: tuple[float, ...], fits: int) -> None:
    world, few = World(noise=0.1), np.arange(200) % 3 == 0
    world.variance[few] *= noisier
    together = Linear.fit(world.features, world.mean, world.variance)
    alone = [Linear.fit(world.features, world.mean[:, [index]], world.variance[:, [index]]) for index in range(3)]
    assert len(together.inverse) == fits
    for index, each in enumerate(alone):
        np.testing.assert_allclose(together.estimate(world.features)[0][:, index], each.estimate(world.features)[0][:, 0], atol=0.02)


def test_errors_of_a_linear_fit_cover_the_truth() -> None:
    inside = []
    for seed in range(20):
        world = World(60, noise=0.2, seed=seed)
        mean, error = Linear.fit(world.features, world.mean, world.variance, alpha=0.1).estimate(world.features, None)
        inside.append((np.abs(mean - world.truth) < 1.96 * error).mean())
    assert 0.9 < np.mean(inside) < 0.99


def test_a_far_prompt_is_less_certain_to_a_linear_fit() -> None:
    world = World()
    _, error = Linear.fit(world.features, world.mean, world.variance).estimate(
        np.stack([world.features.mean(0), 9 + world.features[0]]), None
    )
    assert (error[1] > 3 * error[0]).all()


def test_knn_without_a_like_prompt_gives_the_average() -> None:
    world = World()
    mean, _ = Knn.fit(world.features, world.mean, world.variance).estimate(np.zeros((1, 8), dtype=np.float32), None)
    np.testing.assert_allclose(mean[0], Average.fit(world.mean, world.variance).mean, rtol=1e-6)


def test_the_mean_is_that_of_its_members() -> None:
    world = World()
    members = [FITS[name](world.features, world.mean, world.variance) for name in ("knn", "linear")]
    both = [member.estimate(world.features, None) for member in members]
    for index, found in enumerate(Mean(tuple(members)).estimate(world.features, None)):
        np.testing.assert_allclose(found, (both[0][index] + both[1][index]) / 2)
    assert find_knn(Mean((Mean(tuple(members)),))) is members[0]
    assert find_knn(members[1]) is None


def test_a_mean_reads_states_where_a_member_does() -> None:
    class Reader(Average):
        needs_states = True  # type: ignore[misc]

    world = World()
    average = Average.fit(world.mean, world.variance)
    assert not Mean((average,)).needs_states
    assert Mean((average, Reader(average.mean, average.standard_error, average.spread))).needs_states


@pytest.mark.parametrize(
    ("arguments", "fit"), [({"k": 0}, Knn.fit), ({"pseudo": 0}, Knn.fit), ({"alpha": 0}, Linear.fit), ({"alpha": np.inf}, Linear.fit)]
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], fit: Callable[..., Estimator]) -> None:
    world = World()
    with pytest.raises(ConfigError):
        fit(world.features, world.mean, world.variance, **arguments)


def test_weights_are_one_on_average_and_fall_with_the_variance() -> None:
    mean, variance = np.array([[1.0], [2.0], [3.0], [np.nan]]), np.array([[0.1], [0.1], [5.0], [np.nan]])
    weights, labels = label_weights(mean, variance)
    assert weights[:3].mean() == pytest.approx(1)
    assert weights[0] == weights[1] > 3 * weights[2]
    assert weights[3] == labels[3] == 0


def test_neighbours_come_nearest_first_and_match_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    features, queries = rng.normal(size=(500, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    places, similarities = Neighbours(features).search(queries, 7)
    cosine = (queries @ features.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(features, axis=1)
    np.testing.assert_array_equal(places, np.argsort(-cosine, axis=1)[:, :7])
    np.testing.assert_allclose(similarities, -np.sort(-cosine, axis=1)[:, :7], rtol=1e-5)


def test_a_repeated_search_is_answered_from_memory_and_another_is_not() -> None:
    rng = np.random.default_rng(0)
    neighbours = Neighbours(rng.normal(size=(50, 8)).astype(np.float32))
    one, other = rng.normal(size=(2, 1, 8)).astype(np.float32)
    first = neighbours.search(one, 9)
    assert np.shares_memory(neighbours.search(one, 5)[0], first[0])
    assert neighbours.search(one, 12)[0].shape == (1, 12)
    assert (neighbours.search(other, 9)[0] != first[0]).any()
    assert neighbours.search(one, 900)[0].shape == (1, 50)


def transformer(axes: tuple[int | str, int | str] = ("batch", "tokens")) -> tuple[Transformer, StandIn, World]:
    world = World()
    stand: Any = StandIn(Linear.fit(world.features, world.mean, world.variance), axes)
    return Transformer(lambda component, graph: stand, np.full(3, 0.1), width=8), stand, world


def test_a_network_reads_no_more_tokens_than_there_are() -> None:
    estimator, engine, world = transformer()
    rows = np.flatnonzero(states_of(world.features).lengths <= 2)[:9]
    judge(estimator, world.features[rows])
    assert engine.shapes == [(9, 2, 8)]


def test_a_network_of_fixed_size_is_called_for_each_prompt() -> None:
    free, _, world = transformer()
    fixed, engine, _ = transformer((1, 3))
    for one, other in zip(judge(fixed, world.features[:5]), judge(free, world.features[:5]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert engine.shapes == [(1, 3, 8)] * 5


def test_states_of_something_else_are_refused_by_a_transformer() -> None:
    estimator, _, world = transformer()
    states = states_of(world.features[:3])
    for wrong in (
        None,
        states.select([0, 1]),
        TextStates(states.states[:, :, :7], states.lengths),
        TextStates(states.states[0], states.lengths),
    ):
        with pytest.raises(ConfigError, match="those of 3 prompts, 8 wide"):
            estimator.estimate(world.features[:3], wrong)


def test_a_network_that_gives_no_numbers_is_an_engine_error() -> None:
    estimator, engine, world = transformer()
    engine.run = lambda feeds: {"mean": np.array([[0.5, np.nan, 0.5]])}  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="router_estimator/estimate made numbers that are not finite"):
        judge(estimator, world.features[:1])


@pytest.mark.parametrize(
    "change", [{"standard_error": []}, {"standard_error": [-1]}, {"standard_error": ["0"]}, {"width": 0}, {"width": "8"}]
)
def test_settings_of_no_transformer_are_refused(change: dict[str, Any]) -> None:
    estimator, _, _ = transformer()
    with pytest.raises((ValueError, ConfigError)):
        load_estimator({**estimator.to_json(), **change}, {})


def test_a_transformer_opened_without_its_engine_says_so() -> None:
    estimator, _, world = transformer()
    with pytest.raises(ConfigError, match="router_estimator/estimate"):
        judge(load_estimator(estimator.to_json(), {}), world.features[:1])


def test_a_mean_needs_what_its_members_need() -> None:
    estimator, _, world = transformer()
    knn = Knn.fit(world.features, world.mean, world.variance)
    both = Mean((knn, estimator))
    assert (both.needs_states, both.networks, both.candidates) == (True, estimator.networks, 3)
    expected = (judge(knn, world.features[:2])[0] + judge(estimator, world.features[:2])[0]) / 2
    np.testing.assert_allclose(judge(both, world.features[:2])[0], expected)
    with pytest.raises(ValueError, match="different numbers"):
        Mean((knn, Average.fit(world.mean[:, :2], world.variance[:, :2])))
