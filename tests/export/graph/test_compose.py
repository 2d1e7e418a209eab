"""Composition of graphs around components that are small enough to check by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.error import BundleError
from costroute_rt.export.graph.compose import (
    compose_condition,
    compose_decode,
    compose_embedding,
    compose_guided_step,
    compose_step,
    keep_outputs,
    save_graph,
    strip_notes,
)
from costroute_rt.export.graph.condition import find_crossing, fold_quotients

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx, which is missing: pip install costroute-rt[export]")
ort = pytest.importorskip("onnxruntime", reason="graphs are run by ONNX Runtime, which is missing: pip install costroute-rt[export]")

SCALE = 3.5
ROWS = {
    "plain": (1.0, 999.0, SCALE, 1.0, -0.5, 0.4, 0.6, 0.0, 0.0),
    "history": (0.7, 37.25, SCALE, 0.9, -0.3, 0.2, 1.1, -0.35, 0.0),
    "noise": (0.25, 3.0, SCALE, 0.1, 0.8, 0.5, 0.25, 0.125, 0.6),
}
MEMORY = (0.3, -0.2, 0.7, 0.15, 0.9)
STATES = "text_encoder.last_hidden_state"
SOURCES = {"encoder_hidden_states": STATES, "text_embeds": "text_encoder_2.pooled", "time_ids": "sizes.ids"}


def make_denoiser(timestep: str = "float[]", extra: tuple[str, ...] = (), opset: int = 18) -> Any:
    """out = conv(sample) + timestep / 1000 * sample + sum over tokens of the text states (one per channel) [+ row sums of other inputs]."""
    inputs = "".join(f", float[batch_size, 3] {name}" for name in extra)
    added = "".join(
        f"""
            sum_{name} = ReduceSum <keepdims = 0> ({name}, second)
            column_{name} = Reshape (sum_{name}, column)
            out_{index + 1} = Add (out_{index}, column_{name})
        """
        for index, name in enumerate(extra)
    )
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        denoiser (float[batch_size, 2, height, width] sample, {timestep} timestep,
                  float[batch_size, tokens, 2] encoder_hidden_states{inputs})
            => (float[batch_size, 2, height, width] out_sample)
        <float[2, 2, 1, 1] weight = {{0.5, -0.25, 0.125, 1.0}},
         int64[2] axes = {{2, 3}}, int64[1] second = {{1}}, int64[4] column = {{-1, 1, 1, 1}}>
        {{
            row = Conv (sample, weight)
            time = Cast <to = 1> (timestep)
            thousand = Constant <value_float = 1000.0> ()
            time_unit = Div (time, thousand)
            time_column = Reshape (time_unit, column)
            timed = Mul (sample, time_column)
            summed = ReduceSum <keepdims = 0> (encoder_hidden_states, second)
            text = Unsqueeze (summed, axes)
            with_time = Add (row, timed)
            out_0 = Add (with_time, text)
            {added}
            out_sample = Identity (out_{len(extra)})
        }}
    """)


def denoise(sample: Any, timestep: float, text: Any, extra: Any = 0.0) -> Any:
    """`make_denoiser` in float64."""
    weight = np.array([[0.5, -0.25], [0.125, 1.0]])
    mixed = np.einsum("oc,bchw->bohw", weight, sample.astype(np.float64))
    return mixed + timestep / 1000 * sample + text.astype(np.float64).sum(1)[:, :, None, None] + extra


def advance(row: Any, latent: Any, before: Any, noise: Any, guided: Any) -> tuple[Any, Any]:
    _, _, _, p, q, a, b, c, s = row
    denoised = p * latent + q * guided
    return a * latent + b * denoised + c * before + s * noise, denoised


def run(model: Any, folder: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    path = folder / "graph.onnx"
    save_graph(model, path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {key: np.asarray(value) for key, value in feeds.items()}), strict=True))


def latents(batch: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((batch, 2, 3, 4)).astype(np.float32) for name in ("latent", "denoised_before", "noise")}


def texts(rows: int) -> Any:
    return np.random.default_rng(7).standard_normal((rows, 5, 2)).astype(np.float32)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("batch", [1, 3])
