"""Fixtures of the commands' tests, and an exported checkpoint, for faults that people met."""

from __future__ import annotations

from tests.cli.conftest import built, built_home, fake, gen, run
from tests.faults.exported_oddity import oddity

__all__ = ["built", "built_home", "fake", "gen", "oddity", "run"]
