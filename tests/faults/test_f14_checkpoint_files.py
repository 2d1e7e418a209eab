"""F14: fp16-only checkpoints are taken; pointers of Git LFS and other files that are not what they seem are named before the work."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint import checkpoint
from costroute_rt.export.checkpoint.checkpoint import check_export, export_bundle
from costroute_rt.export.checkpoint.folder import CheckpointFolder
from tests.export.checkpoint_folder import WEIGHTS, simple_recipe, write_folder
from tests.export.small_checkpoint import needs_export
from tests.faults.exported_oddity import write_oddity

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
UNET = "unet/diffusion_pytorch_model.safetensors"
PULL = "run `git lfs pull` in the checkpoint's folder"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "checkpoint")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def long_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pointer": (lambda path: path.write_text(POINTER), f"it is a pointer of Git LFS, not the file itself; {PULL}"),
    "a web page": (lambda path: path.write_text(PAGE), "it is a web page"),
    "a page after blanks": (lambda path: path.write_text("\n  " + PAGE.lower()), "it is a web page"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
}
BROKEN_WEIGHTS = BROKEN | {
    "cut off": (truncate, "it is incomplete or damaged"),
    "a few bytes": (lambda path: path.write_bytes(b"abc"), "it is incomplete or damaged"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x02}q\x00." * 20), "it is incomplete or damaged"),
    "a long header": (long_header, "it is incomplete or damaged"),
    "8 bits": (lambda path: save_file({"a": np.ones(4, np.int8)}, path), "its weights are quantised"),
    "4 bits in bytes": (lambda path: save_file({"a": np.ones(4, np.uint8)}, path), r"its weights are quantised \(U8\)"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "it cannot be read"),
}
BROKEN_JSON = BROKEN | {
    "no JSON": (lambda path: path.write_text("{'a': 1}"), "it is not valid JSON"),
    "cut off": (lambda path: path.write_text('{"a": '), "it is not valid JSON"),
    "a list": (lambda path: path.write_text("[]"), "it does not hold a JSON object"),
    "null": (lambda path: path.write_text("null"), "it does not hold a JSON object"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe{}"), "it is not valid JSON"),
    "deep": (lambda path: path.write_text("[" * 100_000), "it is not valid JSON"),
    "missing": (lambda path: path.unlink(), "it is missing"),
}
CONFIGS = (*(f"{folder}/config.json" for folder in WEIGHTS), "scheduler/scheduler_config.json")


@pytest.fixture
def no_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a weight is loaded or a file is written."""

    def refuse(*_: object) -> None:
        raise AssertionError("long work has begun")

    monkeypatch.setattr(checkpoint, "_Export", refuse)


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("folder", WEIGHTS)
@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_f14_weights_that_are_something_else_are_refused_before_the_work(source: Path, tmp_path: Path, name: str, folder: str) -> None:
    damage, problem = BROKEN_WEIGHTS[name]
    path = source / folder / WEIGHTS[folder]
    damage(path)
    with pytest.raises(BundleError, match=problem) as caught:
        export_bundle(source, tmp_path / "bundle", simple_recipe())
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("file", CONFIGS)
@pytest.mark.parametrize("name", BROKEN_JSON)
def test_f14_configurations_that_are_something_else_are_refused(source: Path, tmp_path: Path, name: str, file: str) -> None:
    damage, problem = BROKEN_JSON[name]
    damage(source / file)
    with pytest.raises(BundleError, match=problem) as caught:
        export_bundle(source, tmp_path / "bundle", simple_recipe())
    assert caught.value.path == str(source / file)


@pytest.mark.parametrize("name", sorted(set(BROKEN_JSON) - {"missing"}))
def test_f14_so_are_the_tokenizers_settings(source: Path, name: str) -> None:
    damage, problem = BROKEN_JSON[name]
    damage(source / "tokenizer" / "tokenizer_config.json")
    with pytest.raises(BundleError, match=problem):
        check_export(source, simple_recipe())


