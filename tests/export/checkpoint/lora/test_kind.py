"""Few-step LoRAs are told by their names; a command line gives files and scales."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.error import ConfigError
from costroute_rt.export.checkpoint.lora.argument import parse_lora
from costroute_rt.export.checkpoint.lora.kind import kind_of_lora, steps_of_lora
from costroute_rt.export.checkpoint.lora.lora import Lora


@pytest.mark.parametrize(
    ("path", "metadata", "kind", "steps"),
    [
        ("sdxl_lightning_4step_lora.safetensors", {}, "lightning", 4),
        ("Hyper-SDXL-8steps-lora.safetensors", {}, "hyper", 8),
        ("Hyper-SD15-1step-lora.safetensors", {}, "hyper", 1),
        ("lcm-lora-sdv1-5/pytorch_lora_weights.safetensors", {}, "lcm", None),
        ("LCM_LoRA_SDXL.safetensors", {}, "lcm", None),
        ("dmd2_sdxl_4step_lora.safetensors", {}, "dmd2", 4),
        ("a.safetensors", {"modelspec.title": "My LCM style"}, "lcm", None),
        ("loras/calcmath_hyperrealism.safetensors", {}, None, None),
        ("loras/style-000012.safetensors", {"ss_output_name": "style"}, None, None),
    ],
)
def test_kind_and_steps(path: str, metadata: dict[str, str], kind: str | None, steps: int | None) -> None:
    lora = Lora(path=Path("/models") / path, sha256="", modules=(), metadata=metadata)
    assert (kind_of_lora(lora), steps_of_lora(lora)) == (kind, steps)


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a:b.safetensors:-1.5", "a:b.safetensors", -1.5),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
        (r"C:\loras\a.safetensors:2", r"C:\loras\a.safetensors", 2.0),
        ("C:a.safetensors", "C:a.safetensors", 1.0),
        ("C:/loras/a.safetensors", "C:/loras/a.safetensors", 1.0),
    ],
)
def test_files_and_scales(text: str, path: str, scale: float) -> None:
    assert parse_lora(text) == (Path(path), scale)


def test_a_file_with_a_colon_in_its_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:2").touch()
    assert parse_lora("a:2") == (Path("a:2"), 1.0)
    assert parse_lora("a:2:3") == (Path("a:2"), 3.0)


@pytest.mark.parametrize("text", ["", ":1", "a.safetensors:", "a.safetensors:much", "a.safetensors:nan", "a.safetensors:inf"])
def test_other_scales_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lora"):
        parse_lora(text)
