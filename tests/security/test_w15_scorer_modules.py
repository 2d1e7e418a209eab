"""W15: a scorer of the user is imported on purpose only: after all installed modules, and with a report of the file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from costroute_rt.export.router.scorers import FunctionScorer


def scorer_module(folder: Path, name: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text("def score(pixels, prompt): return 0.5\n")
    return path


def test_a_scorer_in_the_working_directory_does_not_replace_installed_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = scorer_module(tmp_path, "my_own_scorer")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('of the working directory')\n")
    path.write_text("import colorsys\n" + path.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = list(sys.path)
    with caplog.at_level(logging.WARNING):
        scorer = FunctionScorer.open("my_own_scorer:score")
    monkeypatch.delitem(sys.modules, "my_own_scorer")
    assert scorer.name == "score"
    assert str(path) in caplog.text
    assert sys.path == before
