"""Changed files are read, or refused with an error of this package: Hypothesis draws the changes, and simplifies one that fails.

`python -m tests.fuzz.coverage NAME` searches the same readers for longer, guided by the code that each input reaches.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import coverage
from tests.fuzz.place import Place, make_template
from tests.fuzz.reader import READERS, Reader

EXAMPLES, SECONDS = 60, 3
"""Changes by Hypothesis, and seconds of a guided search, for each reader."""
SEARCHED = ("manifest", "graph", "weights", "router", "tokenizer", "labels", "png")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template") / "files")


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused(template: Path, tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = reader.make(Place.make(template, tmp_path / "place").root)
    original = path.read_bytes()
    reader.read(path)  # the original is not refused

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(random: Random) -> None:
        assert reader.try_content(path, reader.change(random, original)) is None

    check()


def test_errors_of_others_and_control_characters_are_noticed(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        raise KeyError(path)

    reader = Reader(lambda root: root, lambda random, data: data, read)
    assert "KeyError" in (reader.try_content(tmp_path / "x", b"") or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHED)
def test_a_guided_search_finds_nothing(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason="searches with Atheris: pip install costroute-rt[fuzz]")
    code = coverage.main([name, "--seconds", str(SECONDS), "--failures", str(tmp_path / "failures")])
    output = capsys.readouterr().out
    assert code == 0, output
    assert "places reached" in output
