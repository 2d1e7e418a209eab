"""A small decoder in its makers' layout computes in diffusers what it computes in their program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from costroute_rt.export.checkpoint.source.tiny_decoder import open_tiny_decoder
from tests.checkpoints import write_sd15_folder
from tests.export.checkpoint.source.test_decoders import TINY, read_region
from tests.export.small_checkpoint import needs_export

pytestmark = needs_export


def make_taesd() -> Any:
    """The decoder of github.com/madebyollin/taesd (taesd.py)."""
    from torch import Tensor, nn, tanh

    class Clamp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return tanh(x / 3) * 3

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
            self.fuse = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.fuse(self.conv(x) + x)  # type: ignore[no-any-return]

    def conv(taken: int = 64, given: int = 64, **options: Any) -> Any:
        return nn.Conv2d(taken, given, 3, padding=1, **options)

    def larger() -> list[Any]:
        return [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(bias=False)]

    return nn.Sequential(Clamp(), conv(4), nn.ReLU(), *larger(), *larger(), *larger(), Block(), conv(given=3))


def test_the_parameters_are_those_of_diffusers() -> None:
    from diffusers import AutoencoderTiny

    module = AutoencoderTiny.from_config(TINY)
    expected = {name: tuple(tensor.shape) for name, tensor in module.named_parameters() if name.startswith("decoder.")}
    assert parameters("AutoencoderTiny", TINY, Path("config.json")) == expected


def test_the_makers_layout_gives_the_same_image(tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = make_taesd()
    save_file(theirs.state_dict(), tmp_path / "taesd_decoder.safetensors")
    network = open_tiny_decoder(tmp_path / "taesd_decoder.safetensors", open_source(write_sd15_folder(tmp_path / "sd15")))
    module = AutoencoderTiny.from_config(dict(network.config))
    state = {name: torch.from_numpy(read_region(region).copy()) for name, region in network.weights.items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("encoder.") for name in missing)
    latent = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(module.decode(latent, return_dict=False)[0], theirs(latent) * 2 - 1)
