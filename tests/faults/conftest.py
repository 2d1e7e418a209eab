"""Fixtures of the commands' tests, for faults that people met on the command line."""

from __future__ import annotations

from tests.cli.conftest import built, built_home, run

__all__ = ["built", "built_home", "run"]
