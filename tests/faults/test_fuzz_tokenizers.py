"""Found by the fuzz test: some damages make the tokenizers library panic, which is no Exception, and ended in a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import BundleError
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from tests.changed_bundle import change_bundle
from tests.cli.conftest import Run


def name_unknown_token(values: dict[str, Any]) -> None:
    values["post_processor"]["single"][0]["SpecialToken"]["id"] = "0"


def lengthen_prefix(values: dict[str, Any]) -> None:
    values["model"]["continuing_subword_prefix"] = "x" * 5000


@pytest.mark.parametrize("change", [name_unknown_token, lengthen_prefix])
def test_a_tokenizer_that_makes_the_library_panic(tiny_bundle: Path, tmp_path: Path, change: Any) -> None:
    values = json.loads((tiny_bundle / "tokenizer/tokenizer.json").read_text())
    change(values)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="it is not a usable tokenizer"):
        Tokenizer.open(path, max_length=16, pad=1).encode("a red house, by a lake")


def test_a_bundle_with_such_a_tokenizer(run: Run, home: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any], root: Path) -> None:
        path = root / "tokenizer/tokenizer.json"
        values = json.loads(path.read_text())
        name_unknown_token(values)
        path.write_text(json.dumps(values))

    change_bundle(tiny_bundle, tmp_path / "changed", change)
    done = run("route", "a lake", "--bundle", tmp_path / "changed")
    assert done.exit_code == 4, done.output
    assert "it is not a usable tokenizer" in done.stderr
