"""Guidance that starts late, ends early, fades or is rescaled: rows, engines, costs and images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Runtime
from costroute_rt.candidate import Candidate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.family.calls import candidate_calls, engine_names, read_pool
from tests.changed_bundle import change_bundle

PROMPT = "a red house by a lake"
NAME = "tiny-base@8"


def make_candidate(**settings: Any) -> Candidate:
    usual = {"name": "x", "denoiser": "base", "scheduler": "flow", "num_inference_steps": 5, "guidance_scale": 5.0, "is_guided": True}
    return Candidate(**(usual | settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (5, 5, 5, 5, 5)),
        ({"guidance_end": 0.6}, (5, 5, 5, 1, 1)),
        ({"guidance_start": 0.2, "guidance_end": 0.8}, (1, 5, 5, 5, 1)),
        ({"guidance_scale_last": 1.0}, (5, 4, 3, 2, 1)),
        ({"guidance_end": 0.6, "guidance_scale_last": 3.0}, (5, 4, 3, 1, 1)),
        ({"guidance_end": 0.01}, (5, 1, 1, 1, 1)),  # at least one step
        ({"guidance_start": 0.99}, (1, 1, 1, 1, 5)),
        ({"num_inference_steps": 1, "guidance_scale_last": 1.0}, (5,)),
    ],
)
def test_the_scale_of_each_row(settings: dict[str, Any], expected: tuple[float, ...]) -> None:
    assert make_candidate(**settings).guidance() == expected


def test_both_rows_of_a_step_have_its_scale() -> None:
    assert make_candidate(guidance_end=0.6).guidance(9) == (5, 5, 5, 5, 5, 5, 1, 1, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_end": 0.0},
        {"guidance_start": 0.5, "guidance_end": 0.5},
        {"guidance_end": 1.5},
        {"guidance_rescale": -0.1},
        {"guidance_scale_last": float("nan")},
        {"guidance_start": "half"},
    ],
)
def test_impossible_guidance_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{list(settings)[-1]} is "):
        make_candidate(**settings)


def with_guidance(source: Path, target: Path, *, has_step: bool = True, **settings: Any) -> Bundle:
    """The tiny bundle, whose candidate tiny-base@8 has these settings; has_step: whether its denoiser has a graph without guidance."""

    def change(manifest: dict[str, Any], root: Path) -> None:
        next(row for row in manifest["pool"] if row["name"] == NAME).update(settings)
        if not has_step:
            path = manifest["components"]["base"]["graphs"].pop("step")
            del manifest["graphs"][path]
            (root / path).unlink()

    return change_bundle(source, target, change)


def test_rows_without_guidance_are_runs_of_the_graph_without_it(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = with_guidance(tiny_bundle, tmp_path / "bundle", guidance_end=0.75)
    candidate = next(each for each in read_pool(bundle) if each.name == NAME)
    calls = [(call.engine.partition("/")[2], call.times, call.rows) for call in candidate_calls(bundle, candidate)]
    assert calls == [
        ("text_encoder/encode", 1, 1),
        ("base/condition", 1, 2),
        ("base/condition", 1, 1),
        ("base/step", 2, 1),
        ("base/guided_step", 6, 1),
        ("vae/decode", 1, 1),
    ]
    assert "tiny/base/step" in engine_names(bundle)
    without = with_guidance(tiny_bundle, tmp_path / "without", has_step=False, guidance_end=0.75)
    assert [call.times for call in candidate_calls(without, candidate) if call.stage.value == "denoise"] == [8]
    assert "tiny/base/step" not in engine_names(without)


@pytest.fixture(scope="module")
def runtimes(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, Runtime]]:
    """The same candidate with both graphs, and with the guided one alone."""
    folder = tmp_path_factory.mktemp("guidance")
    settings = {"guidance_start": 0.25, "guidance_end": 0.75, "guidance_scale_last": 2.0}
    both, alone = (with_guidance(tiny_bundle, folder / str(has_step), has_step=has_step, **settings) for has_step in (True, False))
    with (
        Runtime.open(both.root, home=folder / "home", build=True, threads=1) as first,
        Runtime.open(alone.root, home=folder / "home", build=True, threads=1) as second,
    ):
        yield first, second


def test_a_run_that_changes_between_engines_makes_the_same_image(runtimes: tuple[Runtime, Runtime]) -> None:
    images = [runtime.generate(PROMPT, candidate=NAME, seed=3, negative_prompt="birds").pixels.astype(int) for runtime in runtimes]
    assert np.abs(images[0] - images[1]).max() <= 1
    plain = runtimes[0].generate(PROMPT, candidate="tiny-base@4", seed=3, negative_prompt="birds").pixels
    assert np.abs(images[0] - plain).max() > 1


def test_the_settings_tell_where_guidance_applies(runtimes: tuple[Runtime, Runtime]) -> None:
    settings = runtimes[0].generate(PROMPT, candidate=NAME, seed=3).settings
    assert {name: settings[name] for name in ("guidance_start", "guidance_end", "guidance_scale_last")} == {
        "guidance_start": 0.25,
        "guidance_end": 0.75,
        "guidance_scale_last": 2.0,
    }
    assert "guidance_end" not in runtimes[0].generate(PROMPT, candidate="tiny-base@4", seed=3).settings


def test_costs_and_progress_follow_the_rows(runtimes: tuple[Runtime, Runtime]) -> None:
    resources = runtimes[0]._resources
    family = resources.main_family
    plan = family.plan(next(each for each in family.pool if each.name == NAME), (64, 64))
    assert plan.plain_step is not None
    assert (plan.step.times, plan.plain_step.times) == (4, 4)
    assert list(np.asarray(plan.table.guidance)) == pytest.approx([1, 1, 3, 2.667, 2.333, 2, 1, 1], abs=1e-3)
    costs, calls = resources.costs, family.calls(plan.candidate, (64, 64))
    predicted = costs.predict(calls).denoise_ms
    assert predicted == pytest.approx(4 * costs.expected_ms(plan.step) + 4 * costs.expected_ms(plan.plain_step))
    totals = [event.total for event in runtimes[0].stream(PROMPT, candidate=NAME, seed=3) if hasattr(event, "total")]
    assert totals == [8] * 8
    assert {"tiny/base/step", "tiny/base/guided_step"} <= set(resources.engines._resident)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"guidance_end": 0.2, "guidance_start": 0.4}, "has guidance from 0.4 to 0.2"),
        ({"guidance_end": 2}, "has guidance from 0 to 2"),
        ({"guidance_rescale": 1.5}, "guidance_rescale is 1.5: expected 0 to 1"),
        ({"guidance_rescale": 0.7}, "guided_step.onnx has no input for it"),
        ({"guidance_scale": 1.0, "guidance_end": 0.5}, "has guidance_end, but guidance_scale 1 means no guidance"),
        ({"guidance_end": "half"}, "guidance_end"),
    ],
)
def test_a_manifest_with_impossible_guidance_is_refused(tiny_bundle: Path, tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        with_guidance(tiny_bundle, tmp_path / "bundle", **settings)


def test_a_limit_on_memory_makes_the_same_image(runtimes: tuple[Runtime, Runtime]) -> None:
    """With a limit, engines are looked up again before each row."""
    opened = runtimes[0]
    bundle, store = opened._resources.main_family.bundle, opened._resources.store
    with Runtime.open(bundle.root, home=store, threads=1, max_memory_bytes=1 << 36) as limited:
        assert limited._resources.engines.lease().is_limited
        images = [each.generate(PROMPT, candidate=NAME, seed=3).pixels for each in (opened, limited)]
    np.testing.assert_array_equal(*images)
