"""Graphs that are exported without weights, beside diffusers and transformers with the same files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.graph_check import check_graph
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.export.checkpoint.source.opening import open_source
from costroute_rt.export.network.graphs import make_graphs
from tests import checkpoints
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export

Feeds = dict[str, np.ndarray[Any, Any]]
ROW = (0.7, 437.0, 3.5, 0.9, -0.3, 0.2, 1.1, -0.35, 0.6)
PIXELS = (192, 320)
SHAPES = ((1, 8, 8, 77), (3, 9, 14, 154))
"""Images, height and width of the latent, tokens: an odd side is rounded up where it is halved."""


def write(kind: str, path: Path, **options: Any) -> Source:
    make: Callable[..., Path] = getattr(checkpoints, f"write_{kind}_folder")
    return open_source(make(path / kind, **options))


def run(model: Any, folder: Path, feeds: Mapping[str, Any]) -> Feeds:
    """Runs a graph as it is saved in a bundle, after the bundle's own check of it."""
    import onnxruntime

    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    weights = {file.name: file.stat().st_size for file in folder.glob("*.safetensors")}

    def fail_at(name: str) -> Any:
        return lambda problem: pytest.fail(f"{name}: {problem}")

    check_graph(path.name, path.read_bytes(), weights, sum(weights.values()), folder, fail_at, set())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    results = session.run(None, {name: value for name, value in feeds.items() if name in names})
    return dict(zip((value.name for value in session.get_outputs()), results, strict=True))


def make_texts(source: Source, rows: int, tokens: int) -> Feeds:
    """What the text encoders of a model give, as random numbers."""
    rng = np.random.default_rng(7)
    widths = {name: source.networks[name].config["hidden_size"] for name in source.networks if name.startswith("text_encoder")}
    output = "last_hidden_state" if len(widths) == 1 else "penultimate"
    texts = {f"{name}.{output}": rng.standard_normal((rows, tokens, width)).astype("f4") for name, width in widths.items()}
    if len(widths) == 2:
        texts["text_encoder_2.pooled"] = rng.standard_normal((rows, source.networks["text_encoder_2"].config["projection_dim"])).astype(
            "f4"
        )
        texts["image_size"] = np.array(PIXELS)
    return texts


def denoise(unet: Any, sample: Any, texts: Feeds, rows: list[int]) -> Any:
    """The model output as diffusers' pipelines compute it for `sample`, with one row of the texts for each image."""
    import torch
    from diffusers import LatentConsistencyModelPipeline

    tensors = {name: torch.from_numpy(value) for name, value in texts.items()}
    states = torch.cat([value[rows] for name, value in tensors.items() if name.endswith("_state") or name.endswith("penultimate")], -1)
    more: dict[str, Any] = {}
    if "text_encoder_2.pooled" in tensors:
        ids = torch.tensor([[*PIXELS, 0, 0, *PIXELS]], dtype=torch.float32).repeat(len(rows), 1)
        more["added_cond_kwargs"] = {"text_embeds": tensors["text_encoder_2.pooled"][rows], "time_ids": ids}
    if unet.config.time_cond_proj_dim:
        scales = torch.full((len(rows),), ROW[2] - 1)
        embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        more["timestep_cond"] = embed(None, scales, embedding_dim=unet.config.time_cond_proj_dim)
    with torch.no_grad():
        return unet(torch.from_numpy(sample), ROW[1], states, **more).sample.numpy()


@pytest.mark.parametrize("kind", ["sd2", "lcm", "sdxl"])  # the denoiser of sd15 is that of lcm without its scale
def test_steps_of_a_denoiser_follow_diffusers(kind: str, tmp_path: Path) -> None:
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    forms = {"sd2": {"dtype": "BF16"}, "sdxl": {"shards": 2}, "lcm": {"dtype": "F32"}}
    source = write(kind, tmp_path, **forms.get(kind, {}))
    folder, uses = source.path / "unet", ["condition", "step" if kind == "lcm" else "guided_step"]
    graphs = make_graphs(source, "unet", uses, rescales=kind == "sd2")
    unet = UNet2DConditionModel.from_pretrained(folder)
    rng, (scale, _, guidance, p, q, a, b, c, s) = np.random.default_rng(0), ROW
    for images, height, width, tokens in SHAPES:
        latent, before, noise = (rng.standard_normal((images, 4, height, width)).astype("f4") for _ in range(3))
        texts = make_texts(source, 1 if kind == "lcm" else 2, tokens)
        conditions = run(graphs["condition"], folder, texts)
        feeds = {"latent": latent, "denoised_before": before, "noise": noise, "row": np.array(ROW, dtype="f4")}
        feeds |= {"guidance_rescale": np.array([0.7], dtype="f4")} if kind == "sd2" else {}
        found = run(graphs[uses[1]], folder, feeds | texts | conditions)
        outputs = [denoise(unet, scale * latent, texts, [row] * images) for row in range(1 if kind == "lcm" else 2)]
        model = outputs[0] if kind == "lcm" else outputs[0] + guidance * (outputs[1] - outputs[0])
        if kind == "sd2":
            model = rescale_noise_cfg(torch.from_numpy(model), torch.from_numpy(outputs[1]), guidance_rescale=0.7).numpy()
        denoised = p * latent + q * model
        for name, wanted in {"denoised": denoised, "next_latent": a * latent + b * denoised + c * before + s * noise}.items():
            assert np.abs(found[name] - wanted).max() < 1e-4 * wanted.std(), (name, height, width)
    attention = [node for node in graphs[uses[1]].graph.node if node.op_type == "Attention"]
    assert len(attention) == sum(layer.__class__.__name__ == "Attention" for layer in unet.modules())
    assert len(conditions) == len(attention) + (kind == "sdxl"), "keys and values of attention to the text; SDXL's sizes and pooled text"


