"""The table as a value, and the reference that follows it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.sampling.step_table import COLUMNS, MEMORY, Descent, StepTable, advance

LEVELS = np.array([0.9, 0.5, 0.2, 0.0])


def small_descent(timestep: object = (900.0, 400.0, 100.0), levels: object = LEVELS, initial_noise_scale: float = 3.0) -> Descent:
    return Descent.through(np.array(timestep), np.array(levels), initial_noise_scale)


def small_table(**changes: object) -> StepTable:
    columns = {
        "descent": small_descent(),
        "p": 0.5,
        "q": -2.0,
        "a": np.array([0.8, 0.6, 0.0]),
        "b": 1.5,
        "c": np.array([0.0, -0.25, 0.0]),
        "s": np.array([0.1, 0.0, 0.0]),
        "input_scale": 0.7,
        "guidance": 4.0,
    }
    return StepTable(**{**columns, **changes})  # type: ignore[arg-type]


def test_a_row_has_the_order_of_the_columns() -> None:
    table = small_table()
    assert len(table) == 3
    np.testing.assert_array_equal(table.rows()[1], [0.7, 400, 4, 0.5, -2, 0.6, 1.5, -0.25, 0])
    assert [getattr(table, name).shape for name in (*COLUMNS, *MEMORY)] == [(3,)] * 14
    assert table.rows().dtype == np.float64


def test_a_row_with_memory_has_the_memory_last() -> None:
    table = small_table(e=1.0, f=2.0, g=3.0, h=4.0, k=5.0)
    np.testing.assert_array_equal(table.rows(memory=True)[1], [0.7, 400, 4, 0.5, -2, 0.6, 1.5, -0.25, 0, 1, 2, 3, 4, 5])
    assert table.has_memory
    assert not small_table().has_memory


def test_guidance_may_change_from_row_to_row() -> None:
    table = small_table().with_guidance(np.array([3.0, 2.0, 1.0]))
    np.testing.assert_array_equal(table.rows()[:, 2], [3, 2, 1])
    np.testing.assert_array_equal(table.tail(1).guidance, [2, 1])


def test_advance_follows_the_rule() -> None:
    x, m, d_prev, noise = np.array([1.0, -2.0]), np.array([0.5, 0.25]), np.array([4.0, 8.0]), np.array([10.0, 20.0])
    x_next, d, _ = advance(small_table(), 0, x, m, noise=noise)
    np.testing.assert_allclose(d, [0.5 - 1.0, -1.0 - 0.5])
    np.testing.assert_allclose(x_next, [0.8 - 0.75 + 1.0, -1.6 - 2.25 + 2.0])
    x_next, d, y_next = advance(small_table(), 1, x, m, d_prev)
    np.testing.assert_allclose(x_next, 0.6 * x + 1.5 * d - 0.25 * d_prev)
    np.testing.assert_array_equal(y_next, [0, 0])


def test_advance_carries_a_latent() -> None:
    x, m, d_prev, y = np.array([1.0, -2.0]), np.array([0.5, 0.25]), np.array([4.0, 8.0]), np.array([3.0, 7.0])
    table = small_table(e=0.1, f=0.2, g=0.3, h=0.4, k=0.5)
    x_next, d, y_next = advance(table, 1, x, m, d_prev, y=y)
    np.testing.assert_allclose(x_next, 0.6 * x + 1.5 * d - 0.25 * d_prev + 0.1 * y)
    np.testing.assert_allclose(y_next, 0.2 * x + 0.3 * d + 0.4 * d_prev + 0.5 * y)


@pytest.mark.parametrize(("row", "missing"), [(0, "noise"), (1, "d_prev"), (2, "y")])
def test_advance_names_what_a_row_needs(row: int, missing: str) -> None:
    with pytest.raises(ConfigError) as caught:
        advance(small_table(e=np.array([0.0, 0.0, 1.0])), row, np.zeros(2), np.zeros(2))
    assert caught.value.name == missing


def test_a_tail_is_the_same_rows() -> None:
    table = small_table()
    tail = table.tail(1)
    np.testing.assert_array_equal(tail.rows()[0], table.rows()[1])
    np.testing.assert_array_equal(tail.noise_levels, [0.5, 0.2, 0.0])
    assert len(tail) == 2
    assert tail.descent.before == (0.9,)


def test_a_table_cannot_be_changed() -> None:
    table, a = small_table(), np.ones(3)
    with pytest.raises(ValueError, match="read-only"):
        table.a[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.a = a  # type: ignore[misc]
    kept = small_table(a=a)
    a[0] = 5
    assert kept.a[0] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", np.array([1.0, np.nan, 0.0])),
        ("b", np.zeros(2)),
        ("p", np.inf),
        ("k", np.zeros(4)),
    ],
)
def test_a_table_refuses_what_it_cannot_follow(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        small_table(**{name: value})
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("levels", {"levels": [0.9, 0.5, 0.2]}),
        ("timestep", {"timestep": [], "levels": [0.0]}),
        ("timestep", {"timestep": [1.0, np.nan, 0.0]}),
        ("initial_noise_scale", {"initial_noise_scale": 0.0}),
        ("initial_noise_scale", {"initial_noise_scale": np.inf}),
    ],
)
def test_a_descent_refuses_what_no_run_follows(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        small_descent(**arguments)  # type: ignore[arg-type]
    assert caught.value.name == name
