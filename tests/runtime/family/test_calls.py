"""The engines that candidates call, with order and number of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from costroute_rt.call import Call, Stage
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import Component, GraphSpec, TensorSpec
from costroute_rt.family.calls import candidate_calls, candidate_names, engine_names, image_calls, read_pool, router_calls, states_calls

START, END = "tiny/text_encoder/encode", "tiny/vae/decode"


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def test_the_pool_needs_each_engine_once(bundle: Bundle) -> None:
    assert engine_names(bundle) == [START, "tiny/turbo/step", "tiny/base/condition", "tiny/base/guided_step", END]


def test_a_candidate_needs_its_own_denoiser(bundle: Bundle) -> None:
    names = candidate_names(bundle)
    assert names["tiny-turbo@1"] == [START, "tiny/turbo/step", END]
    assert names["tiny-base@4"] == [START, "tiny/base/condition", "tiny/base/guided_step", END]


def test_image_calls_has_the_candidate_with_fewest_steps_for_each_set_of_engines(bundle: Bundle) -> None:
    assert image_calls(bundle) == {
        "tiny-turbo@1": [(START, 1), ("tiny/turbo/step", 1), (END, 1)],
        "tiny-base@4": [(START, 1), ("tiny/base/condition", 1), ("tiny/base/guided_step", 4), (END, 1)],
    }


def test_engines_of_a_router_are_the_last_to_build_and_the_first_to_run(bundle: Bundle) -> None:
    reader = Component(name="reader", role="router_encoder", graphs={"encode": "reader/encode.onnx"})
    routed = replace(bundle, components={"reader": reader, **bundle.components}, router={"file": "router/router.json"})
    assert router_calls(routed) == (Call("tiny/reader/encode", Stage.ROUTE),)
    assert engine_names(routed) == [*engine_names(bundle), "tiny/reader/encode"]
    assert candidate_names(routed)["tiny-turbo@1"] == ["tiny/reader/encode", START, "tiny/turbo/step", END]
    assert {calls[0] for calls in image_calls(routed).values()} == {("tiny/reader/encode", 1)}
    assert router_calls(replace(routed, router=None)) == ()


def test_a_scheduler_s_rows_are_runs_of_the_denoiser_and_texts_are_rows_of_the_condition(bundle: Bundle) -> None:
    turbo, base = (next(each for each in read_pool(bundle) if each.denoiser == name) for name in ("turbo", "base"))
    assert [call.times for call in candidate_calls(bundle, base, rows=7)] == [1, 1, 7, 1]
    assert [call.rows for call in candidate_calls(bundle, base)] == [1, 2, 1, 1]
    assert [call.rows for call in candidate_calls(bundle, replace(base, guidance_scale=1.0, is_guided=False))] == [1, 1, 1, 1]
    assert [call.times for call in candidate_calls(bundle, turbo)] == [1, 1, 1]


def rename_states(bundle: Bundle, component: str, output: str) -> Bundle:
    """The bundle with other names of the text encoder and its output."""
    names = {"text_encoder.last_hidden_state": f"{component}.{output}", "last_hidden_state": output}

    def rename(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {names.get(name, name): spec for name, spec in specs.items()}

    graphs = {path: GraphSpec(rename(graph.inputs), rename(graph.outputs)) for path, graph in bundle.graphs.items()}
    encoder = replace(bundle.components["text_encoder"], name=component)
    others = {name: each for name, each in bundle.components.items() if name != "text_encoder"}
    return replace(bundle, components={component: encoder, **others}, graphs=graphs)


@pytest.mark.parametrize(("component", "output"), [("text_encoder", "hidden_states.1"), ("text.encoder", "states"), ("a.b", "c.d")])
def test_names_of_text_encoders_and_their_outputs_may_have_dots(bundle: Bundle, component: str, output: str) -> None:
    renamed = rename_states(bundle, component, output)
    engine = f"tiny/{component}/encode"
    assert all(names[0] == engine for names in candidate_names(renamed).values())
    assert states_calls(replace(renamed, router={"states": f"{component}.{output}"})) == (Call(engine, Stage.TEXT),)


def test_a_router_s_text_encoder_that_no_candidate_uses_is_an_engine_too(bundle: Bundle) -> None:
    more = {**bundle.components, "another": replace(bundle.components["text_encoder"], name="another")}
    routed = replace(bundle, components=more, router={"states": "another.last_hidden_state"})
    assert engine_names(routed) == [*engine_names(bundle), "tiny/another/encode"]
    assert candidate_names(routed)["tiny-turbo@1"] == ["tiny/another/encode", START, "tiny/turbo/step", END]
    assert states_calls(replace(routed, router={"file": "router/router.json"})) == ()
