"""A small checkpoint and its exported bundle, made once per session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from tests.export.small_checkpoint import make_recipe, write_checkpoint


@dataclass(frozen=True)
class Exported:
    checkpoint: Path
    bundle: Bundle
    pipeline: Any
    """The bundle as diffusers loads it, in float32."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    import torch
    from diffusers import StableDiffusionPipeline

    from costroute_rt.export.checkpoint.checkpoint import export_bundle

    folder = tmp_path_factory.mktemp("export")
    checkpoint = write_checkpoint(folder / "checkpoint")
    path = export_bundle(checkpoint, folder / "bundle", make_recipe())
    pipeline = StableDiffusionPipeline.from_pretrained(path, torch_dtype=torch.float32, safety_checker=None)
    return Exported(checkpoint, Bundle.open(path), pipeline)