def test_guided_step_computes_denoiser_guidance_and_row(row: tuple[float, ...], batch: int, tmp_path: Path) -> None:
    feeds = latents(batch) | {"row": np.float32(row), STATES: texts(2)}
    found = run(compose_guided_step(make_denoiser(), SOURCES), tmp_path, feeds)

    x, negative, positive = feeds["latent"], texts(2)[:1], texts(2)[1:]
    m_neg, m_pos = denoise(row[0] * x, row[1], negative), denoise(row[0] * x, row[1], positive)
    after, denoised = advance(row, x, feeds["denoised_before"], feeds["noise"], m_neg + SCALE * (m_pos - m_neg))
    np.testing.assert_allclose(found["denoised"], denoised, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["next_latent"], after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("opset", [13, 18])
def test_step_computes_denoiser_and_row(row: tuple[float, ...], opset: int, tmp_path: Path) -> None:
    feeds = latents(2) | {"row": np.float32(row), STATES: texts(1)}
    found = run(compose_step(make_denoiser(opset=opset), SOURCES), tmp_path, feeds)

    guided = denoise(row[0] * feeds["latent"], row[1], texts(1))
    after, denoised = advance(row, feeds["latent"], feeds["denoised_before"], feeds["noise"], guided)
    np.testing.assert_allclose(found["denoised"], denoised, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["next_latent"], after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("compose", "rows"), [(compose_step, 1), (compose_guided_step, 2)])
def test_a_step_with_memory_carries_a_latent(compose: Any, rows: int, tmp_path: Path) -> None:
    carried = np.random.default_rng(9).standard_normal((2, 2, 3, 4)).astype(np.float32)
    feeds = latents(2) | {"row": np.float32(ROWS["noise"]), STATES: texts(rows)}
    plain = run(compose(make_denoiser(), SOURCES), tmp_path, feeds)
    row = np.float32((*ROWS["noise"], *MEMORY))
    found = run(compose(make_denoiser(), SOURCES, memory=True), tmp_path, feeds | {"row": row, "carried": carried})
    e, f, g, h, k = MEMORY
    np.testing.assert_allclose(found["denoised"], plain["denoised"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["next_latent"], plain["next_latent"] + e * carried, rtol=1e-5, atol=1e-5)
    kept = f * feeds["latent"] + g * plain["denoised"] + h * feeds["denoised_before"] + k * carried
    np.testing.assert_allclose(found["next_carried"], kept, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescaled_guidance_has_the_deviation_of_the_prompt_s_output(phi: float, opset: int, tmp_path: Path) -> None:
    """As diffusers' rescale_noise_cfg, per image."""
    row = ROWS["plain"]
    feeds = latents(3) | {"row": np.float32(row), STATES: texts(2), "guidance_rescale": np.float32([phi])}
    found = run(compose_guided_step(make_denoiser(opset=opset), SOURCES, rescale=True), tmp_path, feeds)
    x = feeds["latent"]
    m_neg, m_pos = denoise(row[0] * x, row[1], texts(2)[:1]), denoise(row[0] * x, row[1], texts(2)[1:])
    guided = m_neg + SCALE * (m_pos - m_neg)
    deviations = [each.std(axis=(1, 2, 3), keepdims=True) for each in (m_pos, guided)]
    rescaled = phi * guided * deviations[0] / deviations[1] + (1 - phi) * guided
    _, denoised = advance(row, x, feeds["denoised_before"], feeds["noise"], rescaled)
    np.testing.assert_allclose(found["denoised"], denoised, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("timestep", ["int64[]", "int64[1]", "float[batch_size]", "double[1]"])
def test_the_timestep_has_the_dtype_and_shape_of_the_denoisers_input(timestep: str, tmp_path: Path) -> None:
    row = ROWS["plain"]
    feeds = latents(2) | {"row": np.float32(row), STATES: texts(2)}
    found = run(compose_guided_step(make_denoiser(timestep), SOURCES), tmp_path, feeds)
    reference = run(compose_guided_step(make_denoiser(), SOURCES), tmp_path, feeds)
    np.testing.assert_allclose(found["denoised"], reference["denoised"], rtol=1e-6)


def test_other_conditioning_inputs_are_passed_on_row_by_row(tmp_path: Path) -> None:
    row = ROWS["history"]
    denoiser = make_denoiser(extra=("text_embeds", "time_ids"))
    model = compose_guided_step(denoiser, SOURCES)
    assert [graph_spec(model).inputs[SOURCES[name]].shape for name in ("text_embeds", "time_ids")] == [(2, 3), (2, 3)]

    embeds, ids = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), dtype=np.float32) / 8
    feeds = latents(3) | {
        "row": np.float32(row),
        STATES: texts(2),
        SOURCES["text_embeds"]: embeds,
        SOURCES["time_ids"]: ids,
    }
    found = run(model, tmp_path, feeds)
    added = embeds.sum(1) + ids.sum(1)
    m_neg, m_pos = (denoise(row[0] * feeds["latent"], row[1], texts(2)[i : i + 1], added[i]) for i in range(2))
    _, denoised = advance(row, feeds["latent"], feeds["denoised_before"], feeds["noise"], m_neg + SCALE * (m_pos - m_neg))
    np.testing.assert_allclose(found["denoised"], denoised, rtol=1e-5, atol=1e-5)


def test_names_inside_the_component_do_not_collide() -> None:
    """`make_denoiser` has a tensor called `row`, as the composed graph has an input."""
    spec = graph_spec(compose_guided_step(make_denoiser(), SOURCES))
    assert list(spec.inputs) == ["latent", "denoised_before", "noise", "row", STATES]
    assert spec.inputs["latent"].shape == ("batch", 2, "height", "width")
    assert spec.inputs[STATES].shape == (2, "tokens", 2)
    assert list(spec.outputs) == ["next_latent", "denoised"]


def make_attention_denoiser() -> Any:
    """out = attention of the pixels on the text, with two heads folded into the rows, + projected mean of the text + timestep * sample."""
    folded = "".join(
        f"""
            {name}_split = Reshape ({name}, split_shape)
            {name}_heads = Transpose <perm = [0, 2, 1, 3]> ({name}_split)
            {name}_folded = Reshape ({name}_heads, folded_shape)
        """
        for name in ("keys", "values", "queries")
    )
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        denoiser (float[batch_size, 2, height, width] sample, float[] timestep, float[batch_size, tokens, 2] encoder_hidden_states)
            => (float[batch_size, 2, height, width] out_sample)
        <int64[1] rest = {{-1}}, int64[1] zero = {{0}},
         int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}}, int64[2] sides = {{2, 3}},
         int64 last = {{-1}}, int64 heads = {{2}}>
        {{
            text_shape = Shape (encoder_hidden_states)
            rows = Gather (text_shape, zero)
            flat_shape = Concat <axis = 0> (rows, two, rest)
            flat = Reshape (sample, flat_shape)
            pixels = Transpose <perm = [0, 2, 1]> (flat)
            keys = MatMul (encoder_hidden_states, to_keys)
            values = MatMul (encoder_hidden_states, to_values)
            queries = MatMul (pixels, to_queries)
            twice = Mul (rows, two)
            keys_shape = Shape (keys)
            keys_width = Gather (keys_shape, last)
            head_width = Div (keys_width, heads)
            head = Unsqueeze (head_width, zero)
            split_shape = Concat <axis = 0> (rows, rest, two, head)
            folded_shape = Concat <axis = 0> (twice, rest, two)
            {folded}
            keys_turned = Transpose <perm = [0, 2, 1]> (keys_folded)
            scores = MatMul (queries_folded, keys_turned)
            weights = Softmax <axis = -1> (scores)
            mixed = MatMul (weights, values_folded)
            heads_shape = Concat <axis = 0> (rows, two, rest, two)
            mixed_heads = Reshape (mixed, heads_shape)
            mixed_split = Transpose <perm = [0, 2, 1, 3]> (mixed_heads)
            joined_shape = Concat <axis = 0> (rows, rest, four)
            joined = Reshape (mixed_split, joined_shape)
            projected = MatMul (joined, to_out)
            planes = Transpose <perm = [0, 2, 1]> (projected)
            sample_shape = Shape (sample)
            attended = Reshape (planes, sample_shape)
            mean = ReduceMean <keepdims = 0> (encoder_hidden_states, one)
            pooled = MatMul (mean, to_pool)
            pooled_column = Unsqueeze (pooled, sides)
            with_text = Add (attended, pooled_column)
            timed = Mul (sample, timestep)
            out_sample = Add (with_text, timed)
        }}
    """)
    rng = np.random.default_rng(3)
    for name, shape in {"keys": (2, 4), "values": (2, 4), "queries": (2, 4), "out": (4, 2), "pool": (2, 2)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), f"to_{name}"))
    return model


@pytest.mark.parametrize(("compose", "rows"), [(compose_step, 1), (compose_guided_step, 2)])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("is_folded", [False, True])
def test_a_separate_condition_graph_changes_nothing(compose: Any, rows: int, batch: int, is_folded: bool, tmp_path: Path) -> None:
    denoiser = make_attention_denoiser()
    feeds = latents(batch) | {"row": np.float32(ROWS["noise"])}
    expected = run(compose(denoiser, SOURCES), tmp_path, feeds | {STATES: texts(rows)})

    if is_folded:
        fold_quotients(denoiser)
    crossing = find_crossing(denoiser)
    conditions = run(compose_condition(denoiser, crossing, SOURCES), tmp_path, {STATES: texts(rows)})
    step = compose(denoiser, SOURCES, crossing)
    given = {STATES: texts(rows), **conditions}
    found = run(step, tmp_path, feeds | {name: given[name] for name in graph_spec(step).inputs if name in given})
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_steps_do_not_contain_the_nodes_of_the_condition_graph() -> None:
    denoiser = make_attention_denoiser()
    assert "keys_heads" not in find_crossing(denoiser)
    fold_quotients(denoiser)
    crossing = find_crossing(denoiser)
    assert {name: spec.shape for name, spec in crossing.items()} == {
        "keys_heads": ("rows", 2, "tokens", 2),
        "values_heads": ("rows", 2, "tokens", 2),
        "pooled_column": ("rows", 2, 1, 1),
    }
    condition, step = compose_condition(denoiser, crossing, SOURCES), compose_guided_step(denoiser, SOURCES, crossing)
    products = [[node.input[1] for node in model.graph.node if node.op_type == "MatMul"] for model in (condition, step)]
    assert products[0] == ["net/to_keys", "net/to_values", "net/to_pool"]
    assert products[1] == ["net/to_queries", "net/keys_turned", "net/values_folded", "net/to_out"]
    constants = [{tensor.name for tensor in model.graph.initializer if tensor.name.startswith("net/to_")} for model in (condition, step)]
    assert constants == [set(products[0]), {"net/to_queries", "net/to_out"}]
    assert list(graph_spec(condition).inputs) == [STATES]
    assert list(graph_spec(condition).outputs) == ["condition_0", "condition_1", "condition_2"]
    assert graph_spec(condition).outputs["condition_0"].shape == ("rows", 2, "tokens", 2)
    assert graph_spec(step).inputs["condition_0"].shape == (2, 2, "tokens", 2)


def test_steps_do_not_take_sources_that_only_the_condition_graph_reads() -> None:
    denoiser = make_denoiser(extra=("text_embeds",))
    crossing = find_crossing(denoiser)
    assert list(crossing) == ["text", "column_text_embeds"]
    assert list(graph_spec(compose_condition(denoiser, crossing, SOURCES)).inputs) == [STATES, SOURCES["text_embeds"]]
    assert list(graph_spec(compose_step(denoiser, SOURCES, crossing)).inputs) == [
        "latent", "denoised_before", "noise", "row", "condition_0", "condition_1",
    ]  # fmt: skip


def test_denoisers_without_a_separable_part_have_no_crossing() -> None:
    mixed = make_attention_denoiser()
    for node in mixed.graph.node:  # the text is mixed with the timestep before any node that reads it alone
        node.input[:] = ["met" if name == "encoder_hidden_states" else name for name in node.input]
    mixed.graph.node.insert(0, onnx.helper.make_node("Mul", ["encoder_hidden_states", "timestep"], ["met"]))
    assert find_crossing(mixed) == {}

    branching = make_denoiser()
    branch = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["sample"], ["x"])], "branch", [], [])
    branching.graph.node.append(onnx.helper.make_node("If", ["summed"], ["y"], then_branch=branch, else_branch=branch))
    assert find_crossing(branching) == {}


@pytest.mark.parametrize("per_channel", [False, True])
def test_decode_scales_the_latent_and_rounds_pixels(per_channel: bool, tmp_path: Path) -> None:
    scale, shift = (np.array([2.0, 0.5, 1.0]), np.array([0.1, 0.0, -0.1])) if per_channel else (np.float64(1 / 0.18215), np.float64(0.0))
    decoder = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        decoder (float[batch, 3, h, w] latent_sample) => (float[batch, 3, h2, w2] sample)
        <float[4] scales = {1.0, 1.0, 2.0, 2.0}> { sample = Resize <mode = "nearest"> (latent_sample, , scales) }
    """)
    latent = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype(np.float32) / 2
    found = run(compose_decode(decoder, scale=scale, shift=shift), tmp_path, {"latent": latent})["pixels"]

    shaped = [np.reshape(value, (-1, 1, 1)) for value in (scale, shift)]
    image = (latent * shaped[0] + shaped[1]).repeat(2, 2).repeat(2, 3).transpose(0, 2, 3, 1)
    expected = np.rint(np.clip(image / 2 + 0.5, 0, 1) * 255)
    assert found.dtype == np.uint8
    assert found.shape == (2, 8, 10, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.99


def test_graphs_that_are_not_denoisers_are_refused() -> None:
    sample = "<ir_version: 8, opset_import: ['' : 18]> g (float[b, 2, h, w] sample) => (float[b, 2, h, w] out) { out = Identity (sample) }"
    with pytest.raises(BundleError, match="timestep"):
        compose_step(onnx.parser.parse_model(sample.replace("'", '"')), SOURCES)
    with pytest.raises(BundleError, match="nothing provides its inputs depth"):
        compose_step(make_denoiser(extra=("depth",)), SOURCES)
    model = make_denoiser()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(BundleError, match="takes 2 channels and outputs 4"):
        compose_step(model, SOURCES)
    with pytest.raises(BundleError, match="opset 12"):
        compose_step(make_denoiser(opset=12), SOURCES)


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    model = make_denoiser()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(BundleError, match="not valid"):
        save_graph(model, tmp_path / "broken.onnx")


def test_outputs_and_debugging_information_can_be_removed() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[n] x) => (float[n] keep, float[n] drop) <float k = {2.0}, float d = {3.0}>
        { middle = Mul (x, k)  keep = Neg (middle)  drop = Mul (middle, d) }
    """)
    model.graph.node[0].doc_string = "/home/somebody/model.py(3)"
    keep_outputs(model, ["keep"])
    strip_notes(model)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Neg"]
    assert [tensor.name for tensor in model.graph.initializer] == ["k"]
    assert b"somebody" not in model.SerializeToString()


def make_encoder(others: str = "", mask: str = "") -> Any:
    """The states of token n are n and n squared; a graph with a mask adds 1 to what it masks."""
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        encoder (int64[batch, tokens] input_ids{others}) => (float[batch, tokens, 2] last_hidden_state)
        <int64[1] last = {{2}}, float one = {{1}}>
        {{
            ids = Cast <to = 1> (input_ids)
            {mask or "own = Identity (ids)"}
            squares = Mul (own, own)
            first = Unsqueeze (own, last)
            second = Unsqueeze (squares, last)
            last_hidden_state = Concat <axis = 2> (first, second)
        }}
    """)


