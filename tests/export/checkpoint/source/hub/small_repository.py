"""A small repository of a diffusers pipeline."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.checkpoints import write_sd15_folder

SHARD = "unet/diffusion_pytorch_model-0000{}-of-00002.safetensors"
CHUNK = 1 << 15
"""Bytes that tests download at once."""
NOT_NEEDED = {
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "unet/diffusion_pytorch_model.bin",
    "unet/model.onnx",
    "v1-5-pruned.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
}


@cache
def make_pipeline() -> dict[str, bytes]:
    """A Stable Diffusion repository as they are: with shards, several formats, a variant, and parts that no export needs."""
    checker = {"model_index": {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}}
    with TemporaryDirectory() as folder:
        root = write_sd15_folder(Path(folder), shards=2, changes=checker)
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        variant = write_sd15_folder(root / "half", variant="fp16") / "vae" / "diffusion_pytorch_model.fp16.safetensors"
        files[variant.relative_to(root / "half").as_posix()] = variant.read_bytes()
    others = {name: name.encode() for name in NOT_NEEDED if name not in files}
    return files | others | {"README.md": b"A model of somebody.", "LICENSE": b"Anybody may use it."}