@pytest.mark.parametrize("name", sorted(set(BROKEN_JSON) - {"missing"}))
def test_f14_so_is_the_model_index(source: Path, name: str) -> None:
    damage, problem = BROKEN_JSON[name]
    damage(source / "model_index.json")
    with pytest.raises(BundleError, match=problem):
        check_export(source, simple_recipe())


@pytest.mark.parametrize("folder", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_f14_a_missing_folder_is_named(source: Path, folder: str) -> None:
    shutil.rmtree(source / folder)
    with pytest.raises(BundleError, match="this folder of the checkpoint is missing; download the whole checkpoint") as caught:
        check_export(source, simple_recipe())
    assert caught.value.path == str(source / folder)


def test_f14_a_folder_without_weights_is_named(source: Path) -> None:
    (source / UNET).unlink()
    (source / "unet" / "README.md").touch()
    with pytest.raises(BundleError, match=r"it has no weights, such as diffusion_pytorch_model.safetensors or .*\.fp16\.safetensors"):
        check_export(source, simple_recipe())


def test_f14_what_is_no_checkpoint_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BundleError, match=r"it is a single file; convert it first: diffusers\.StableDiffusionPipeline\.from_single_file"):
        check_export(tmp_path / "model.safetensors", simple_recipe())
    with pytest.raises(BundleError, match=r"download it first: .*snapshot_download\('runwayml/stable-diffusion-v1-5'"):
        check_export(Path("runwayml/stable-diffusion-v1-5"), simple_recipe())
    with pytest.raises(BundleError, match="it does not exist; give a directory"):
        check_export(tmp_path / "none", simple_recipe())
    with pytest.raises(BundleError, match=r"it has no model_index\.json"):
        check_export(tmp_path, simple_recipe())


def found(source: Path, folder: str = "unet") -> tuple[list[str], str | None, bool]:
    weights = CheckpointFolder.open(source).weights[folder]
    return [path.name for path in weights.files], weights.variant, weights.is_safetensors


