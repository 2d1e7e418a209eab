"""The calibration slope, on predictions whose quality is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.shrinkage import Slope, calibration_slope
from tests.export.router.test_fit import make


def world(count: int = 400, slope: float = 0.5, noise: float = 0.1, seed: int = 0) -> tuple[Cells, np.ndarray, np.ndarray]:
    """Cells whose true effects are `slope` times the predicted ones, the predictions, and the averages."""
    rng = np.random.default_rng(seed)
    cells, average = make(count, seeds=1), np.array([0.6, 0.5, 0.4])
    effect, ease = 0.2 * rng.standard_normal((count, 3)), rng.standard_normal((count, 1))
    labels = average + ease + slope * effect + noise * rng.standard_normal((count, 3))
    return replace(cells, mean=labels), average + effect, np.broadcast_to(average, labels.shape)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_the_slope_is_that_of_the_labels_and_ease_of_a_prompt_does_not_matter(slope: float) -> None:
    found = calibration_slope(*world(slope=slope))
    assert found.value == pytest.approx(slope, abs=3 * found.standard_error)
    assert 0 < found.standard_error < 0.05


def test_the_error_is_the_spread_over_samples() -> None:
    found = [calibration_slope(*world(100, seed=seed)) for seed in range(200)]
    assert np.std([each.value for each in found]) == pytest.approx(np.mean([each.standard_error for each in found]), rel=0.15)


def test_missing_cells_leave_the_slope_right() -> None:
    cells, predicted, average = world(800)
    hidden = np.random.default_rng(1).random(cells.mean.shape) < 0.5
    sparse = replace(cells, mean=np.where(hidden, np.nan, cells.mean), count=np.where(hidden, 0, cells.count))
    found = calibration_slope(sparse, predicted, average)
    assert found.value == pytest.approx(0.5, abs=3 * found.standard_error)


def test_the_unit_of_scores_does_not_matter() -> None:
    cells, predicted, average = world()
    one = calibration_slope(cells, predicted, average)
    for scale in (100.0, 1e-150):
        other = calibration_slope(replace(cells, mean=scale * cells.mean), scale * predicted, scale * average)
        assert (other.value, other.standard_error) == (pytest.approx(one.value), pytest.approx(one.standard_error))


def test_errors_that_kinds_share_count_once_per_kind() -> None:
    cells, predicted, average = world(300)
    kind = np.arange(300) % 6
    shared = replace(cells, mean=cells.mean + 0.5 * (kind[:, None] - 2.5) * (predicted - average))
    assert (
        calibration_slope(shared, predicted, average, kind).standard_error
        > 2 * calibration_slope(shared, predicted, average).standard_error
    )


def test_noisy_cells_count_less() -> None:
    cells, predicted, average = world(noise=0.05)
    noisy = np.arange(400) < 200
    wrong = replace(cells, mean=np.where(noisy[:, None], cells.mean - 3 * (predicted - average), cells.mean), has_noise=True)
    alike = calibration_slope(replace(wrong, variance=np.full((400, 3), 0.01)), predicted, average)
    aware = calibration_slope(replace(wrong, variance=np.where(noisy, 100.0, 0.01)[:, None].repeat(3, 1)), predicted, average)
    assert alike.value < 0 < aware.value


def test_predictions_without_an_effect_have_no_slope() -> None:
    cells, _, average = world()
    assert calibration_slope(cells, average, average).factor == 0


@pytest.mark.parametrize(
    ("value", "error", "factor"), [(1.0, 0.0, 1.0), (2.0, 0.0, 1.0), (0.5, 0.25, 0.375), (0.5, 0.6, 0.0), (-1.0, 0.1, 0.0)]
)
def test_the_factor_is_the_slope_shrunk_by_its_error(value: float, error: float, factor: float) -> None:
    assert Slope(value, error).factor == pytest.approx(factor)
