"""An export that cannot replace an older bundle keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt.export.checkpoint.checkpoint import _staging


def test_a_failed_replacement_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError), _staging(target, True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / "manifest.json").read_text() == "old"
