"""The folder to ship: small enough, and it runs for another user from where nothing can be written, without Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from costroute_rt import read_settings
from tests.other_user import UID, can_switch_user, shared_folder

FREEZE = Path(__file__).parents[2] / "examples/qt/freeze"
MOST_BYTES, MOST_PACKED_BYTES = 300_000_000, 130_000_000
PATIENCE_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("PySide6") is None, reason="freezes the Qt example: pip install -r examples/qt/requirements.txt"),
    pytest.mark.skipif(find_spec("PyInstaller") is None, reason="freezes the Qt example: pip install pyinstaller"),
    pytest.mark.skipif(find_spec("uvicorn") is None, reason='the folder has the server: pip install "costroute-rt[serve]"'),
    pytest.mark.skipif(
        not any(each.value.startswith("costroute_rt.") for each in metadata.entry_points(group="pyinstaller40")),
        reason="the entry point is read from an installed package: pip install .",
    ),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The frozen folder, which everybody may read and nobody may write."""
    with shared_folder() as place:
        command = [
            sys.executable,
            "-m",
            "PyInstaller",
            "--noconfirm",
            "--log-level",
            "ERROR",
            "--distpath",
            place,
            "--workpath",
            place / "work",
        ]
        environment = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(place / "config")}
        frozen = subprocess.run([*command, FREEZE / "costroute.spec"], cwd=place, env=environment, capture_output=True, text=True)
        if "PythonLibraryNotFound" in frozen.stderr:
            pytest.skip("this Python has no shared library, which PyInstaller needs")
        assert frozen.returncode == 0, frozen.stderr
        shutil.rmtree(place / "work")
        subprocess.run([sys.executable, FREEZE / "licenses.py", place / "costroute-rt"], check=True)
        _set_writable(place / "costroute-rt", False)
        yield place / "costroute-rt"
        _set_writable(place / "costroute-rt", True)


def _set_writable(folder: Path, is_writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200 if is_writable else path.stat().st_mode & ~0o222)


@pytest.fixture
def user_home() -> Iterator[Path]:
    """The home directory of another user, or of this one where that is impossible."""
    with shared_folder() as home:
        if can_switch_user():
            os.chown(home, UID, UID)
        yield home


def start(*command: Any, environment: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """A program as the other user, with this environment alone, which has no Python on its PATH."""
    other: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []} if can_switch_user() else {}
    return subprocess.Popen(
        [str(each) for each in command],
        cwd="/",
        env={"PATH": "/nowhere", **environment},
        text=True,
        stdout=subprocess.PIPE,
        **other,
        **options,
    )


def test_the_folder_is_small(folder: Path, tmp_path: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    packed = tmp_path / "costroute.tar.xz"
    with tarfile.open(packed, "w:xz", preset=0) as archive:
        archive.add(folder, arcname="costroute-rt")
    size = packed.stat().st_size
    packed.unlink()
    assert size <= MOST_PACKED_BYTES


def test_the_window_starts_and_generates_without_python(folder: Path, user_home: Path) -> None:
    environment = {"HOME": str(user_home), "QT_QPA_PLATFORM": "offscreen"}
    program = start(folder / "costroute-rt", "--self-test", user_home / "image.png", environment=environment, stderr=subprocess.PIPE)
    output, problems = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0, problems
    assert (user_home / "image.png").read_bytes() == Path(json.loads(output)["kept"]).read_bytes()
    assert read_settings(user_home / "image.png")["seed"] == 7
    with Image.open(user_home / "image.png") as image:
        low, high = image.convert("L").getextrema()
        assert int(high) - int(low) > 64  # type: ignore[arg-type]


def test_the_server_in_the_folder_serves_its_page(folder: Path, user_home: Path) -> None:
    command = (folder / "costroute-rt", "serve", "--port", "0")
    with start(*command, environment={"HOME": str(user_home)}, stderr=subprocess.DEVNULL) as program:
        try:
            assert program.stdout is not None
            address = json.loads(program.stdout.readline())
            for name, expected in (("", "<!doctype html>"), ("app.js", "import"), ("style.css", "color-scheme")):
                request = urllib.request.Request(f"{address['url']}/{name}", headers={"Authorization": f"Bearer {address['token']}"})
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                    assert expected in answer.read().decode().lower()
        finally:
            program.terminate()


def test_the_licences_of_what_is_inside_are_in_the_folder(folder: Path) -> None:
    text = (folder / "THIRD_PARTY_LICENSES").read_text(encoding="utf-8")
    listed = text.partition("=" * 100)[0]
    for name in ("costroute-rt", "numpy", "onnxruntime", "pillow", "pyinstaller", "PySide6_Essentials", "Python", "tokenizers", "uvicorn"):
        assert f"\n{name} " in listed
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in text
    for name in ("huggingface", "matplotlib", "PyYAML"):
        assert f"\n{name}" not in listed
