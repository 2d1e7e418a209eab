"""W18: text of a manifest is Unicode without control characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.section import parse_section
from costroute_rt.error import BundleError
from tests.security.hostile_manifest import change, set_to

REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "half a pair in a file's name": (set_to({"sha256": "0" * 64, "bytes": 1}, "files", "\ud800"), "half of a surrogate pair"),
    "half a pair in the license": (set_to("\udfff", "license"), "half of a surrogate pair"),
    "half a pair deep inside": (set_to([[{"a": "x\ud800y"}]], "extra"), "half of a surrogate pair"),
    "control characters": (set_to("\x1b]0;PWN\x07", "license"), "license is empty or not plain text"),
    "control characters of the second set": (set_to("a\x9b2J", "revision"), "revision is empty or not plain text"),
}


@pytest.mark.parametrize(("edit", "problem"), REFUSED.values(), ids=REFUSED)
def test_text_that_is_not_plain_is_refused(tiny_bundle: Path, tmp_path: Path, edit: Callable[[Any], object], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Bundle.open(change(tiny_bundle, tmp_path, edit), verify=False)


def test_pairs_of_surrogates_are_one_character() -> None:
    assert parse_section(rb'{"a": "\ud83d\ude00", "b": "\\ud800"}', pytest.fail).values == {"a": "\U0001f600", "b": r"\ud800"}
