"""Text states of many prompts, by the tiny bundle's text encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt import Runtime
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import PromptError
from costroute_rt.export.router import states
from costroute_rt.export.router.states import read_states
from costroute_rt.family.conditioning import StatesSource
from costroute_rt.request import Request
from tests.tiny_bundle import LENGTH, WIDTH


@pytest.fixture(scope="module")
def engine_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def test_states_are_those_the_runtime_routes_by(tiny_bundle: Path, engine_home: Path) -> None:
    prompts = ["a red house by a lake", "birds"]
    found = read_states(Bundle.open(tiny_bundle), prompts, home=engine_home)
    assert found.states.shape == (2, LENGTH, WIDTH)
    assert found.states.dtype == np.float32
    assert found.lengths[0] > found.lengths[1] > 0
    with Runtime.open(tiny_bundle, home=engine_home, build=True) as runtime:
        resources = replace(runtime._resources, states_source=StatesSource.open(runtime._resources.main_family.bundle))
        own = [each for prompt in prompts if (each := resources.text_states(Request(prompt=prompt), resources.engines.lease())) is not None]
    np.testing.assert_array_equal(found.states, np.concatenate([each.states for each in own]))
    np.testing.assert_array_equal(found.lengths, np.concatenate([each.lengths for each in own]))


def test_a_prompt_that_cannot_be_used_is_named_before_any_engine_runs(tiny_bundle: Path, engine_home: Path) -> None:
    with pytest.raises(PromptError, match="labelled prompt 2, '  '"):
        read_states(Bundle.open(tiny_bundle), ["birds", "  "], home=engine_home)


def test_progress_is_reported(tiny_bundle: Path, engine_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "REPORT_EVERY", 2)
    messages: list[str] = []
    read_states(Bundle.open(tiny_bundle), ["a", "b", "c", "d", "e"], home=engine_home, progress=messages.append)
    assert messages == ["2 of 5 prompts encoded", "4 of 5 prompts encoded"]
