"""Example inputs of graphs: their shapes, and axes of unknown length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import GraphSpec, TensorSpec
from costroute_rt.error import BundleError
from tests.runtime.two_encoders import DROP, LENGTH, make_bundle
from tests.tiny_bundle import LENGTH as FIRST_LENGTH

GRAPH = "unet/condition.onnx"


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return make_bundle(Bundle.open(tiny_bundle, verify=False))


def with_inputs(bundle: Bundle, **inputs: TensorSpec) -> Bundle:
    return replace(bundle, graphs={**bundle.graphs, GRAPH: GraphSpec(inputs, {})})


def test_an_axis_of_unknown_length_is_an_error_that_names_it(bundle: Bundle) -> None:
    joint = with_inputs(bundle, context=TensorSpec("float32", ("rows", "joint_tokens", 12)))
    with pytest.raises(BundleError, match=r"condition\.onnx: the input context has the axis joint_tokens, .* not known") as caught:
        example_feeds(joint, GRAPH)
    assert "letter_tokens" in str(caught.value)
    assert example_feeds(joint, GRAPH, {"joint_tokens": 5})["context"].shape == (1, 5, 12)


def test_lengths_are_those_of_the_tokenizer_that_the_input_names(bundle: Bundle) -> None:
    spec = TensorSpec("int64", ("rows",))
    feeds = example_feeds(with_inputs(bundle, **{"tokenizer.length": spec, "letters.length": spec}), GRAPH, {"rows": 2})
    found = {name: feed.tolist() for name, feed in feeds.items()}
    assert found == {"tokenizer.length": [FIRST_LENGTH] * 2, "letters.length": [LENGTH - DROP] * 2}
