"""Prompts with weights and of several chunks: what the denoiser is fed, what runs, what it costs, and what routers read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.size import axis_lengths, fixed_axes, free_axes, known_size, size_axes, takes_chunks
from costroute_rt.error import BundleError, PromptError
from costroute_rt.export.router.job import read_words
from costroute_rt.family.conditioning import weigh
from costroute_rt.family.family import Family, open_tokenizers
from costroute_rt.judgement import Judgement
from costroute_rt.result import Result
from costroute_rt.routing.prompt_encoder import TextStates
from tests.runtime.fakes import STATES, FakeDevice, encode, open_fake_runtime
from tests.runtime.weighted import make_weighted_bundle

ENCODER, CONDITION = "tiny/text_encoder/encode", "tiny/base/condition"
LENGTH, ROOM = 16, 14
"""Tokens of a chunk, with and without its start and end."""
WORD = "a red house by a lake "


@pytest.fixture
def device(bundle: Bundle) -> FakeDevice:
    return open_fake_runtime(make_weighted_bundle(bundle))


@pytest.fixture
def single(bundle: Bundle) -> FakeDevice:
    """The denoisers take the states of one chunk."""
    return open_fake_runtime(make_weighted_bundle(bundle, takes_chunks=False))


def ask(device: FakeDevice, prompt: str, candidate: str = "base@4", **how: Any) -> Result:
    return device.runtime.generate(prompt, candidate=candidate, seed=1, **how)


def fed(device: FakeDevice) -> np.ndarray:
    """The states that the denoiser was given last: float32[rows, tokens, width]."""
    return np.asarray(device.engines[CONDITION].fed[STATES])


def states_of(device: FakeDevice, text: str) -> np.ndarray:
    """float32[tokens, width] of a text of one chunk, without weights."""
    ids = device.resources.main_family.tokenizers["tokenizer"].encode(text).ids
    return np.asarray(encode({"input_ids": ids})["last_hidden_state"])[0]


def words(count: int) -> str:
    """A text of so many tokens."""
    return " ".join("a" * count)


def test_weights_multiply_the_states_and_the_mean_is_restored(device: FakeDevice) -> None:
    ask(device, "a (red:1.5) [house]")
    plain = states_of(device, "a red house").astype(np.float64)
    weights = np.ones(LENGTH)
    weights[2], weights[3] = 1.5, 1 / 1.1
    expected = plain * weights[:, None]
    expected *= plain.mean() / expected.mean()
    np.testing.assert_allclose(fed(device)[1], expected, rtol=1e-6)
    np.testing.assert_array_equal(fed(device)[0], states_of(device, ""))


def test_negative_prompts_have_weights_too(device: FakeDevice) -> None:
    ask(device, "a lake", negative_prompt="(snow:1.4)")
    assert (fed(device)[0] != states_of(device, "snow")).any()
    np.testing.assert_array_equal(fed(device)[1], states_of(device, "a lake"))


def test_a_long_prompt_becomes_chunks_and_the_negative_prompt_is_filled_with_empty_ones(device: FakeDevice) -> None:
    result = ask(device, words(2 * ROOM + 3), negative_prompt="snow")
    full = states_of(device, words(ROOM))
    np.testing.assert_array_equal(fed(device)[1], np.concatenate([full, full, states_of(device, words(3))]))
    np.testing.assert_array_equal(fed(device)[0], np.concatenate([states_of(device, "snow"), *[states_of(device, "")] * 2]))
    assert not result.truncated


def test_a_long_negative_prompt_fills_the_prompt(device: FakeDevice) -> None:
    ask(device, "a lake", negative_prompt="snow BREAK a house")
    np.testing.assert_array_equal(fed(device)[1], np.concatenate([states_of(device, "a lake"), states_of(device, "")]))
    np.testing.assert_array_equal(fed(device)[0], np.concatenate([states_of(device, "snow"), states_of(device, "a house")]))


def test_the_mean_is_that_of_each_chunk(device: FakeDevice) -> None:
    ask(device, "(a lake:2) BREAK a house")
    assert fed(device)[1, :LENGTH].mean() == pytest.approx(states_of(device, "a lake").mean(), rel=1e-5)
    np.testing.assert_array_equal(fed(device)[1, LENGTH:], states_of(device, "a house"))


@pytest.mark.parametrize(
    ("prompt", "negative", "chunks", "runs", "again"),
    [
        ("a lake", None, 1, 1, 1),
        ("a BREAK a", None, 2, 2, 2),
        ("a BREAK a BREAK a", "snow", 3, 4, 3),
        ("a", "lake BREAK snow BREAK lake", 3, 3, 1),
    ],
)
def test_every_chunk_is_in_the_calls_and_takes_its_time(
    device: FakeDevice, prompt: str, negative: str | None, chunks: int, runs: int, again: int
) -> None:
    """The empty chunk is kept since the warm-up; of the negative prompt the same chunk runs once, and none the next time."""
    device.clock.pass_ms(1)
    before = device.engines[ENCODER].calls
    result = ask(device, prompt, negative_prompt=negative)
    assert device.engines[ENCODER].calls - before == runs
    cost = result.route.option.cost
    assert cost.text_ms == pytest.approx(4 * runs + 2 * chunks)
    before = device.engines[ENCODER].calls
    assert ask(device, prompt, negative_prompt=negative).route.option.cost.text_ms == pytest.approx(4 * again + 2 * chunks, rel=0.2)
    assert device.engines[ENCODER].calls - before == again


def test_routes_predict_what_generation_takes(device: FakeDevice) -> None:
    short, long = (device.runtime.route(prompt, candidate="base@4").option.cost.text_ms for prompt in ("a", "a BREAK b"))
    assert (short, long) == pytest.approx((4 + 2, 8 + 4))


def test_a_prompt_beyond_eight_chunks_loses_its_end(device: FakeDevice) -> None:
    result = ask(device, words(8 * ROOM + 1))
    assert fed(device).shape == (2, 8 * LENGTH, 2)
    assert result.truncated
    assert "its end was left out" in result.notes[0]


def test_a_denoiser_with_one_chunk_cuts_the_prompt_and_reads_on_after_a_break(single: FakeDevice) -> None:
    result = ask(single, "a (red:1.5) BREAK house")
    assert fed(single).shape == (2, LENGTH, 2)
    assert not result.truncated
    assert (fed(single)[1] != states_of(single, "a red house")).any()
    assert ask(single, words(ROOM + 1)).truncated


def test_a_plain_prompt_is_read_literally_and_cut(device: FakeDevice) -> None:
    result = ask(device, "(a:1.5) BREAK " + words(20), negative_prompt="(snow)", plain_prompt=True)
    np.testing.assert_array_equal(fed(device)[1], states_of(device, "(a:1.5) BREAK " + words(20)))
    np.testing.assert_array_equal(fed(device)[0], states_of(device, "(snow)"))
    assert result.truncated
    assert result.settings["plain_prompt"] is True


def test_the_settings_have_the_prompt_as_it_was_typed(device: FakeDevice) -> None:
    result = ask(device, "a (red:1.5)  BREAK house", negative_prompt="[snow]")
    assert (result.settings["prompt"], result.settings["negative_prompt"]) == ("a (red:1.5)  BREAK house", "[snow]")
    assert result.route.prompt == result.settings["prompt"]


@pytest.mark.parametrize("prompt", ["[a|b]", "(a:99)", 17 * LENGTH * 16 * "a"])
def test_a_prompt_that_cannot_be_used_is_refused_before_any_work(device: FakeDevice, prompt: str) -> None:
    before = device.engines[ENCODER].calls
    for call in (device.runtime.generate, device.runtime.route):
        with pytest.raises(PromptError):
            call(prompt)
        with pytest.raises(PromptError):
            call("a lake", negative_prompt=prompt, candidate="base@4")
    assert device.engines[ENCODER].calls == before


@pytest.mark.parametrize("is_plain", [False, True])
def test_routers_read_the_words_and_the_first_chunk_without_weights(bundle: Bundle, is_plain: bool) -> None:
    seen: list[tuple[str, TextStates | None]] = []

    class Listens:
        needs_states, engines = True, ()

        def judge(self, prompt: str, states: TextStates | None) -> Judgement:
            seen.append((prompt, states))
            return Judgement(mean=np.arange(4.0), standard_error=np.ones(4), basis="test")

    device = open_fake_runtime(make_weighted_bundle(bundle), quality=Listens())
    typed, plain = "a (red:1.5) BREAK house", "a red"
    device.runtime.route(typed, plain_prompt=is_plain)
    device.resources.judgements.clear()
    ask(device, typed, plain_prompt=is_plain)
    for prompt, states in seen:
        assert prompt == (typed if is_plain else "a red house")
        assert states is not None
        np.testing.assert_array_equal(states.states[0], states_of(device, typed if is_plain else plain))
        assert is_plain or states.lengths.tolist() == [4]
    assert len(seen) == 2


def test_several_chunks_have_an_axis_that_no_engine_fixes(bundle: Bundle) -> None:
    weighted = make_weighted_bundle(bundle)
    one_size = replace(weighted, image=replace(bundle.image, any_size=False, sizes=((64, 64),)))
    assert [takes_chunks(each) for each in (bundle, make_weighted_bundle(bundle, takes_chunks=False), weighted)] == [False, False, True]
    assert axis_lengths(weighted)["text_tokens"] == LENGTH
    assert "text_tokens" not in fixed_axes(one_size)
    assert {"sequence", "height"} <= fixed_axes(one_size).keys()
    assert ("text_tokens", LENGTH, LENGTH, 8 * LENGTH) in free_axes(weighted)
    shapes = " ".join(f"{axis}={length}" for axis, length in size_axes(weighted, (64, 96)).items())
    assert known_size(weighted, shapes) == (64, 96)
    assert known_size(weighted, f"{shapes} text_tokens=16") is None


def test_a_tokenizer_without_start_and_end_cannot_make_chunks(bundle: Bundle) -> None:
    short = {"tokenizer": replace(bundle.tokenizers["tokenizer"], prompt_syntax="a1111", max_length=2)}
    with pytest.raises(BundleError, match="need a start and an end token"):
        open_tokenizers(replace(bundle, tokenizers=short))


def test_states_whose_mean_cannot_be_kept_are_only_multiplied() -> None:
    states = np.array([[[1.0], [-2.0]]], dtype=np.float32)
    np.testing.assert_array_equal(weigh(states, np.array([2.0, 1.0])), [[[2.0], [-2.0]]])
    assert weigh(states, None) is states


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=60))
@example("00,A00000000000")
def test_text_without_syntax_has_the_tokens_it_always_had(bundle: Bundle, text: str) -> None:
    family, before = Family.open(make_weighted_bundle(bundle)), Family.open(bundle)
    safe = text.translate(dict.fromkeys(map(ord, "()[]\\"))).replace("BREAK", "")
    (tokens,), (old,) = (each.tokenize(safe, ["tokenizer"]).values() for each in (family, before))
    assert tokens.weights is None
    assert tokens.is_truncated is False
    if not old.is_truncated:
        np.testing.assert_array_equal(tokens.ids, old.ids)
        np.testing.assert_array_equal(tokens.attention_mask, old.attention_mask)
    else:
        assert len(tokens) > 1
        own = [ids[mask == 1][1:-1] for ids, mask in zip(tokens.ids, tokens.attention_mask, strict=True)]  # a chunk may end at a comma
        np.testing.assert_array_equal(np.concatenate(own)[: old.ids.shape[1] - 2], old.ids[0, 1:-1])


def test_routers_are_fitted_to_the_words_that_they_read(bundle: Bundle) -> None:
    prompts = ("a (red:1.5) house", "[a|b]")
    assert read_words(make_weighted_bundle(bundle), prompts) == ("a red house", "[a|b]")
    assert read_words(bundle, prompts) == read_words(None, prompts) == prompts
