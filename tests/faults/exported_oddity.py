"""A small checkpoint with what people met together: PNDM, added tokens, and weights in fp16 files alone; exported once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.small_checkpoint import make_recipe, write_checkpoint

PNDM = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
TOKENS = ("<my-cat>", "<my-cat>_1", "<My-Dog>", "two words")


def write_oddity(root: Path) -> Path:
    """The checkpoint; every network has only `.fp16.safetensors` files."""
    from transformers import CLIPTokenizer

    write_checkpoint(root)
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM))
    tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
    tokenizer.add_tokens(list(TOKENS))
    tokenizer.save_pretrained(root / "tokenizer")
    for path in sorted(root.rglob("*.safetensors")):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    return root


@pytest.fixture(scope="session")
def oddity(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder with `checkpoint` and `bundle`."""
    from costroute_rt.export.checkpoint.checkpoint import export_bundle

    folder = tmp_path_factory.mktemp("oddity")
    write_oddity(folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle", make_recipe())
    return folder
