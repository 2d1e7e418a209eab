"""Found by the fuzz test: names in a graph that are not UTF-8 ended in UnicodeDecodeError."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fuzz.mutation import seal

NAMES = (b"input_ids", b"last_hidden_state", b"Gather")


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
def test_a_graph_with_names_that_are_not_utf_8(run: Run, home: Path, tiny_bundle: Path, tmp_path: Path, name: bytes) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    path = bundle / "text_encoder/model.onnx"
    data = path.read_bytes()
    assert name in data
    path.write_bytes(data.replace(name, b"\xac" + name[1:]))
    seal(bundle)
    done = run("build-engines", "--bundle", bundle)
    assert done.exit_code == 4, done.output
    assert "a bug" not in done.output
