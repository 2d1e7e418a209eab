"""The fuzz test for a short time, with a fixed seed; `python -m tests.fuzz` runs it for longer, with others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.fuzz.fuzz import Summary, fuzz
from tests.fuzz.place import make_template

SEED, SECONDS = 13, 90.0
"""COSTROUTE_FUZZ_SEED and COSTROUTE_FUZZ_SECONDS change them."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs named pipes, devices and limits of processes as Linux has them")
def test_no_input_ends_in_a_bug(tmp_path: Path) -> None:
    from tests.fuzz.kinds import KINDS  # needs modules that only such systems have

    seed, seconds = int(os.environ.get("COSTROUTE_FUZZ_SEED", SEED)), float(os.environ.get("COSTROUTE_FUZZ_SECONDS", SECONDS))
    template, work = make_template(tmp_path / "template"), tmp_path / "work"
    work.mkdir()
    summary = Summary(seed)
    fuzz(summary, template, work, seconds=seconds)
    sys.stdout.write(summary.describe())
    assert not summary.failures, "\n\n".join([summary.describe(), *(each.describe() for each in summary.failures)])
    assert set(summary.cases) == set(KINDS), summary.describe()