IDS = np.array([[5, 3, 7, 0], [2, 0, 0, 0]])
MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])


def embed(encoder: Any, path: Path, **options: Any) -> np.ndarray:
    model = compose_embedding(encoder, **{"pooling": "mean", "is_normalised": False, **options})
    save_graph(model, path / "encode.onnx")
    assert {name: port.shape for name, port in graph_spec(model).inputs.items()} == dict.fromkeys(
        ("input_ids", "attention_mask"), ("batch", "prompt_tokens")
    )
    assert graph_spec(model).outputs["embedding"].shape == ("batch", 2)
    session = ort.InferenceSession(path / "encode.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embedding"], {"input_ids": IDS, "attention_mask": MASK})[0])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [[5, 83 / 3], [2, 4]]), ("cls", [[5, 25], [2, 4]]), ("last", [[7, 49], [2, 4]])],
)
def test_an_embedding_is_pooled_over_unmasked_tokens(tmp_path: Path, pooling: str, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(embed(make_encoder(), tmp_path, pooling=pooling), expected, rtol=1e-6)


def test_an_embedding_can_be_normalised(tmp_path: Path) -> None:
    found = embed(make_encoder(), tmp_path, pooling="cls", is_normalised=True)
    np.testing.assert_allclose(found, np.array([[5, 25], [2, 4]]) / np.hypot([5, 2], [25, 4])[:, None], rtol=1e-6)


def test_an_encoder_gets_the_mask_and_zeros_as_token_types(tmp_path: Path) -> None:
    others = ", int64[batch, tokens] attention_mask, int64[batch, tokens] token_type_ids"
    mask = "kept = Cast <to = 1> (attention_mask)  kinds = Cast <to = 1> (token_type_ids)  some = Mul (ids, kept)  own = Add (some, kinds)"
    np.testing.assert_allclose(embed(make_encoder(others, mask), tmp_path, pooling="mean"), [[5, 83 / 3], [2, 4]], rtol=1e-6)


def test_an_encoder_without_a_mask_gets_filler_tokens_for_padding(tmp_path: Path) -> None:
    pooled = "largest = ReduceMax <keepdims = 1> (ids)  zero = Mul (ids, largest)  own = Identity (zero)"
    found = embed(make_encoder("", pooled), tmp_path, pooling="last", filler=9)
    np.testing.assert_allclose(found, [[63, 3969], [18, 324]])


def test_a_graph_that_is_not_an_encoder_is_refused() -> None:
    with pytest.raises(BundleError, match="input_ids and attention_mask"):
        compose_embedding(make_encoder(", float[batch] pixels"), pooling="mean", is_normalised=False)
