"""Starts the recipe from a bundle of the family: its denoisers and its text encoder go on learning, and the rest stays as it is."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

START, START_TURBO = "start", "start_turbo"
"""Folders of the bundle's networks in the work folder, as stages leave theirs."""
KEPT = ("tokenizer", "images", "autoencoder", "decoder", "scorer", "decodings", "tiny_decoder", "examples", "cleanness")
"""Stages whose results the bundle has, and data sets that only these need."""


def adopt(bundle: Path, work: Path) -> None:
    """Makes the networks of `bundle` the results of the stages KEPT, and the start of the others; does nothing a second time."""
    if (work / f"{KEPT[-1]}.done").exists():
        return
    for source, target in (
        ("tokenizer", "tokenizer"),
        ("vae", "autoencoder"),
        ("vae", "decoder"),
        ("tiny", "tiny_decoder"),
        ("unet", f"{START}/unet"),
        ("text_encoder", f"{START}/text_encoder"),
        ("unet_turbo", f"{START_TURBO}/unet"),
    ):
        shutil.copytree(bundle / source, work / target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.onnx"))
    weights = load_file(bundle / "scorer" / "model.safetensors")
    for name in ("scorer", "cleanness"):  # one file there, one for each here
        (work / name).mkdir(exist_ok=True)
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        save_file(own, work / name / "model.safetensors")
    for stage in KEPT:
        (work / f"{stage}.done").touch()


@torch.no_grad()
def add_change(network: nn.Module, before: nn.Module, after: nn.Module) -> None:
    """Adds what `after` has learned since `before` to `network`, whose weights began as theirs (task arithmetic, Ilharco et al. 2023)."""
    learned, old = after.state_dict(), before.state_dict()
    for name, value in network.state_dict().items():
        value += learned[name] - old[name]
