"""The table as a value, and the reference that follows it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.sampling.step_table import COLUMNS, StepTable, advance


def small_table(**changes: object) -> StepTable:
    columns = {
        "timestep": np.array([900.0, 400.0, 100.0]),
        "noise_levels": np.array([0.9, 0.5, 0.2, 0.0]),
        "p": 0.5,
        "q": -2.0,
        "a": np.array([0.8, 0.6, 0.0]),
        "b": 1.5,
        "c": np.array([0.0, -0.25, 0.0]),
        "s": np.array([0.1, 0.0, 0.0]),
        "input_scale": 0.7,
        "initial_noise_scale": 3.0,
    }
    return StepTable.from_columns(**{**columns, **changes})  # type: ignore[arg-type]


def test_a_row_has_the_order_of_the_columns() -> None:
    table = small_table()
    assert len(table) == 3
    np.testing.assert_array_equal(table.row(1), [0.7, 400, 0.5, -2, 0.6, 1.5, -0.25, 0])
    assert [getattr(table, name).shape for name in COLUMNS] == [(3,)] * 8
    assert table.row(0).dtype == np.float64


def test_advance_follows_the_rule() -> None:
    x, m, d_prev, noise = np.array([1.0, -2.0]), np.array([0.5, 0.25]), np.array([4.0, 8.0]), np.array([10.0, 20.0])
    x_next, d = advance(small_table(), 0, x, m, noise=noise)
    np.testing.assert_allclose(d, [0.5 - 1.0, -1.0 - 0.5])
    np.testing.assert_allclose(x_next, [0.8 - 0.75 + 1.0, -1.6 - 2.25 + 2.0])
    x_next, d = advance(small_table(), 1, x, m, d_prev)
    np.testing.assert_allclose(x_next, 0.6 * x + 1.5 * d - 0.25 * d_prev)


@pytest.mark.parametrize(("row", "missing"), [(0, "noise"), (1, "d_prev")])
def test_advance_names_what_a_row_needs(row: int, missing: str) -> None:
    with pytest.raises(ConfigError) as caught:
        advance(small_table(), row, np.zeros(2), np.zeros(2))
    assert caught.value.name == missing


def test_a_tail_is_the_same_rows() -> None:
    table = small_table()
    tail = table.tail(1)
    np.testing.assert_array_equal(tail.row(0), table.row(1))
    np.testing.assert_array_equal(tail.noise_levels, [0.5, 0.2, 0.0])
    assert len(tail) == 2


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
        ("noise_levels", np.array([0.9, 0.5, 0.2])),
        ("a", np.array([1.0, np.nan, 0.0])),
        ("b", np.zeros(2)),
        ("p", np.inf),
        ("initial_noise_scale", 0.0),
        ("initial_noise_scale", np.inf),
    ],
)
def test_a_table_refuses_what_it_cannot_follow(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        small_table(**{name: value})
    assert caught.value.name == name


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="one row or more"):
        StepTable.from_columns(timestep=np.array([]), noise_levels=np.zeros(1), p=1.0, q=0.0, a=1.0, b=0.0)
