"""Our engines compared with torch and optimum, on one small checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.judge import Judge
from benchmarks.peer import Job, open_diffusers, open_optimum, open_ours, psnr_db, with_steps
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.store.store import Store
from tests.export.small_checkpoint import needs_export

pytestmark = [*needs_export, pytest.mark.slow]


def test_all_programs_generate_the_same_image(exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle = Bundle.open(exported_bundle)
    job = Job(prompt="the red cat", seed=7, num_inference_steps=3, guidance_scale=3.0)
    with with_steps(bundle, "base", (3,)) as root, Runtime.open(root, home=tmp_path / "home", build=True) as runtime:
        ours = open_ours(runtime)(job)
    for peer in (open_diffusers(bundle, 1), open_optimum(bundle, 1), open_optimum(bundle, 1)):
        assert psnr_db(peer(job).pixels, ours.pixels) > 60
    assert len(list((tmp_path / "costroute-rt-benchmarks").iterdir())) == 1  # one export serves both


def test_the_autoencoder_agrees_with_diffusers(exported_bundle: Path, tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderKL

    image = np.random.default_rng(3).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    scorer: Any = None  # the checkpoint has no scorer, and the autoencoder needs none
    ours = Judge(Bundle.open(exported_bundle), Store.open(tmp_path / "home"), scorer).open_autoencoder()(image)
    vae = AutoencoderKL.from_pretrained(exported_bundle / "vae", torch_dtype=torch.float32).eval()
    with torch.inference_mode():
        sample = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        restored = vae.decode(vae.encode(sample).latent_dist.mode()).sample
    theirs = ((restored[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert psnr_db(ours, theirs) > 50