@pytest.mark.parametrize(("kind", "clip_skip"), [("sd15", 1), ("sdxl", 0)])
def test_text_encoders_follow_transformers(kind: str, clip_skip: int, tmp_path: Path) -> None:
    import torch
    import transformers

    source = write(kind, tmp_path, changes={"text_encoder": {"num_hidden_layers": 3}})
    for name in (each for each in source.networks if each.startswith("text_encoder")):
        network = source.networks[name]
        graph = make_graphs(source, name, ["encode"], clip_skip=clip_skip)["encode"]
        ids = np.random.default_rng(0).integers(0, network.config["vocab_size"] - 1, (2, 77))
        ids[0, 5:], ids[1, 9:] = network.config["eos_token_id"], network.config["eos_token_id"]
        found = run(graph, source.path / name, {"input_ids": ids})
        model = getattr(transformers, network.class_name).from_pretrained(source.path / name)
        with torch.no_grad():
            theirs = model(torch.from_numpy(ids), output_hidden_states=True)
            last = model.text_model.final_layer_norm(theirs.hidden_states[-1 - clip_skip])
        wanted = {"last_hidden_state": last} if kind == "sd15" else {"penultimate": theirs.hidden_states[-2]}
        if name == "text_encoder_2":
            wanted["pooled"] = theirs.text_embeds
        assert found.keys() == wanted.keys()
        for output, value in wanted.items():
            np.testing.assert_allclose(found[output], value.numpy(), atol=1e-5)


def test_vae_decodes_and_encodes_as_in_diffusers(tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderKL

    source = write("sd15", tmp_path)
    folder = source.path / "vae"
    graphs, vae = make_graphs(source, "vae", ["decode", "encode"]), AutoencoderKL.from_pretrained(folder)
    latent = np.random.default_rng(0).standard_normal((2, 4, 5, 7)).astype("f4")
    with torch.no_grad():
        image = vae.decode(torch.from_numpy(latent) / vae.config.scaling_factor).sample
        pixels = ((image / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        back = vae.encode(pixels.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
    found = run(graphs["decode"], folder, {"latent": latent})["pixels"]
    assert np.abs(found.astype(int) - pixels.numpy()).max() <= 1
    np.testing.assert_allclose(run(graphs["encode"], folder, {"pixels": pixels.numpy()})["latent"], back.numpy(), atol=1e-5)


def test_tiny_decoder_follows_diffusers(tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    tiny = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    tiny.save_pretrained(tmp_path / "tiny")
    source = with_network(write("sd15", tmp_path), tiny, tmp_path / "tiny")
    graph = make_graphs(source, "tiny", ["decode"])["decode"]
    latent = np.random.default_rng(0).standard_normal((2, 4, 5, 7)).astype("f4")
    with torch.no_grad():
        pixels = ((tiny.decode(torch.from_numpy(latent)).sample / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    assert pixels.std() > 1
    assert np.abs(run(graph, tmp_path / "tiny", {"latent": latent})["pixels"] - pixels).max() <= 1


def with_network(source: Source, module: Any, folder: Path) -> Source:
    """The source with one more network, saved in `folder` by diffusers."""
    from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
    from costroute_rt.export.checkpoint.source.network import Network, Region

    file = folder / "diffusion_pytorch_model.safetensors"
    weights = {
        name: Region(file=file, offset=each.offset, length=each.length, dtype=each.dtype, shape=each.shape)
        for name, each in read_stored_tensors(file).items()
    }
    network = Network(name=folder.name, class_name=type(module).__name__, config=dict(module.config), weights=weights)
    return replace(source, networks={**source.networks, folder.name: network})


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = write("sd15", tmp_path, dtype="F32")
    region = source.networks["text_encoder"].weights["text_model.encoder.layers.0.mlp.fc1.bias"]
    with open(region.file, "r+b") as file:
        file.seek(region.offset)
        file.write(b"\x00\x00\xc0\x7f")
    with pytest.raises(BundleError, match=r"NaN or infinity in text_encoder\.last_hidden_state"):
        make_graphs(source, "text_encoder", ["encode"])


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt.export.families import clip_text

    monkeypatch.setattr(clip_text, "attend", lambda query, key, value, heads, scale, is_causal: query)
    with pytest.raises(BundleError, match=r"last_hidden_state is .* standard deviations from torch's"):
        make_graphs(write("sd15", tmp_path), "text_encoder", ["encode"])
    assert not list(tmp_path.rglob("*.onnx"))


def test_networks_of_another_kind_are_refused(tmp_path: Path) -> None:
    source = write("sd15", tmp_path)
    network = source.networks["unet"]
    for changes, problem in (
        ({"class_name": "SD3Transformer2DModel"}, "its unet is a SD3Transformer2DModel"),
        ({"config": {**network.config, "addition_embed_type": "image"}}, "the denoiser has the addition_embed_type 'image'"),
        ({"config": {**network.config, "block_out_channels": (64, 64)}}, "its weights for unet.conv_in.weight are .*expected"),
    ):
        changed = replace(source, networks={**source.networks, "unet": replace(network, **changes)})
        with pytest.raises(BundleError, match=problem):
            make_graphs(changed, "unet", ["step"])
    with pytest.raises(BundleError, match="clip skip 7 leaves too few"):
        make_graphs(source, "text_encoder", ["encode"], clip_skip=7)
