"""W8: `info` reads and prints a bounded part of any image."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from costroute_rt.cli.main import cli
from costroute_rt.embedded_text import find_text
from costroute_rt.error import ConfigError
from costroute_rt.image_settings import read_settings


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, settings: Any) -> Path:
    text = b"costroute\0\1\0\0\0" + zlib.compress(settings if isinstance(settings, bytes) else json.dumps(settings).encode())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"iTXt", text) + chunk(b"IEND"))
    return path


def info(path: Path, *options: str) -> str:
    result = CliRunner().invoke(cli, ["info", str(path), *options], prog_name="costroute-rt")
    assert result.exit_code == 0, result
    return result.output


HOSTILE: dict[str, dict[str, Any]] = {
    "many names and a long one": {"x" * 50_000: 1, **{f"k{number}": number for number in range(8000)}},
    "a long value": {"prompt": "a", "seed": 1, "notes": "x" * 900_000},
    "a long prompt": {"prompt": "a" * 900_000, "seed": 1},
    "a prompt of escapes": {"prompt": "\x1b" * 150_000, "seed": 1},
    "long names of a bundle": {"prompt": "a", "family": "f" * 500_000, "revision": "r" * 400_000},
    "a deep list": {"prompt": "a", "notes": json.loads("[" * 500 + "]" * 500)},
}


@pytest.mark.parametrize("settings", HOSTILE.values(), ids=HOSTILE)
def test_little_is_printed(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write_png(tmp_path / "image.png", settings)
    assert len(info(path)) < 400_000
    assert len(info(path, "--json")) < 8 << 20
    assert "\x1b" not in info(path)


def test_a_prompt_that_no_command_line_holds_gets_no_command(tmp_path: Path) -> None:
    path = write_png(tmp_path / "image.png", {"prompt": "a" * 200_000})
    assert "note: its prompt is too long for a command" in info(path)
    assert json.loads(info(path, "--json"))["command"] is None


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": "' + b"x" * (2 << 20) + b'"}', b"[]", b"{}x", b'{"a": NaN}', b"\xff"])
def test_settings_that_are_too_long_or_damaged_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError):
        read_settings(write_png(tmp_path / "image.png", content))


class Endless:
    """A file of a terabyte that consists of one thing again and again, and counts how much of it is read."""

    def __init__(self, start: bytes, again: bytes) -> None:
        self._start, self._again, self._at, self.reads = start, again, 0, 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        if self._at < len(self._start):
            piece = self._start[self._at : self._at + size]
        else:
            place = (self._at - len(self._start)) % len(self._again)
            piece = (self._again * (size // len(self._again) + 2))[place : place + size]
        self._at += len(piece)
        return piece

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = self._at + offset if whence else offset
        return self._at


ENDLESS = {
    "empty chunks": (b"\x89PNG\r\n\x1a\n", chunk(b"odDs")),
    "texts under other names": (b"\x89PNG\r\n\x1a\n", chunk(b"tEXt", b"other\0" + b"x" * 100_000)),
    "fill bytes": (b"\xff\xd8", b"\xff"),
    "empty segments": (b"\xff\xd8", b"\xff\xe2\0\2"),
    "markers": (b"\xff\xd8", b"\xff\xd0"),
    "other chunks": (b"RIFF\xff\xff\xff\xffWEBP", b"odds\0\0\0\0"),
}


@pytest.mark.parametrize(("start", "again"), ENDLESS.values(), ids=ENDLESS)
def test_an_endless_image_is_given_up(start: bytes, again: bytes) -> None:
    file = Endless(start, again)
    with pytest.raises(ValueError, match="metadata is too long"):
        find_text(file, "costroute")
    assert file.reads <= (1 << 20) + 1