def write_bin(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


def test_f14_fp16_files_are_taken_where_there_are_no_plain_ones(source: Path) -> None:
    plain = source / UNET
    plain.rename(plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert found(source) == (["diffusion_pytorch_model.fp16.safetensors"], "fp16", True)
    assert found(source, "vae") == ([WEIGHTS["vae"]], None, True)


def test_f14_the_best_of_several_files_is_taken(source: Path) -> None:
    folder, plain = source / "unet", source / UNET
    stem = "diffusion_pytorch_model"
    for name in (f"{stem}.non_ema.safetensors", f"{stem}.bf16.safetensors", f"{stem}.fp16.safetensors", "other.safetensors"):
        shutil.copy(plain, folder / name)
    write_bin(folder / f"{stem}.bin")
    write_bin(folder / f"{stem}.fp16.bin")
    for expected in (
        ([f"{stem}.safetensors"], None, True),
        ([f"{stem}.fp16.safetensors"], "fp16", True),
        ([f"{stem}.bf16.safetensors"], "bf16", True),
        ([f"{stem}.non_ema.safetensors"], "non_ema", True),
        ([f"{stem}.bin"], None, False),
        ([f"{stem}.fp16.bin"], "fp16", False),
    ):
        assert found(source) == expected
        (folder / expected[0][0]).unlink()


def test_f14_every_file_of_an_index_is_checked(source: Path) -> None:
    folder, plain = source / "unet", source / UNET
    shards = [f"diffusion_pytorch_model.fp16-0000{index}-of-00002.safetensors" for index in (1, 2)]
    for name in shards:
        shutil.copy(plain, folder / name)
    plain.unlink()
    index = folder / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    assert found(source) == (shards, "fp16", True)
    (folder / shards[1]).write_text(POINTER)
    with pytest.raises(BundleError, match="pointer of Git LFS") as caught:
        check_export(source, simple_recipe())
    assert caught.value.path == str(folder / shards[1])
    (folder / shards[1]).unlink()
    with pytest.raises(BundleError, match="it is missing"):
        check_export(source, simple_recipe())
    for wrong in ({}, {"weight_map": {}}, {"weight_map": {"a": 1}}, {"weight_map": []}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(BundleError, match="it has no weight_map"):
            check_export(source, simple_recipe())
    index.write_text(json.dumps({"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}))
    with pytest.raises(BundleError, match="which is not a file beside it"):
        check_export(source, simple_recipe())


@pytest.mark.parametrize("content", [b"hello world" * 9, b"PK\x03\x04 cut off"])
def test_f14_torch_files_that_are_none_are_refused(source: Path, content: bytes) -> None:
    (source / UNET).unlink()
    (source / "unet" / "diffusion_pytorch_model.bin").write_bytes(content)
    with pytest.raises(BundleError, match="it is incomplete, or it does not hold torch weights"):
        check_export(source, simple_recipe())


class TestWithTorch:
    pytestmark: ClassVar = needs_export

    def test_f14_a_checkpoint_of_fp16_files_alone_is_exported(self, oddity: Path) -> None:
        from costroute_rt.engines.bundle.bundle import Bundle

        assert not [path for path in (oddity / "checkpoint").rglob("*.safetensors") if ".fp16." not in path.name]
        assert set(Bundle.open(oddity / "bundle").components) == {"text_encoder", "base", "small", "turbo", "vae"}

    @pytest.mark.parametrize("form", ["bin", "fp16.bin", "shards"])
    def test_f14_other_forms_have_the_same_weights(self, tmp_path: Path, form: str) -> None:
        import torch
        from diffusers import UNet2DConditionModel

        source = write_oddity(tmp_path / "checkpoint")
        unet = UNet2DConditionModel.from_pretrained(source / "unet_small", variant="fp16")
        for path in (source / "unet_small").glob("*.safetensors"):
            path.unlink()
        if form == "shards":
            unet.save_pretrained(source / "unet_small", variant="fp16", max_shard_size="200KB")
        else:
            torch.save(unet.state_dict(), source / "unet_small" / f"diffusion_pytorch_model.{form}")
        folder = CheckpointFolder.open(source)
        assert len(folder.weights["unet_small"].files) == 1 or form == "shards"
        loaded = checkpoint._load_network(folder, "unet_small").state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in unet.state_dict().items())

    def test_f14_a_pickle_that_runs_code_is_not_loaded(self, tmp_path: Path) -> None:
        import torch

        class Harmful:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "ran",))

        source = write_oddity(tmp_path / "checkpoint")
        for path in (source / "unet_small").glob("*.safetensors"):
            path.unlink()
        torch.save({"weight": Harmful()}, source / "unet_small" / "diffusion_pytorch_model.bin")
        with pytest.raises(BundleError, match="its weights cannot be loaded"):
            checkpoint._load_network(CheckpointFolder.open(source), "unet_small")
        assert not (tmp_path / "ran").exists()

    def test_f14_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        source = write_oddity(tmp_path / "checkpoint")
        name = "diffusion_pytorch_model.fp16.safetensors"
        shutil.copy(source / "unet" / name, source / "unet_small" / name)
        with pytest.raises(BundleError, match="its weights cannot be loaded"):
            checkpoint._load_network(CheckpointFolder.open(source), "unet_small")

    @pytest.mark.parametrize("folder", ["unet_small", "vae", "text_encoder"])
    def test_f14_missing_weights_are_not_made_up(self, tmp_path: Path, folder: str) -> None:
        from safetensors.numpy import load_file

        source = write_oddity(tmp_path / "checkpoint")
        (path,) = (source / folder).glob("*.safetensors")
        tensors = load_file(path)
        lost = next(name for name in tensors if "norm" in name)
        save_file({name: tensor for name, tensor in tensors.items() if name != lost}, path, metadata={"format": "pt"})
        with pytest.raises(BundleError, match=f"1 of its weights are missing, such as {lost}|its weights cannot be loaded"):
            checkpoint._load_network(CheckpointFolder.open(source), folder)
