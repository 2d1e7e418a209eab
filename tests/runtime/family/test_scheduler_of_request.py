"""Requests that name a scheduler: which candidates can run with it, what it costs, and what is reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Runtime
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import ConfigError
from costroute_rt.family.family import Family
from costroute_rt.generation.planner import plan_calls
from costroute_rt.request import Request
from tests.patchwork_bundle import guided_reference, write_patchwork_bundle

PROMPT = "a red house by a green lake"
EPSILON = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder: Path = tmp_path_factory.mktemp("patchwork")
    bundle = write_patchwork_bundle(folder / "bundle")
    with Runtime.open(bundle.root, home=folder / "home", build=True, threads=1) as opened:
        yield opened


@pytest.mark.parametrize("name", ["UniPC", "DPM++ 3M", "DPM++ 2M"])
def test_images_with_a_request_s_scheduler_equal_the_numpy_reference(runtime: Runtime, name: str) -> None:
    family = runtime._resources.main_family
    table = family.plan(next(each for each in family.pool if each.name == "guided@4"), (64, 64), name).table
    found = runtime.generate(PROMPT, candidate="guided@4", scheduler=name, seed=7).pixels[0]
    expected = guided_reference(PROMPT, "", uses_zeros=True, seed=7, table=table, guidance_scale=3.5, size=(64, 64))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.abs(found.astype(int) - runtime.generate(PROMPT, candidate="guided@4", seed=7).pixels[0]).max() > 1


def test_routes_results_and_settings_say_which_scheduler_is_used(runtime: Runtime) -> None:
    result = runtime.generate(PROMPT, candidate="patchwork@4", scheduler="deis", seed=5)
    assert result.route.scheduler == result.settings["scheduler"] == result.route.to_json()["scheduler"]
    assert result.settings["requested_scheduler"] == "deis"
    assert any("replaces DEIS" in note for note in result.notes)
    plain = runtime.generate(PROMPT, candidate="patchwork@4", seed=5)
    assert plain.settings["requested_scheduler"] is None
    assert plain.route.scheduler != result.route.scheduler
    (planned,) = runtime.plan([PROMPT], total_ms=60_000, scheduler="deis")
    assert planned.scheduler == result.route.scheduler


def test_an_unknown_scheduler_is_refused_before_the_request_waits(runtime: Runtime) -> None:
    for call in (runtime.route, runtime.generate, runtime.submit):
        with pytest.raises(ConfigError, match=r"scheduler is 'eule': expected a name such as .*euler"):
            call(PROMPT, scheduler="eule")  # type: ignore[operator]
    with pytest.raises(ConfigError, match="scheduler is 7: expected a name"):
        runtime.route(PROMPT, scheduler=7)  # type: ignore[arg-type]


def open_epsilon(bundle: Bundle) -> Family:
    return Family.open(replace(bundle, schedulers=dict.fromkeys(bundle.schedulers, EPSILON)))


def test_two_rows_per_step_are_two_calls(bundle: Bundle) -> None:
    family = open_epsilon(bundle)
    candidate = next(each for each in family.pool if each.num_inference_steps == 4)
    calls: Any = family.calls(candidate, (64, 64), scheduler="DPM2 a")
    assert [call.times for call in calls if call.stage.value == "denoise"] == [7]
    assert [call.times for call in family.calls(candidate, (64, 64)) if call.stage.value == "denoise"] == [4]


@pytest.mark.parametrize("name", ["UniPC", "DPM++ 3M SDE", "DPM++ SDE Karras"])
def test_a_scheduler_that_carries_a_latent_needs_graphs_that_take_one(bundle: Bundle, name: str) -> None:
    family = open_epsilon(bundle)
    candidate = next(each for each in family.pool if each.num_inference_steps == 8)
    with pytest.raises(ConfigError, match=r"such as DPM\+\+ 2M: the graphs of tiny-base@8 have no input for the latent that it carries"):
        family.plan(candidate, (64, 64), name)
    assert family.plan(candidate, (64, 64), "DPM++ 2M").scheduler.title == "dpmpp_2m"


def test_candidates_that_cannot_run_with_the_scheduler_are_left_out(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are chosen from, and the reason is kept."""
    plans = plan_calls(runtime._resources, Request(prompt=PROMPT, scheduler="DPM++ 2M"))
    assert len(plans) == len(runtime.candidates)
    original = Family._compile

    def compile_(self: Family, candidate: Any, size: Any, scheduler: str | None, strength: float | None) -> Any:
        if candidate.name == "patchwork@4" and scheduler is not None:
            raise ConfigError("scheduler", scheduler, "another one")
        return original(self, candidate, size, scheduler, strength)

    monkeypatch.setattr(Family, "_compile", compile_)
    plans = plan_calls(runtime._resources, Request(prompt=PROMPT, scheduler="DPM++ 2M SDE"))
    assert "patchwork@4" not in plans
    assert plans.unfit == {"patchwork@4": "scheduler is 'DPM++ 2M SDE': expected another one"}
    with pytest.raises(ConfigError, match="expected another one"):
        runtime.route(PROMPT, candidate="patchwork@4", scheduler="DPM++ 2M SDE")
