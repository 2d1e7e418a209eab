"""W13: a bundle asks for no image that no model makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError
from tests.security.hostile_manifest import change, set_to

REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "side": (set_to(65536, "image", "height"), "up to 4096"),
    "sizes": (set_to([[64, 4112]], "image", "sizes"), "up to 4096"),
    "many sizes": (set_to([[64, 64]] * 257, "image", "sizes"), "257 sizes: expected 256 at most"),
    "channels": (set_to(65, "image", "latent_channels"), "latent_channels is 65: expected 64 or less"),
    "channels without end": (set_to(10**400, "image", "latent_channels"), "expected 64 or less"),
    "factor": (set_to(1 << 40, "image", "vae_scale_factor"), "expected 256 or less"),
    "patch": (set_to(1 << 40, "image", "patch_size"), "expected 256 or less"),
}


@pytest.mark.parametrize(("edit", "problem"), REFUSED.values(), ids=REFUSED)
def test_an_impossible_image_is_refused(tiny_bundle: Path, tmp_path: Path, edit: Callable[[Any], object], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Bundle.open(change(tiny_bundle, tmp_path, edit), verify=False)
