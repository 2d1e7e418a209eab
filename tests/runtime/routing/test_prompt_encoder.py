"""Prompt encoders: which prompts they distinguish, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError, ConfigError, EngineError
from costroute_rt.routing.prompt_encoder import EngineEncoder, HashedEncoder, PromptEncoder, StatesEncoder, TextStates
from costroute_rt.routing.tagged_encoder import load_encoder
from tests.small_network import EMBEDDING, MOST_TOKENS, TableEngine, open_encoder, write_encoder


def hashed(*prompts: str, **settings: Any) -> np.ndarray:
    return HashedEncoder(**settings).encode(prompts)


def test_hashed_prompts_have_unit_length_and_depend_on_word_order() -> None:
    one, swapped, case, other = hashed("a red house, a lake", "a lake, a red house", "A RED HOUSE, A Lake", "quiet storm")
    np.testing.assert_allclose(np.linalg.norm([one, swapped, other], axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(one, case)
    assert 0.5 < one @ swapped < 0.99
    assert one @ other < 0.2


def test_single_words_do_not_depend_on_order() -> None:
    one, swapped = hashed("red house lake", "lake red house", orders=(1,))
    np.testing.assert_array_equal(one, swapped)


def test_repeated_words_count_by_their_logarithm() -> None:
    row = hashed("tree tree tree lake", orders=(1,))[0]
    assert sorted(row[row > 0]) == pytest.approx(np.log1p([1, 3]) / np.hypot(*np.log1p([1, 3])))


def test_hashes_are_the_same_everywhere() -> None:
    assert np.flatnonzero(hashed("lake", dimensions=64, orders=(1,))[0]).tolist() == [0xA270110B % 64]


@pytest.mark.parametrize("prompt", ["", "   ", "夕焼け", "🏠", "\ud800", "5 trees, 12.5 %"])
def test_odd_prompts_are_finite(prompt: str) -> None:
    row = hashed(prompt)[0]
    assert np.isfinite(row).all()
    assert np.any(row) == bool(prompt.strip())


def make_states(rng: np.random.Generator, prompts: int = 3, tokens: int = 5, width: int = 4) -> TextStates:
    return TextStates(rng.normal(size=(prompts, tokens, width)).astype(np.float32), np.arange(1, prompts + 1))


def test_states_are_averaged_without_the_padding() -> None:
    states = make_states(np.random.default_rng(0))
    features = StatesEncoder(4).encode(["a", "b", "c"], states)
    np.testing.assert_allclose(features[1, :4], states.states[1, :2].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(features[:, 4:], [states.states[0, 0], states.states[1, 1], states.states[2, 2]])
    np.testing.assert_array_equal(StatesEncoder(4).encode(["c"], states.select([2])), features[2:])


@pytest.mark.parametrize(("width", "prompts", "given"), [(4, 3, False), (5, 3, True), (4, 2, True)])
def test_states_of_other_prompts_or_width_are_refused(width: int, prompts: int, given: bool) -> None:
    states = make_states(np.random.default_rng(0)) if given else None
    with pytest.raises(ConfigError, match="states"):
        StatesEncoder(width).encode(["a"] * prompts, states)


@pytest.mark.parametrize("encoder", [HashedEncoder(64, (1, 2, 3)), StatesEncoder(4)])
def test_an_encoder_is_restored_from_its_settings(encoder: PromptEncoder) -> None:
    assert load_encoder(encoder.to_json()) == encoder
    assert encoder.to_json()["kind"] == encoder.kind


@pytest.mark.parametrize("settings", [{}, {"kind": "abacus"}, {"kind": "hashed", "dimensions": "9", "orders": [1]}, {"kind": "states"}])
def test_invalid_encoder_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        load_encoder(settings)


@pytest.mark.parametrize("settings", [{"dimensions": 0}, {"orders": ()}, {"orders": (0,)}])
def test_hashing_without_dimensions_or_orders_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HashedEncoder(**settings)


def small_encoder(folder: Path) -> tuple[EngineEncoder, TableEngine]:
    engine: Any = TableEngine(write_encoder(folder))
    return open_encoder(folder, lambda component, graph: engine), engine


def test_an_engine_is_fed_a_prompts_tokens_without_padding(tmp_path: Path) -> None:
    encoder, engine = small_encoder(tmp_path)
    both = encoder.encode(["a red house", "a lake"])
    assert both.shape == (2, EMBEDDING)
    assert [ids.shape for ids in engine.ids] == [(1, len(ids[0])) for ids in engine.ids]
    assert len(engine.ids[0][0]) > len(engine.ids[1][0]) >= 4
    np.testing.assert_array_equal(encoder.encode(["a lake"])[0], both[1])


def test_a_long_prompt_is_truncated(tmp_path: Path) -> None:
    encoder, engine = small_encoder(tmp_path)
    long = "a red house by a lake " * 10
    features = encoder.encode([long, long + " and three pine trees", 1000 * long])
    assert [ids.shape[1] for ids in engine.ids] == [MOST_TOKENS] * 3
    np.testing.assert_array_equal(features[1:], features[:1].repeat(2, 0))


@pytest.mark.parametrize("prompt", ["", "   ", "夕焼け", "🏠"])
def test_a_prompt_without_a_known_word_is_encoded_too(tmp_path: Path, prompt: str) -> None:
    assert np.isfinite(small_encoder(tmp_path)[0].encode([prompt])).all()


def test_an_embedding_that_is_not_finite_is_an_engine_error(tmp_path: Path) -> None:
    encoder, engine = small_encoder(tmp_path)
    engine.table[:] = np.nan
    with pytest.raises(EngineError, match="router_encoder/encode made numbers that are not finite"):
        encoder.encode(["a lake"])


def test_an_engine_encoder_is_restored_from_its_settings_and_folder(tmp_path: Path) -> None:
    encoder, _ = small_encoder(tmp_path)
    again = load_encoder(encoder.to_json(), tmp_path, encoder.open_engine)
    assert again == encoder
    np.testing.assert_array_equal(again.encode(["a lake"], None), encoder.encode(["a lake"]))
    with pytest.raises(ConfigError, match="router_encoder/encode"):
        load_encoder(encoder.to_json(), tmp_path).encode(["a lake"], None)


@pytest.mark.parametrize("change", [{"max_length": 0}, {"max_length": 1 << 20}, {"embedding_width": 0}, {"pad": 3}, {"name": None}])
def test_invalid_engine_encoder_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    encoder, _ = small_encoder(tmp_path)
    with pytest.raises((ValueError, ConfigError)):
        load_encoder({**encoder.to_json(), **change}, tmp_path)
    with pytest.raises(ValueError, match="engine"):
        load_encoder(encoder.to_json())


def test_a_tokenizer_that_does_not_fit_is_a_bundle_error(tmp_path: Path) -> None:
    encoder, _ = small_encoder(tmp_path)
    for change in ({"pad": "[PAD]"}, {"max_length": 1}):
        with pytest.raises(BundleError):
            load_encoder({**encoder.to_json(), **change}, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="not a usable tokenizer"):
        load_encoder(encoder.to_json(), tmp_path)
