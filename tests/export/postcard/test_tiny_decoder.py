"""The tiny decoder: its price, what it learns from, and its export."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training runs on torch, which is missing: pip install costroute-rt[export]")
pytest.importorskip("diffusers", reason="training uses the models of diffusers, which is missing: pip install costroute-rt[export]")

from costroute_rt.export.decoder import export_decoder  # noqa: E402
from costroute_rt.export.postcard import tiny_decoder  # noqa: E402
from costroute_rt.export.postcard.bundle import pool  # noqa: E402
from costroute_rt.export.postcard.dataset import Shard  # noqa: E402
from costroute_rt.export.postcard.networks import make_vae  # noqa: E402
from costroute_rt.export.postcard.tiny_decoder import (  # noqa: E402
    Generator,
    TinyDecoder,
    agreement,
    decode,
    encode_drawings,
    make_decodings,
    train_tiny_decoder,
)
from tests.export.checkpoint.test_checkpoint import open_session  # noqa: E402
from tests.export.small_checkpoint import needs_export  # noqa: E402

pytestmark = needs_export
ROWS = 4
"""Rows of a shard in these tests."""


def operations(network: Any, latent: Any) -> int:
    """Two for each multiplication of a convolution."""
    count = 0

    def add(layer: Any, _: Any, output: Any) -> None:
        nonlocal count
        count += 2 * output.numel() * layer.weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(add)
    with torch.no_grad():
        network(latent)
    return count


def small_decoder() -> TinyDecoder:
    torch.manual_seed(0)
    return TinyDecoder(widths=(12, 8, 8, 8), blocks=(1, 0, 1, 0))


def write_shard(folder: Path, number: int, *, masks: bool, cells: int = 16) -> Shard:
    """Latents, and images that follow from them: each latent cell's first three channels as a colour; cells: different ones a side."""
    folder.mkdir(exist_ok=True)
    shard, rng = Shard(folder, number), np.random.default_rng(number)
    latents = rng.standard_normal((ROWS, 16, cells, cells)).astype(np.float16).repeat(16 // cells, axis=2).repeat(16 // cells, axis=3)
    colours = np.clip(127.5 + 60 * latents[:, :3].transpose(0, 2, 3, 1).astype(np.float32), 0, 255).astype(np.uint8)
    shard.save("latents", latents)
    shard.save("images", colours.repeat(16, axis=1).repeat(16, axis=2))
    if masks:
        shard.save("masks", rng.integers(0, 256, (ROWS, 16, 16), dtype=np.uint8))
    return shard


def test_it_has_at_most_a_fifth_of_the_full_decoders_operations() -> None:
    latent = torch.zeros(1, 16, 16, 16)
    assert TinyDecoder()(latent).shape == (1, 3, 256, 256)
    assert operations(TinyDecoder(), latent) <= operations(make_vae().decoder, latent) / 5


def test_every_denoiser_and_number_of_steps_has_both_decoders() -> None:
    rows = {row["name"]: row for row in pool()}
    full = {name for name in rows if not name.endswith("-tiny")}
    assert rows.keys() == full | {f"{name}-tiny" for name in full}
    for name in full:
        assert rows[f"{name}-tiny"] == rows[name] | {"name": f"{name}-tiny", "decoder": "tiny"}


@pytest.mark.filterwarnings("ignore:.*copy keyword:DeprecationWarning")
def test_it_learns_drawings_with_noise_and_full_decodings_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, generated = write_shard(tmp_path / "images", 0, masks=True), write_shard(tmp_path / "decodings", 1, masks=False)
    decoder, seen = small_decoder(), []
    learn, start = tiny_decoder.reconstruction_loss, copy.deepcopy(decoder.state_dict())
    decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()) if torch.is_grad_enabled() else None)

    def watched(output: Any, images: Any, weights: Any) -> Any:
        seen.extend((images, weights))
        return learn(output, images, weights)

    monkeypatch.setattr(tiny_decoder, "reconstruction_loss", watched)
    train_tiny_decoder(decoder, [drawn], [generated], tmp_path / "tiny_decoder.pt", minutes=1e-6)
    latents, images, weights = seen[:3]
    half = tiny_decoder.DRAWN
    assert latents.shape == (half + tiny_decoder.GENERATED, 16, 16, 16)
    known = torch.from_numpy(generated.array("latents").copy()).float()
    assert all(any(torch.equal(latent, each) for each in known) for latent in latents[half:])
    clean = torch.from_numpy(drawn.array("latents").copy()).float()
    nearest = [min(float((latent - each).std()) for each in clean) for latent in latents[:half]]
    assert 0 < max(nearest) <= 1.1 * tiny_decoder.NOISE
    assert (weights[half:] == 1).all()
    assert weights[:half].std() > 0
    colour = (images[half:, :, 8, 8] + 1) * 127.5
    assert torch.allclose(colour, (127.5 + 60 * latents[half:, :3, 0, 0]).clamp(0, 255), atol=1.01)
    saved = torch.load(tmp_path / "tiny_decoder.pt", weights_only=True)
    assert saved["steps"] == 1
    assert any(not torch.equal(value, start[name]) for name, value in saved["model"].items())
    for name, kept in decoder.state_dict().items():
        assert torch.equal(kept, saved["average"][name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*copy keyword:DeprecationWarning")
def test_training_brings_it_nearer_to_the_full_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "decodings", 0, masks=False, cells=1)
    decoder, path = small_decoder(), tmp_path / "tiny_decoder.pt"
    before = agreement(decoder, shard)
    monkeypatch.setattr(tiny_decoder, "DRAWN", 1)
    monkeypatch.setattr(tiny_decoder, "GENERATED", 1)
    ticks = iter(range(10_000))
    monkeypatch.setattr("costroute_rt.export.postcard.training.time.monotonic", lambda: float(next(ticks)))
    train_tiny_decoder(decoder, [shard], [shard], path, minutes=2)
    assert torch.load(path, weights_only=True)["steps"] == 120
    assert agreement(decoder, shard) > before + 1


class Recorded(Generator):
    """Gives latents that say which of them they are."""

    def __init__(self) -> None:
        pass

    def shard(self, number: int) -> Iterator[Any]:
        for part in range(2):
            yield torch.full((ROWS // 2, 16, 16, 16), number + part / 2)


def test_decodings_are_the_full_decoders_images_and_complete_shards_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costroute_rt.export.postcard.dataset.SHARD", ROWS)
    monkeypatch.setattr(tiny_decoder, "SHARD", ROWS)
    torch.manual_seed(0)
    vae = make_vae().eval()
    kept = write_shard(tmp_path / "decodings", 0, masks=False)
    before = kept.array("images").copy()
    make_decodings(Recorded(), vae, tmp_path / "decodings", 2 * ROWS)
    made = Shard(tmp_path / "decodings", 1)
    assert np.array_equal(kept.array("images"), before)
    assert made.array("latents")[:, 0, 0, 0].tolist() == [1, 1, 1.5, 1.5]
    assert np.array_equal(made.array("images"), decode(vae.decoder, torch.from_numpy(made.array("latents").copy())))


def test_latents_of_drawings_are_those_of_the_autoencoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, shard = make_vae().eval(), write_shard(tmp_path / "images", 0, masks=True)
    shard.path("latents").unlink()
    encode_drawings(vae, [shard])
    image = torch.from_numpy(shard.array("images").copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(image).latent_dist.mode()
    assert torch.allclose(torch.from_numpy(shard.array("latents").copy()).float(), expected, atol=0.05)


def test_latents_are_generated_as_the_candidates_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_decoder, "SHARD", 6)
    monkeypatch.setattr(tiny_decoder, "SAMPLED", 2)
    calls: list[Any] = []

    class Unet:
        device = torch.device("cpu")

    def sample(unet: Any, states: Any, empty: Any, noise: Any, steps: int, guidance: float) -> Any:
        calls.append((unet, states.shape, empty.shape, steps, guidance))
        return noise

    def encode(ids: Any) -> Any:
        return type("Encoded", (), {"last_hidden_state": torch.zeros(len(ids), 64, 160)})()

    monkeypatch.setattr(tiny_decoder, "sample", sample)
    monkeypatch.setattr(tiny_decoder, "tokenize", lambda _, texts: torch.zeros(len(texts), 64, dtype=torch.int64))
    fast, slow = Unet(), Unet()
    rows = [
        {"denoiser": "turbo", "num_inference_steps": 2, "guidance_scale": 1.0},
        {"denoiser": "base", "num_inference_steps": 8, "guidance_scale": 3.0},
    ]
    generator = Generator(denoisers={"turbo": fast, "base": slow}, text=encode, tokenizer=None, candidates=rows)  # type: ignore[arg-type]
    parts = list(generator.shard(5))
    shapes = (torch.Size([2, 64, 160]), torch.Size([1, 64, 160]))
    assert calls == [(fast, *shapes, 2, 1.0), (slow, *shapes, 8, 3.0), (fast, *shapes, 2, 1.0)]
    assert torch.equal(torch.cat(parts), torch.cat(list(generator.shard(5))))
    assert not torch.equal(parts[0], parts[1])


def test_the_exported_graph_gives_the_images_of_the_network(tmp_path: Path) -> None:
    decoder = small_decoder()
    target = export_decoder(decoder, tmp_path / "tiny", latent_channels=16, cells=16)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "decode.onnx", "diffusion_pytorch_model.safetensors"]
    loaded = TinyDecoder.from_pretrained(target, torch_dtype=torch.float32)
    latent = torch.randn(3, 16, 8, 12)
    (found,) = open_session(target / "decode.onnx").run(None, {"latent": latent.numpy()})
    with torch.no_grad():
        image = loaded(latent)
    expected = ((image.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert found.shape == (3, 128, 192, 3)
    assert len(np.unique(found)) > 20
    assert np.abs(found.astype(int) - expected).max() <= 1
