"""W7: JSON of bundles is of bounded size, before it takes memory and time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError
from tests.security.hostile_manifest import change, set_to

REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "names": (set_to({f"n{index}": "" for index in range(300_000)}, "extra"), "larger than 2 MiB"),
    "lists": (set_to([[] for _ in range(1_000_000)], "extra"), "larger than 2 MiB"),
}


@pytest.mark.parametrize(("edit", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_large_manifest_is_refused(tiny_bundle: Path, tmp_path: Path, edit: Callable[[Any], object], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Bundle.open(change(tiny_bundle, tmp_path, edit), verify=False)
