"""A family of two text encoders: what it calls, costs, loads and keeps is counted for each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import PromptError
from costroute_rt.family.calls import candidate_names, engine_names
from costroute_rt.family.family import Family
from costroute_rt.judgement import Judgement
from costroute_rt.result import Result
from costroute_rt.routing.prompt_encoder import TextStates
from tests.runtime.fakes import LOAD_MS, STATES, BoxedEngine, FakeDevice, is_kept, steady
from tests.runtime.two_encoders import DROP, ENCODERS, FIRST, LENGTH, PENULTIMATE, POOLED, SECOND, make_bundle, open_two_encoders

PROMPT, CONDITION, STEP, DECODE = "a red house", "twins/base/condition", "twins/base/guided_step", "twins/vae/decode"


class Ready:
    """An upgrade whose engines are all ready."""

    def __init__(self, engines: dict[str, Any]) -> None:
        self.engines = engines

    def take(self) -> dict[str, Any]:
        return self.engines


@pytest.fixture
def device(bundle: Bundle) -> FakeDevice:
    return open_two_encoders(bundle)


@pytest.fixture
def zeros(bundle: Bundle) -> FakeDevice:
    """A family with zeros in the place of a negative prompt that was not given."""
    return open_two_encoders(bundle, negative_prompt="zeros")


def ask(device: FakeDevice, candidate: str = "base@4", prompt: str = PROMPT, negative_prompt: str | None = None) -> Result:
    return device.runtime.generate(prompt, negative_prompt=negative_prompt, candidate=candidate, seed=1)


def runs(device: FakeDevice) -> list[int]:
    """How often each text encoder has run."""
    return [device.engines[name].calls for name in ENCODERS]


def test_a_denoiser_calls_the_encoders_whose_outputs_it_takes(bundle: Bundle) -> None:
    twins = make_bundle(bundle)
    names = candidate_names(twins)
    assert names["tiny-turbo@1"] == [FIRST, "twins/turbo/step", DECODE]
    assert names["tiny-base@4"] == [FIRST, SECOND, CONDITION, STEP, DECODE]
    assert engine_names(twins) == [FIRST, "twins/turbo/step", SECOND, CONDITION, STEP, DECODE]
    calls = Family.open(twins).calls(Family.open(twins).pool[2], (64, 64), 3, 2)
    assert [(call.engine, call.times, call.rows) for call in calls] == [
        (FIRST, 2, 1), (SECOND, 2, 1), (CONDITION, 1, 2), (STEP, 12, 1), (DECODE, 3, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("candidate", "text_ms"), [("base@4", 4 + 7 + 2), ("turbo@2", 4), ("guided-turbo@2", 4)])
def test_the_text_takes_one_run_of_each_encoder_as_predicted(device: FakeDevice, candidate: str, text_ms: float) -> None:
    result = ask(device, candidate)
    assert (result.route.option.cost.text_ms, result.timings.text_ms) == pytest.approx((text_ms, text_ms))
    assert result.predicted_ms == pytest.approx(result.actual_ms + 1)


def test_each_encoder_is_loaded_and_paid_for_when_first_needed(bundle: Bundle) -> None:
    device = open_two_encoders(bundle, preload=False)
    first, second, third = ask(device, "turbo@1"), ask(device, "base@4"), ask(device, "base@4")
    for result, loads in ((first, 3), (second, 3), (third, 0)):
        assert (result.route.option.cost.swap_ms, result.timings.swap_ms) == pytest.approx((loads * LOAD_MS, loads * LOAD_MS))
        assert result.route.option.resident == (loads == 0)


def test_the_memory_of_a_candidate_holds_both_encoders(bundle: Bundle) -> None:
    device = open_two_encoders(bundle, preload=False)
    twins = device.resources.main_family.bundle
    weights = sum(twins.weights_bytes(name) for name in ("text_encoder", "text_encoder_2", "base", "vae"))
    assert device.runtime.route(PROMPT, candidate="base@4").option.memory_bytes == 2 * weights


def test_a_new_negative_prompt_costs_one_run_of_each_encoder_and_the_next_time_none(device: FakeDevice) -> None:
    before = runs(device)
    first = ask(device, negative_prompt="snow")
    assert runs(device) == [count + 2 for count in before]
    second = ask(device, negative_prompt="snow")
    assert runs(device) == [count + 3 for count in before]
    for result, text_ms in ((first, 2 * (4 + 7) + 2), (second, 4 + 7 + 2)):
        assert (result.route.option.cost.text_ms, result.timings.text_ms) == pytest.approx((text_ms, text_ms))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.pixels != ask(device).pixels).any()


def test_a_negative_prompt_that_one_encoder_knows_still_counts_for_the_other(device: FakeDevice) -> None:
    assert ask(device, "guided-turbo@2", negative_prompt="snow").timings.text_ms == pytest.approx(8)
    result = ask(device, "base@4", negative_prompt="snow")
    assert result.timings.text_ms == pytest.approx(4 + 7 + 7 + 2)
    assert result.route.option.cost.text_ms >= result.timings.text_ms


def test_preloading_keeps_the_empty_negative_prompt_of_both_encoders(device: FakeDevice, zeros: FakeDevice) -> None:
    assert all(is_kept(device.resources, name, "") for name in ("text_encoder", "text_encoder_2"))
    assert runs(device) == [2, 2]
    assert runs(zeros) == [1, 1]


def test_the_negative_prompt_is_the_first_row_of_every_tensor(device: FakeDevice) -> None:
    ask(device, negative_prompt="snow")
    mixed = {**device.engines[CONDITION].fed, POOLED: device.engines[STEP].fed[POOLED]}
    for row, prompt in enumerate(("snow", PROMPT)):
        ask(device, prompt=prompt, negative_prompt=prompt)
        alone = {**device.engines[CONDITION].fed, POOLED: device.engines[STEP].fed[POOLED]}
        for name in (STATES, PENULTIMATE, POOLED, "letters.attention_mask"):
            np.testing.assert_array_equal(mixed[name][row], alone[name][row])
            np.testing.assert_array_equal(alone[name][0], alone[name][1])
    assert (mixed["letters.attention_mask"][0] != mixed["letters.attention_mask"][1]).any()


def test_the_tokens_of_the_template_are_cut_from_states_and_mask_but_not_from_the_pooled_output(device: FakeDevice) -> None:
    ask(device)
    found, encoder = device.engines[CONDITION].fed, device.engines[SECOND]
    whole = encoder.run(encoder.fed)  # the last that it ran on is the prompt; its empty negative prompt was kept
    np.testing.assert_array_equal(found[PENULTIMATE][1], whole["penultimate"][0, DROP:])
    np.testing.assert_array_equal(found["letters.attention_mask"][1], encoder.fed["attention_mask"][0, DROP:])
    np.testing.assert_array_equal(found[POOLED][1], whole["pooled"][0])
    assert found[PENULTIMATE].shape == (2, LENGTH - DROP, 2)
    assert found[STATES].shape[1] == 16


def test_each_encoder_gets_tokens_of_its_own_type_and_length(device: FakeDevice) -> None:
    ask(device)
    first, second = (device.engines[name].fed for name in ENCODERS)
    assert {name: (tokens.dtype, tokens.shape) for name, tokens in first.items()} == {"input_ids": (np.int64, (1, 16))}
    assert {name: (tokens.dtype, tokens.shape) for name, tokens in second.items()} == dict.fromkeys(
        ("input_ids", "attention_mask"), (np.int32, (1, LENGTH))
    )


def test_a_text_that_is_too_long_for_one_encoder_is_truncated(device: FakeDevice) -> None:
    fits_one = "a red house by a lake with birds over"
    assert [each.encode(fits_one).is_truncated for each in device.resources.main_family.tokenizers.values()] == [False, True]
    assert ask(device, prompt=fits_one).truncated
    assert ask(device, negative_prompt=fits_one).truncated
    assert not ask(device, negative_prompt="snow").truncated


def test_a_tokenizer_whose_tokens_the_candidate_does_not_read_neither_truncates_nor_refuses_a_prompt(device: FakeDevice) -> None:
    assert not ask(device, "turbo@1", prompt="a red house by a lake with birds over").truncated
    too_long_for_the_second = "lake " * 80
    assert ask(device, "turbo@1", prompt=too_long_for_the_second).truncated
    assert not ask(device, "guided-turbo@2", negative_prompt="a red house by a lake with birds over").truncated
    with pytest.raises(PromptError, match="reads 12 tokens"):
        ask(device, "base@4", prompt=too_long_for_the_second)


def test_a_replaced_text_encoder_s_negative_prompts_are_dropped_and_no_others(device: FakeDevice) -> None:
    ask(device, negative_prompt="snow")
    swapped = replace(device.resources, upgrade=Ready({SECOND: (device.engines[SECOND], steady(1.0))}))
    swapped.swap_in()
    kept = {(name, text) for name in ("text_encoder", "text_encoder_2") for text in ("", "snow") if is_kept(swapped, name, text)}
    assert kept == {("text_encoder", ""), ("text_encoder", "snow")}


def test_zeros_stand_for_the_outputs_of_both_encoders_at_no_cost(zeros: FakeDevice) -> None:
    result, fed = ask(zeros), zeros.engines[CONDITION].fed
    assert (result.route.option.cost.text_ms, result.timings.text_ms) == pytest.approx((4 + 7 + 2, 4 + 7 + 2))
    for name in (STATES, PENULTIMATE, POOLED):
        assert not fed[name][0].any()
        assert fed[name][1].any()
    assert fed["letters.attention_mask"].sum(axis=1).tolist() == [1, 4]  # the end token; three words and the end token
    given = ask(zeros, negative_prompt="")
    assert (given.route.option.cost.text_ms, given.timings.text_ms) == pytest.approx((24, 24))
    assert zeros.engines[CONDITION].fed[PENULTIMATE][0].any()


def test_a_router_may_read_the_second_encoder_whose_run_serves_the_denoiser_too(bundle: Bundle) -> None:
    class FavoursBase:
        needs_states, engines = True, ()

        def judge(self, prompt: str, states: TextStates | None) -> Judgement:
            assert states is not None
            assert (states.states.shape, states.lengths.tolist()) == ((1, LENGTH - DROP, 2), [4])
            return Judgement(mean=np.array([0.1, 0.2, 0.9, 0.3, 0.2]), standard_error=np.zeros(5), basis="test")

    device = open_two_encoders(bundle, quality=FavoursBase(), states=PENULTIMATE)
    result = device.runtime.generate(PROMPT, seed=1)
    assert result.route.chosen.name == device.runtime.route(PROMPT).chosen.name == "base@4"
    assert result.timings.text_ms == pytest.approx(4 + 7 + 2)


@pytest.mark.parametrize("name", [FIRST, SECOND, CONDITION, STEP, DECODE])
def test_tensors_reach_an_engine_that_keeps_its_values_elsewhere(device: FakeDevice, name: str) -> None:
    """The step reads the condition's output and a tensor that the condition was given too; both are moved to its device."""
    want, former = ask(device, negative_prompt="snow").pixels, device.engines[name]
    boxed = BoxedEngine(name, former.clock, former.ms, former.fail, inputs=former.inputs, functions=former.functions)
    device.resources.engines.replace({name: boxed})  # type: ignore[dict-item]
    np.testing.assert_array_equal(ask(device, negative_prompt="snow").pixels, want)
    assert boxed.calls == (4 if name == STEP else 1)


def test_a_text_encoder_that_no_denoiser_reads_is_not_called(bundle: Bundle) -> None:
    twins = make_bundle(bundle)
    only_turbo = replace(twins, pool=tuple(row for row in twins.pool if row["denoiser"] == "turbo"))
    assert engine_names(only_turbo) == [FIRST, "twins/turbo/step", DECODE]
