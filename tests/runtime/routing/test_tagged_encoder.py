"""Encoders with tags beside other features, and routers that read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import ConfigError
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.prompt_encoder import HashedEncoder, StatesEncoder, TextStates
from costroute_rt.routing.prompt_tag import TAGS, tag_prompts
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.router import POOL_FIELDS, Router
from costroute_rt.routing.tagged_encoder import TaggedEncoder, find_sentence_encoder, load_encoder
from tests.small_network import open_encoder, write_encoder
from tests.small_router import PROMPTS, make_router

POOL = tuple(dict.fromkeys(POOL_FIELDS, 1.0) | {"name": name} for name in ("one", "two"))


def test_tags_follow_the_other_features() -> None:
    prompts, inner = ["two red cups", "a lake"], HashedEncoder(64)
    encoder = TaggedEncoder(inner, weight=0.5)
    features = encoder.encode(prompts)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, :64], inner.encode(prompts))
    np.testing.assert_array_equal(features[:, 64:], 0.5 * tag_prompts(prompts))


def test_states_are_passed_on() -> None:
    states = TextStates(np.ones((1, 3, 4), dtype=np.float32), np.array([2]))
    encoder = TaggedEncoder(StatesEncoder(4))
    assert encoder.needs_states
    assert encoder.encode(["a lake"], states).shape == (1, 8 + len(TAGS))


def test_an_encoder_with_tags_is_restored_from_its_settings(tmp_path: Path) -> None:
    plain = TaggedEncoder(HashedEncoder(64, (1,)), 0.25, ("colours", "negations"))
    assert load_encoder(plain.to_json()) == plain
    write_encoder(tmp_path)
    sentence = open_encoder(tmp_path)
    tagged = TaggedEncoder(sentence)
    assert load_encoder(tagged.to_json(), tmp_path) == tagged
    assert tagged.networks == sentence.networks
    assert find_sentence_encoder(tagged) is sentence
    assert find_sentence_encoder(plain) is None


@pytest.mark.parametrize("change", [{"tags": ["colours", "humour"]}, {"tags": []}, {"tags": ["colours", "colours"]}, {"weight": 0.0}])
def test_tags_that_this_version_does_not_know_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        load_encoder({**TaggedEncoder(HashedEncoder(64)).to_json(), **change})


@pytest.mark.parametrize("change", [{"tags": [1]}, {"weight": "1"}, {"inner": {"kind": "tagged"}}, {"tags": None}])
def test_damaged_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        load_encoder({**TaggedEncoder(HashedEncoder(64)).to_json(), **change})


def test_a_router_with_tags_is_the_same_after_loading(tmp_path: Path) -> None:
    plain = make_router(POOL)
    encoder = TaggedEncoder(plain.encoder, weight=0.5)
    reduction = Reduction.fit(encoder.encode(PROMPTS), 8)
    features = reduction.apply(encoder.encode(PROMPTS)).astype(np.float16).astype(np.float32)
    knn = Knn.fit(features, np.random.default_rng(0).random((len(PROMPTS), len(POOL))), np.ones((len(PROMPTS), len(POOL))))
    router = replace(plain, encoder=encoder, reduction=reduction, features=features, estimator=knn)
    router.save(tmp_path)
    again = Router.load(tmp_path)
    assert again.encoder == encoder
    for prompt in ("two red cups", "no cup"):
        np.testing.assert_allclose(again.judge(prompt, None).mean, router.judge(prompt, None).mean, rtol=1e-6)
