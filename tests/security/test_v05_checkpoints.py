"""V5: an export publishes nothing that a link in a checkpoint leads to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.checkpoint import _Export, check_export, export_bundle
from costroute_rt.export.checkpoint.folder import CheckpointFolder
from costroute_rt.export.router.sentence_encoder import read_layout
from tests.export.checkpoint_folder import simple_recipe, write_folder, write_json
from tests.export.small_checkpoint import make_recipe, needs_export, write_checkpoint
from tests.security.limit import write_terabyte

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "checkpoint")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "home" / ".ssh" / "id_rsa"
    path.parent.mkdir(parents=True)
    path.write_text(SECRET)
    return path


def copy_extras(source: Path, target: Path) -> list[str]:
    """What `extras` copies; returns the names."""
    export = _Export.__new__(_Export)
    export._source, export._folder = source, target
    export._save = lambda model, path: path.name  # type: ignore[method-assign]
    export._add_component = lambda *_: None  # type: ignore[method-assign,misc,assignment]
    target.mkdir()
    export.extras()
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["LICENSE-key", "README", "notice.txt"])
def test_a_link_among_the_notices_is_refused(source: Path, secret: Path, tmp_path: Path, name: str) -> None:
    (source / name).symlink_to(secret)
    with pytest.raises(BundleError, match="a link out of the checkpoint"):
        copy_extras(source, tmp_path / "new")
    assert not any(SECRET in path.read_text() for path in (tmp_path / "new").iterdir())


@pytest.mark.parametrize("name", ["notes.txt", "config.json", "folder"])
def test_a_link_in_the_scorer_is_refused(source: Path, secret: Path, tmp_path: Path, name: str) -> None:
    (source / "scorer").mkdir()
    (source / "scorer" / name).symlink_to(secret.parent if name == "folder" else secret)
    with pytest.raises(BundleError, match="a link out of the checkpoint"):
        copy_extras(source, tmp_path / "new")


def test_only_known_files_of_the_scorer_and_notices_are_copied(source: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (source / "scorer").mkdir()
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.save(model, source / "scorer" / "scorer.onnx")
    for name in ("config.json", "model.safetensors", "notes.txt", ".env"):
        (source / "scorer" / name).write_text("x")
    for name in ("LICENSE", "README.md", "secrets.txt"):
        (source / name).write_text("x")
    assert copy_extras(source, tmp_path / "new") == [
        "LICENSE", "README.md", "scorer/config.json", "scorer/model.safetensors", "scorer/scorer.onnx",
    ]  # fmt: skip


def test_a_notice_without_end_is_refused(source: Path, tmp_path: Path) -> None:
    write_terabyte(source / "LICENSE")
    with pytest.raises(BundleError, match="larger than 4 MiB"):
        copy_extras(source, tmp_path / "new")


LINKED = (
    "unet/diffusion_pytorch_model.safetensors", "text_encoder/config.json", "tokenizer/merges.txt", "tokenizer/vocab.json", "vae",
    "scheduler/scheduler_config.json", "model_index.json", "tokenizer/anything", "unet/anything",
)  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_no_part_of_a_checkpoint_is_a_link_out_of_it(source: Path, tmp_path: Path, name: str) -> None:
    path, elsewhere = source / name, tmp_path / "elsewhere"
    path.rename(elsewhere) if path.exists() else elsewhere.write_text(SECRET)
    path.symlink_to(elsewhere)
    with pytest.raises(BundleError, match=r"a link out of the checkpoint, to .*elsewhere; replace the link with the file itself"):
        CheckpointFolder.open(source)


def test_links_inside_a_checkpoint_and_those_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "1", tmp_path / "models--a--b" / "blobs"
    write_folder(snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    (snapshot / "unet_same").symlink_to("unet")
    assert CheckpointFolder.open(snapshot).denoisers == {"base": "unet", "same": "unet_same"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe as POSIX has them")
@pytest.mark.parametrize("name", ["tokenizer/pipe", "unet/pipe", "scheduler/pipe"])
def test_a_pipe_in_a_checkpoint_is_refused(source: Path, name: str) -> None:
    os.mkfifo(source / name)
    with pytest.raises(BundleError, match="not a regular file"):
        CheckpointFolder.open(source)


@pytest.mark.parametrize("path", ["../../home", "/etc", "up", "a\0b"])
def test_a_sentence_encoder_does_not_lead_out_of_its_folder(tmp_path: Path, secret: Path, path: str) -> None:
    source = tmp_path / "one" / "encoder"
    source.mkdir(parents=True)
    (source / "up").symlink_to(secret.parent)
    (source / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": path}]))
    with pytest.raises(ConfigError, match="leads out of the folder"):
        read_layout(source)


@pytest.mark.parametrize("text", ["[1]", "{}", "null", "[" * 100_000, '[{"path": 1}]', "x"])
def test_a_damaged_list_of_modules_is_a_config_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ConfigError, match="encoder"):
        read_layout(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_pooling_that_is_no_object_is_a_config_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": "."}]))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="does not hold an object"):
        read_layout(tmp_path)


@pytest.mark.skipif(find_spec("torch") is None, reason="loads a network by torch")
class TestWithTorch:
    pytestmark = needs_export

    def edit_tokenizer(self, source: Path, change: Callable[[dict[str, Any]], object]) -> None:
        path = source / "tokenizer" / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        change(settings)
        path.write_text(json.dumps(settings))

    def test_a_tokenizer_reads_no_files_that_its_settings_name(self, tmp_path: Path) -> None:
        """Words of a secret would become merges of the bundle's tokenizer."""
        source, secret = tmp_path / "checkpoint", tmp_path / "secret"
        write_checkpoint(source)
        secret.write_text("#version: 0.2\nhunter2 password\n")
        self.edit_tokenizer(source, lambda settings: settings.update(merges_file=str(secret)))
        target = export_bundle(source, tmp_path / "bundle", make_recipe())
        assert not any(b"hunter2" in path.read_bytes() for path in target.rglob("*") if path.is_file())

    def test_another_class_of_diffusers_is_not_called_as_a_scheduler(self, tmp_path: Path) -> None:
        from costroute_rt.export.checkpoint.checkpoint import _load_scheduler

        source = write_folder(tmp_path / "checkpoint", scheduler={"_class_name": "DiffusionPipeline"})
        write_json(source / "scheduler" / "model_index.json", {"_class_name": ["pipeline", "Evil"]})
        (source / "scheduler" / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        plan = check_export(source, simple_recipe(schedulers={"default": {"_class_name": "EulerDiscreteScheduler"}}))
        assert type(_load_scheduler(plan)).__name__ == "EulerDiscreteScheduler"
        assert not (tmp_path / "ran").exists()

    def test_a_sentence_encoder_with_a_link_out_of_its_folder_is_refused(self, tmp_path: Path, secret: Path) -> None:
        from costroute_rt.export.router.sentence_encoder import export_sentence_encoder

        source = tmp_path / "encoder"
        write_json(source / "config.json", {})
        (source / "model.safetensors").symlink_to(secret)
        with pytest.raises(ConfigError, match=r"model\.safetensors: it is a link out of the checkpoint"):
            export_sentence_encoder(source, tmp_path)
