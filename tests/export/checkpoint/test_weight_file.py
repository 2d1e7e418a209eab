from __future__ import annotations

import json
from pathlib import Path

import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.weight_file import choose_weight_file, listed_files

STEMS = {"safetensors": "model", "bin": "pytorch_model"}


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], None, "model.safetensors"),
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], "fp16", "model.fp16.safetensors"),
        (["model.safetensors", "pytorch_model.fp16.bin"], "fp16", "pytorch_model.fp16.bin"),
        (["model.fp16.safetensors", "pytorch_model.bin"], None, "model.fp16.safetensors"),
        (["model.non_ema.safetensors", "model.bf16.safetensors", "model.fp16.safetensors"], None, "model.fp16.safetensors"),
        (["model.safetensors.index.json", "model.fp16.safetensors"], None, "model.safetensors.index.json"),
        (["model.safetensors.index.fp16.json", "pytorch_model.bin"], None, "model.safetensors.index.fp16.json"),
        (["pytorch_model.bin", "model-00001-of-00002.safetensors", "tf_model.h5", "openvino_model.bin"], None, "pytorch_model.bin"),
    ],
)
def test_one_format_and_variant_is_chosen(names: list[str], variant: str | None, chosen: str) -> None:
    found = choose_weight_file(names, STEMS, variant)
    assert found is not None
    assert found.name == chosen


def test_no_weight_file_is_chosen_among_other_files() -> None:
    assert choose_weight_file(["config.json", "model-00001-of-00002.safetensors", "model.onnx"], STEMS) is None


@pytest.mark.parametrize(
    "content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../b"}}, {"weight_map": {"a": ""}}]
)
def test_damaged_indexes_are_refused(content: dict[str, object], tmp_path: Path) -> None:
    index = tmp_path / "i.json"
    index.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"i\.json: it (has no weight_map|names)"):
        listed_files(index)
