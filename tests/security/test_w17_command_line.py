"""W17: the command line of the building process, which every user of the machine can read, says nothing about its job."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building import background
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store


def test_the_job_is_not_on_the_command_line(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "COMMAND", ("-c", "import sys; sys.exit(3)"))
    name, setup = "tiny/text_encoder/encode", Setup(threads=1)
    builder = background.start_builder(Bundle.open(tiny_bundle, verify=False), Store.open(tmp_path / "home"), [name], setup, setup, {})
    words = " ".join(map(str, builder._process.args))
    assert [event["state"] for event in builder.events()] == ["failed"]
    builder.release()
    assert not any(text in words for text in (str(tiny_bundle), str(tmp_path), name))
