"""A runtime on fake engines whose family has two text encoders: the second has a template, two outputs, and one of them is pooled.

Its bundle is the tiny one with these changes, in memory. `base` reads both encoders, the pooled output also in each step; `turbo` reads
the first encoder alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import Component, GraphSpec, TensorSpec
from tests.runtime.fakes import FUNCTIONS, POOL, STATES, FakeDevice, encode, open_fake_runtime, step

PENULTIMATE, POOLED = "text_encoder_2.penultimate", "text_encoder_2.pooled"
FIRST, SECOND = ENCODERS = ("twins/text_encoder/encode", "twins/text_encoder_2/encode")
CALL_MS = {
    FIRST: 4.0,
    SECOND: 7.0,
    "twins/turbo/step": 20.0,
    "twins/turbo/guided_step": 40.0,
    "twins/base/condition": 1.0,
    "twins/base/guided_step": 50.0,
    "twins/vae/decode": 10.0,
}
TWINS_POOL = (*POOL, ("guided-turbo@2", "turbo", 2, 3.0, 0.65))
PREFIX, DROP, LENGTH = "a green ", 3, 12
"""Template of the second tokenizer: a start token and two words, which are cut from what the encoder gives."""


def make_bundle(tiny: Bundle, negative_prompt: str = "empty_text") -> Bundle:
    """The tiny bundle as a family of two text encoders."""
    components, graphs = dict(tiny.components), dict(tiny.graphs)
    path = "text_encoder_2/model.onnx"
    components["text_encoder_2"] = Component(
        name="text_encoder_2", role="text_encoder", graphs={"encode": path}, weights=tiny.components["vae"].weights, tokenizer="letters"
    )
    ids, states = TensorSpec("int64", ("rows", "letter_tokens")), TensorSpec("float32", ("rows", "kept_tokens", 2))
    pooled = TensorSpec("float32", ("rows", 3))
    graphs[path] = GraphSpec({"input_ids": ids, "attention_mask": ids}, {"penultimate": states, "pooled": pooled})
    condition, guided = (components["base"].graphs[graph] for graph in ("condition", "guided_step"))
    more = {PENULTIMATE: states, POOLED: pooled, "letters.attention_mask": TensorSpec("int64", ("rows", "kept_tokens"))}
    graphs[condition] = replace(graphs[condition], inputs={**graphs[condition].inputs, **more})
    graphs[guided] = replace(graphs[guided], inputs={**graphs[guided].inputs, POOLED: TensorSpec("float32", (2, 3))})
    letters = replace(tiny.tokenizers["tokenizer"], max_length=LENGTH, prefix=PREFIX, drop=DROP)
    tokenizers = {**tiny.tokenizers, "letters": letters}
    return replace(
        tiny, family="twins", components=components, graphs=graphs, tokenizers=tokenizers, negative_prompt=negative_prompt, router=None
    )


def open_two_encoders(tiny: Bundle, *, negative_prompt: str = "empty_text", **how: Any) -> FakeDevice:
    """A runtime on that bundle; how: as `open_fake_runtime` takes it."""
    how = {"pool": TWINS_POOL, "profile": CALL_MS, "functions": _FUNCTIONS, **how}
    return open_fake_runtime(make_bundle(tiny, negative_prompt), **how)


def _encode_pooled(feeds: Mapping[str, Any]) -> dict[str, Any]:
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    states = np.cos(ids[:, :, None] * np.array([1.0, 0.5])) * mask[:, :, None]
    pooled = states.sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return {"penultimate": states.astype(np.float32), "pooled": np.pad(pooled, ((0, 0), (0, 1))).astype(np.float32)}


def _condition(feeds: Mapping[str, Any]) -> dict[str, Any]:
    kept = feeds[PENULTIMATE].sum(axis=(1, 2)) / feeds["letters.attention_mask"].sum(axis=1)
    return {"condition_0": feeds[STATES].mean(axis=(1, 2)) + kept + feeds[POOLED].mean(axis=1)}


def _guided_step(feeds: Mapping[str, Any]) -> dict[str, Any]:
    text = feeds["condition_0"].reshape(2, -1).mean(axis=1) + feeds[POOLED].sum(axis=1)
    return step({**feeds, "condition_0": text})


_FUNCTIONS = {
    **FUNCTIONS,
    "text_encoder/encode": encode,
    "text_encoder_2/encode": _encode_pooled,
    "base/condition": _condition,
    "base/guided_step": _guided_step,
}
