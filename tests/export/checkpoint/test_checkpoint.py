"""Export of a checkpoint as a bundle: the graphs compute the same as torch, and every weight is stored once."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError, OutputError
from tests.export.conftest import Exported
from tests.export.small_checkpoint import TOKENS, make_recipe, needs_export

pytestmark = needs_export

STATES = "text_encoder.last_hidden_state"
ROW_PLAIN = (1.0, 999.0, 3.5, 1.0, -0.5, 0.4, 0.6, 0.0, 0.0)
ROW_FULL = (0.7, 37.25, 3.5, 0.9, -0.3, 0.2, 1.1, -0.35, 0.6)


def open_session(path: Path, optimised: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(bundle: Bundle, component: str, graph: str, **feeds: Any) -> Any:
    session = open_session(bundle.path(bundle.graph_path(component, graph)))
    return session.run(None, {name: np.asarray(value) for name, value in feeds.items()})


def run_step(bundle: Bundle, component: str, graph: str, states: Any, *, row: Any, latent: Any, **feeds: Any) -> Any:
    """Run the condition graph, then the step with its outputs, as a generation does; nothing is carried. Returns the next latent and D."""
    session = open_session(bundle.path(bundle.graph_path(component, "condition")))
    names = [value.name for value in session.get_outputs()]
    conditions = dict(zip(names, session.run(names, {STATES: states}), strict=True))
    taken = bundle.graphs[bundle.graph_path(component, graph)].inputs
    given = {STATES: states, **conditions}
    feeds |= {"latent": latent, "row": np.append(row, np.zeros(5, np.float32)), "carried": np.zeros_like(latent)}
    return run(bundle, component, graph, **feeds, **{name: value for name, value in given.items() if name in taken})[:2]


def noise(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def load_unet(exported: Exported, folder: str) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(exported.bundle.root, subfolder=folder).float().eval()


def denoise(unet: Any, sample: Any, timestep: float, states: Any) -> Any:
    """The torch denoiser, as float64."""
    import torch

    with torch.no_grad():
        return unet(torch.from_numpy(sample), timestep, torch.from_numpy(states)).sample.double().numpy()


@pytest.mark.parametrize(("component", "folder"), [("base", "unet"), ("small", "unet_small")])
def test_the_denoiser_inside_a_step_equals_diffusers(exported: Exported, component: str, folder: str) -> None:
    unet, states = load_unet(exported, folder), noise(2, 2, TOKENS, 32)
    for batch, timestep in ((1, 999.0), (3, 37.25)):
        sample, zeros = noise(1, batch, 16, 16, 16), np.zeros((batch, 16, 16, 16), np.float32)
        row = np.float32((1, timestep, 1, 0, 1, 0, 0, 0, 0))  # D is the denoiser's output for the positive prompt
        _, found = run_step(exported.bundle, component, "guided_step", states, latent=sample, denoised_before=zeros, noise=zeros, row=row)
        np.testing.assert_allclose(found, denoise(unet, sample, timestep, states[[1] * batch]), atol=1e-4)


@pytest.mark.parametrize("row", [ROW_PLAIN, ROW_FULL], ids=["plain", "full"])
def test_guided_step_computes_denoiser_guidance_and_row(exported: Exported, row: tuple[float, ...]) -> None:
    unet = load_unet(exported, "unet")
    scale, timestep, guidance, p, q, a, b, c, s = row
    latent, before, fresh = (noise(seed, 2, 16, 16, 12) for seed in (3, 4, 5))
    states = noise(6, 2, TOKENS, 32)
    after, denoised = run_step(
        exported.bundle, "base", "guided_step", states, latent=latent, denoised_before=before, noise=fresh, row=np.float32(row)
    )
    m_neg, m_pos = (denoise(unet, np.float32(scale) * latent, timestep, states[[index, index]]) for index in (0, 1))
    expected = p * latent.astype(np.float64) + q * (m_neg + guidance * (m_pos - m_neg))
    np.testing.assert_allclose(denoised, expected, atol=1e-4)
    np.testing.assert_allclose(after, a * latent.astype(np.float64) + b * expected + c * before + s * fresh, atol=1e-4)


def test_step_computes_denoiser_and_row(exported: Exported) -> None:
    scale, timestep, _, p, q, a, b, c, s = ROW_FULL
    latent, before, fresh, states = (*(noise(seed, 2, 16, 16, 16) for seed in (3, 4, 5)), noise(6, 1, TOKENS, 32))
    after, denoised = run_step(
        exported.bundle, "turbo", "step", states, latent=latent, denoised_before=before, noise=fresh, row=np.float32(ROW_FULL)
    )
    guided = denoise(load_unet(exported, "unet_turbo"), np.float32(scale) * latent, timestep, states.repeat(2, 0))
    expected = p * latent.astype(np.float64) + q * guided
    np.testing.assert_allclose(denoised, expected, atol=1e-4)
    np.testing.assert_allclose(after, a * latent.astype(np.float64) + b * expected + c * before + s * fresh, atol=1e-4)


def test_decode_equals_the_vae_and_diffusers_postprocessing(exported: Exported) -> None:
    import torch

    pipeline = exported.pipeline
    latent = noise(7, 2, 16, 8, 6)
    (found,) = run(exported.bundle, "vae", "decode", latent=latent)
    with torch.no_grad():
        image = pipeline.vae.decode(torch.from_numpy(latent) / pipeline.vae.config.scaling_factor).sample
    expected = np.rint(pipeline.image_processor.postprocess(image, output_type="np") * 255)
    assert found.dtype == np.uint8
    assert found.shape == (2, 128, 96, 3)
    assert len(np.unique(found)) > 20
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_encode_gives_the_mean_of_the_vae_encoder_scaled_as_the_pipeline_does(exported: Exported) -> None:
    import torch

    vae = exported.pipeline.vae
    pixels = np.random.default_rng(8).integers(0, 256, (1, 128, 96, 3), dtype=np.uint8)
    (found,) = run(exported.bundle, "vae", "encode", pixels=pixels)
    with torch.no_grad():
        image = exported.pipeline.image_processor.preprocess(pixels.astype(np.float32) / 255)
        expected = vae.encode(image).latent_dist.mode() * vae.config.scaling_factor
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_the_text_encoder_outputs_the_states_of_the_pipeline(exported: Exported) -> None:
    import torch

    prompts = ["the red cat's", "", "a very long prompt " * 40]
    ids = exported.pipeline.tokenizer(prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="np").input_ids
    outputs = run(exported.bundle, "text_encoder", "encode", input_ids=ids.astype(np.int64))
    with torch.no_grad():
        expected = exported.pipeline.text_encoder(torch.from_numpy(ids))[0].numpy()
    assert len(outputs) == 1
    np.testing.assert_allclose(outputs[0], expected, atol=1e-4)


def test_every_graph_loads_and_all_casts_of_weights_are_folded(exported: Exported, tmp_path: Path) -> None:
    import onnx

    for name in exported.bundle.graphs:
        open_session(exported.bundle.path(name), tmp_path / "optimised.onnx")
        graph = onnx.load(tmp_path / "optimised.onnx").graph
        half = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
        assert not half, name
        constants = {tensor.name for tensor in graph.initializer}
        assert not [node.op_type for node in graph.node if node.op_type in ("Cast", "Transpose") and constants & set(node.input)], name


def test_weights_are_stored_once(exported: Exported) -> None:
    import onnx

    bundle = exported.bundle
    parameters = 0
    for path in exported.checkpoint.rglob("*.safetensors"):
        parameters += path.stat().st_size // 4
    stored = sum(entry.bytes for name, entry in bundle.files.items() if name.endswith(".safetensors"))
    assert stored < 2 * parameters * 1.02
    for name in bundle.graphs:
        model = onnx.load(bundle.path(name), load_external_data=False)
        inline = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        assert inline < 20_000, name


def test_the_manifest_describes_the_exported_files(exported: Exported) -> None:
    bundle = exported.bundle
    assert {name: component.role for name, component in bundle.components.items()} == {
        "text_encoder": "text_encoder", "base": "denoiser", "small": "denoiser", "turbo": "denoiser", "vae": "decoder",
    }  # fmt: skip
    assert set(bundle.components["base"].graphs) == {"condition", "guided_step"}
    assert set(bundle.components["turbo"].graphs) == {"condition", "step"}
    assert (bundle.image.height, bundle.image.width, bundle.image.vae_scale_factor, bundle.image.latent_channels) == (256, 256, 16, 16)
    assert bundle.tokenizers["tokenizer"].max_length == TOKENS
    assert bundle.schedulers["default"]["_class_name"] == "DPMSolverMultistepScheduler"
    assert bundle.schedulers["default"]["use_flow_sigmas"] is True
    assert bundle.graphs["unet/condition.onnx"].inputs[STATES].shape == ("rows", "sequence_length", 32)
    step, condition = bundle.graphs["unet/guided_step.onnx"].inputs, bundle.graphs["unet/condition.onnx"].outputs
    assert {(2, *spec.shape[1:]) == step[name].shape for name, spec in condition.items()} == {True}
    assert bundle.preview is not None
    for name, entry in bundle.files.items():
        assert hashlib.sha256(bundle.path(name).read_bytes()).hexdigest() == entry.sha256
    found = {path.relative_to(bundle.root).as_posix() for path in bundle.root.rglob("*") if path.is_file()}
    assert found == {*bundle.files, "manifest.json", "manifest.sha256"}


def test_no_file_contains_the_path_of_the_checkpoint(exported: Exported) -> None:
    place = str(exported.checkpoint.parent).encode()
    for name in exported.bundle.files:
        content = exported.bundle.path(name).read_bytes()
        assert place not in content, name
        assert b"site-packages" not in content, name


def test_diffusers_makes_an_image_from_the_bundle(exported: Exported) -> None:
    import torch

    pipeline = exported.pipeline
    pipeline.set_progress_bar_config(disable=True)
    config = json.loads((exported.bundle.root / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    assert pipeline.scheduler.config["flow_shift"] == config["flow_shift"] == 3.0
    image = pipeline("a cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert image.shape == (1, 256, 256, 3)


def test_an_existing_target_is_not_overwritten(exported: Exported, tmp_path: Path) -> None:
    from costroute_rt.export.checkpoint.checkpoint import export_bundle

    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        export_bundle(exported.checkpoint, tmp_path / "bundle", make_recipe())


@pytest.mark.parametrize("stop_at", ["text encoder", "manifest"])
def test_an_interrupted_export_changes_nothing(exported: Exported, tmp_path: Path, stop_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt.export.checkpoint import checkpoint

    def progress(name: str, index: int, total: int) -> None:
        if name == stop_at:
            raise KeyboardInterrupt

    for part in ("text_encoder", "denoiser", "decoder", "tokenizer", "extras"):
        monkeypatch.setattr(checkpoint._Export, part, lambda self, *name: None)
    kept = Path(shutil.copytree(exported.bundle.root, tmp_path / "bundle"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        checkpoint.export_bundle(exported.checkpoint, kept, make_recipe(), overwrite=True, progress=progress)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [kept]


def test_directories_that_are_not_checkpoints_are_refused(tmp_path: Path) -> None:
    from costroute_rt.export.checkpoint.checkpoint import find_denoisers

    with pytest.raises(BundleError, match=r"no model_index\.json"):
        find_denoisers(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}', encoding="utf-8")
    with pytest.raises(BundleError, match="holds a FluxPipeline"):
        find_denoisers(tmp_path)


def test_a_further_decoder_becomes_a_component_that_candidates_can_use(exported: Exported, tmp_path: Path) -> None:
    from costroute_rt.export.checkpoint.checkpoint import check_export, export_bundle
    from costroute_rt.export.decoder import export_decoder
    from costroute_rt.export.postcard.tiny_decoder import TinyDecoder

    checkpoint, recipe = tmp_path / "checkpoint", make_recipe()
    shutil.copytree(exported.checkpoint, checkpoint)
    rows = (*recipe.pool, dict(recipe.pool[0]) | {"name": "turbo@2-tiny", "decoder": "tiny"})
    quality = {"metric": "none", "candidates": {row["name"]: {"mean": 0.5, "standard_error": 0.1} for row in rows}}
    with pytest.raises(BundleError, match="tiny"):
        check_export(checkpoint, make_recipe(pool=rows, quality=quality))

    network = TinyDecoder(widths=(12, 8), blocks=(1, 0), patch=8)
    export_decoder(network, checkpoint / "tiny", latent_channels=16, cells=16)
    bundle = Bundle.open(export_bundle(checkpoint, tmp_path / "bundle", make_recipe(pool=rows, quality=quality)))
    latent = noise(7, 1, 16, 16, 16)
    (found,) = run(bundle, "tiny", "decode", latent=latent)
    assert found.shape == (1, 256, 256, 3)
    assert np.array_equal(found, open_session(checkpoint / "tiny" / "decode.onnx").run(None, {"latent": latent})[0])
    assert [each["decoder"] for each in bundle.pool] == ["vae", "vae", "vae", "tiny"]
    kept = exported.bundle.graph_path("vae", "decode")
    assert bundle.files[kept] == exported.bundle.files[kept]
