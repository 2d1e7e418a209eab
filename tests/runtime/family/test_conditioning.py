"""Conditioning: the order of rows, what is cut, and which negative prompts are remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costroute_rt.call import Call, Stage
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import IMAGE_SIZE
from costroute_rt.family.conditioning import Encodings, StatesSource, stack_rows, text_states, tokenize
from costroute_rt.family.family import open_tokenizers

KEPT = 32


def fill(encodings: Encodings, texts: range, made: list[str] | None = None) -> None:
    """Ask for these texts, noting in `made` those that had to be encoded."""

    def make(text: str) -> dict[str, Any]:
        (made if made is not None else []).append(text)
        return {"encoder.states": np.zeros(1)}

    for text in map(str, texts):
        encodings.get(("family", "encoder", text), lambda text=text: make(text))  # type: ignore[misc]


def test_the_negative_prompt_not_used_for_longest_is_forgotten() -> None:
    encodings, made = Encodings(), list[str]()
    fill(encodings, range(KEPT))
    fill(encodings, range(1), made)  # the first made is used again
    fill(encodings, range(KEPT, KEPT + 1))
    assert made == []
    kept = {text for text in range(KEPT + 1) if ("family", "encoder", str(text)) in encodings}
    assert kept == {*range(KEPT + 1)} - {1}


def test_an_encoding_belongs_to_its_family_encoder_and_text() -> None:
    encodings = Encodings()
    keys = [("a", "one", "snow"), ("b", "one", "snow"), ("a", "two", "snow"), ("a", "one", "rain")]
    for index, key in enumerate(keys):
        assert key not in encodings
        encodings.get(key, lambda index=index: {"states": np.array([index])})  # type: ignore[misc]
    assert [int(encodings.get(key, dict)["states"][0]) for key in keys] == [0, 1, 2, 3]


@pytest.mark.parametrize("guided", [True, False])
def test_rows_are_the_negative_prompt_then_the_prompt_and_the_size_has_none(guided: bool) -> None:
    positive, negative = {"e.states": np.array([[1.0]]), "e.other": np.array([[3.0]])}, {"e.states": np.array([[2.0]])}
    stacked = stack_rows(positive, negative if guided else None, ("e.states", IMAGE_SIZE), (96, 64))
    assert stacked.keys() == {"e.states", IMAGE_SIZE}
    assert stacked["e.states"].tolist() == ([[2.0], [1.0]] if guided else [[1.0]])
    assert stacked[IMAGE_SIZE].tolist() == [96, 64]


@pytest.mark.parametrize("drop", [0, 1])
def test_a_router_reads_the_same_states_whether_padding_is_on_the_left_or_on_the_right(bundle: Bundle, drop: int) -> None:
    found = {}
    source = StatesSource("text_encoder", "text_encoder.states", "tokenizer", Call("tiny/text_encoder/encode", Stage.TEXT))
    for side in ("left", "right"):
        spec = replace(bundle.tokenizers["tokenizer"], pad_side=side, drop=drop)
        padded = replace(bundle, tokenizers={"tokenizer": spec})
        tokenizers = open_tokenizers(padded)
        tokens = tokenize(tokenizers, "a red house", ["tokenizer"])
        ids = tokens["tokenizer"].ids[:, drop:, None].astype(np.float32)
        states = text_states(padded, source, {"text_encoder.states": ids}, tokens, tokenizers)
        found[side] = states.lengths.tolist(), states.states[0, : states.lengths[0], 0].tolist()
    assert found["left"] == found["right"]
    assert found["left"][0] == [5 - drop]
