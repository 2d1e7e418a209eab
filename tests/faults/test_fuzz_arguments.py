"""Found by the fuzz test: arguments of wrong types ended in TypeError, AttributeError or RecursionError."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Bundle, Candidate, ConfigError, CostrouteError, Request, Runtime, read_settings
from tests.cli.conftest import Run

NAMES = {"name": "turbo@1", "denoiser": "turbo", "scheduler": "default", "num_inference_steps": 1}
NOT_FUNCTIONS = (5, "x", [], np.array(3))
NOT_EVENTS = (5, "x", [], threading.Event)
NOT_PATHS = (5, np.int8(-1), ("a", None), [], object(), b"bundle", ...)


def deep_list() -> list[Any]:
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    return value


@pytest.fixture
def runtime(built: Path, tiny_bundle: Path) -> Iterator[Runtime]:
    with Runtime.open(tiny_bundle, preload=False) as opened:
        yield opened


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": "1"},
        {"num_inference_steps": 1.5},
        {"num_inference_steps": np.datetime64("2020-01-01")},
        {"guidance_scale": "7"},
        {"guidance_scale": float("nan")},
        {"name": float("nan")},
        {"name": []},
        {"denoiser": None},
        {"scheduler": np.float32(0.5)},
        {"decoder": 1},
        {"family": None},
        {"is_guided": "no"},
    ],
)
def test_a_candidate_refuses_values_of_other_types(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Candidate(**{**NAMES, **changes})
    assert caught.value.name in changes


def test_a_candidate_takes_numpy_numbers() -> None:
    made = Candidate(**{**NAMES, "num_inference_steps": np.int64(4), "guidance_scale": np.float64(2), "is_guided": np.bool_(True)})
    assert (made.num_inference_steps, made.guidance_scale, made.is_guided) == (4, 2.0, True)
    assert type(made.is_guided) is bool


@pytest.mark.parametrize("name", ["or_fastest", "preview"])
def test_flags_of_requests_are_true_or_false(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Request(prompt="a lake", **{name: iter([])})  # type: ignore[arg-type]
    assert caught.value.name == name
    assert getattr(Request(prompt="a lake", **{name: np.bool_(True)}), name) is True  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.array("a lake"), Decimal("sNaN"), Decimal("1e999"), np.datetime64("2020-01-01"), 1j], ids=repr)
@pytest.mark.parametrize("name", ["max_ms", "lam", "tolerance"])
def test_what_is_no_finite_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Request(prompt="a lake", **{name: value})
    assert caught.value.name == name


def test_an_error_about_a_value_that_cannot_be_shown() -> None:
    for value, shown in ((deep_list(), "a value of type list that"), (10**5000, "a value of type int that")):
        with pytest.raises(ConfigError, match=shown):
            Request(prompt=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", NOT_FUNCTIONS, ids=repr)
def test_callbacks_are_checked_before_any_work(runtime: Runtime, value: Any) -> None:
    for call in (runtime.generate, runtime.submit, lambda *a, **k: asyncio.run(runtime.generate_async(*a, **k))):
        with pytest.raises(ConfigError) as caught:
            call("a lake", on_step=value)
        assert caught.value.name == "on_step"


@pytest.mark.parametrize("value", NOT_EVENTS[:3], ids=repr)
def test_events_are_checked_before_any_work(runtime: Runtime, value: Any) -> None:
    for call in (runtime.generate, runtime.submit, runtime.stream, runtime.route):
        with pytest.raises(ConfigError) as caught:
            call("a lake", cancel=value)
        assert caught.value.name == "cancel"


@pytest.mark.parametrize("value", [[], {}, 5], ids=repr)
def test_the_name_of_the_latest_call_is_text(runtime: Runtime, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        runtime.route("a lake", latest=value)
    assert caught.value.name == "latest"


@pytest.mark.parametrize("name", ["seed", "count", "height", "max_ms"])
def test_a_truth_value_of_numpy_is_no_number(name: str) -> None:
    with pytest.raises(ConfigError):
        Request(prompt="a lake", **{name: np.bool_(True)})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", NOT_PATHS, ids=lambda value: type(value).__name__)
def test_what_is_no_path_is_no_bundle(home: Path, value: Any) -> None:
    for call in (Bundle.open, Runtime.open):
        with pytest.raises(ConfigError) as caught:
            call(value)
        assert caught.value.name == "bundle"


@pytest.mark.parametrize("value", [5, len, b"x", [5], [b"x"], ["a\0b"], np.array(3)], ids=repr)
def test_extra_stores_are_a_list_of_paths(home: Path, tiny_bundle: Path, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Runtime.open(tiny_bundle, extra_stores=value)
    assert caught.value.name == "extra_stores"


COMMANDS = [("route", "a lake"), ("gen", "a lake"), ("engines", "list"), ("build-engines",)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_bundle_with_nul_in_its_name(run: Run, home: Path, command: tuple[str, ...]) -> None:
    done = run(*command, "--bundle", "a\0b")
    assert done.exit_code == 2, done.output
    assert "NUL" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="such names exist on Windows")
@pytest.mark.parametrize("command", [*COMMANDS, ("fit-router", "--labels", "x.csv", "-o", "x")], ids=" ".join)
def test_a_bundle_with_half_of_a_character_in_its_name(run: Run, home: Path, command: tuple[str, ...]) -> None:
    done = run(*command, "--bundle", "a\ud800b")
    assert done.exit_code == 2, done.output
    assert "half of a character, such as U+D800" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="such names exist on Windows")
def test_the_library_refuses_half_of_a_character_in_names(home: Path, tiny_bundle: Path) -> None:
    for call in (Bundle.open, Runtime.open, read_settings, lambda name: Runtime.open(tiny_bundle, home=name, build=True)):
        with pytest.raises(CostrouteError):
            call("a\ud800b.png")


@pytest.mark.parametrize("name", ["backend", "provider", "precision"])
@pytest.mark.parametrize("value", [np.array(["a", "b"]), [], 5, None, b"cpu"], ids=repr)
def test_names_of_backends_and_such_are_text(home: Path, tiny_bundle: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Runtime.open(tiny_bundle, **{name: value})
    assert caught.value.name == name


@pytest.mark.parametrize("value", ["1", float("nan"), float("inf"), [], object], ids=repr)
def test_times_to_wait_for_a_job_are_numbers(runtime: Runtime, value: Any) -> None:
    job = runtime.submit("a lake")
    for call in (job.result, job.exception):
        with pytest.raises(ConfigError) as caught:
            call(value)
        assert caught.value.name == "timeout"
    with pytest.raises(ConfigError):
        job.add_done_callback(value if value is not object else 5)
    assert len(job.result(1e300).pixels) == 1


@pytest.mark.parametrize("name", ["build", "background_build", "preload", "allow_fallback", "max_waiting"])
@pytest.mark.parametrize("value", [np.array([]), np.array([True, False]), "no", [], 1.0], ids=repr)
def test_flags_of_open_are_checked_before_any_work(home: Path, tiny_bundle: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Runtime.open(tiny_bundle, **{name: value})
    assert caught.value.name == name
    assert not home.exists()


def test_the_flag_of_a_plan_is_true_or_false(runtime: Runtime) -> None:
    with pytest.raises(ConfigError) as caught:
        runtime.plan(["a lake"], total_ms=1000, or_fastest=np.array([]))  # type: ignore[arg-type]
    assert caught.value.name == "or_fastest"
