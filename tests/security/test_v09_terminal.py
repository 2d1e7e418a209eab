"""V9: text of bundles, stores, images and file names never controls the terminal, and every command to paste is one command."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.cli import command as commands
from costroute_rt.cli.command import build_engines, fix_command, pip_command, profile, quote, remove_engine
from costroute_rt.cli.failure import say
from costroute_rt.cli.main import PlainFormatter
from costroute_rt.cli.table import format_table, show
from costroute_rt.error import BackendError, BundleError, ConfigError, CostrouteError, EngineError, OutputError, PromptError, Reason
from costroute_rt.plain_text import one_line, printable

HOSTILE = "\x1b]0;PWN\x07\x1b[2J\x9b2J\u202egnp.exe\u2028next\x85\ud800\r\nerror: forged"
SAFE_TEXTS = ("Zürich", "日本　語", "👩\u200d🚀", "می\u200cخواهم", "a  b", "\\x1b", "")
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="commands are quoted for a POSIX shell")


def assert_plain(text: str, *, lines: int | None = None) -> None:
    assert all(character.isprintable() or character in "\n\u3000" for character in text), ascii(text)
    if lines is not None:
        assert len(text.splitlines()) == lines, text


def test_every_control_character_is_escaped() -> None:
    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
    assert_plain(printable("".join(controls)), lines=1)
    assert_plain(one_line("".join(controls)), lines=1)
    assert printable("a\nb\x1bc", keep_lines=True) == "a\nb\\x1bc"


@pytest.mark.parametrize("text", SAFE_TEXTS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == one_line(text) == text


ERRORS = (
    BundleError(f"/a/{HOSTILE}", HOSTILE, HOSTILE), EngineError(HOSTILE, reason=Reason.DAMAGED, engine=HOSTILE, path=HOSTILE),
    ConfigError(HOSTILE, HOSTILE, HOSTILE), PromptError(HOSTILE), OutputError(HOSTILE, HOSTILE), BackendError(HOSTILE, HOSTILE, HOSTILE),
)  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_text_of_an_error_is_one_plain_line(error: CostrouteError) -> None:
    assert_plain(str(error), lines=1)
    assert "PWN" in str(error)


def test_tables_results_and_notes_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    (header, row) = format_table([HOSTILE, "b"], [[HOSTILE, 1]])
    assert_plain(header + row, lines=1)
    show(HOSTILE)
    say(HOSTILE)
    shown = capsys.readouterr()
    assert_plain(shown.out, lines=2)
    assert_plain(shown.err, lines=1)


def test_a_logged_name_cannot_look_like_another_message() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("x", logging.WARNING, "x", 1, "%s", (HOSTILE,), sys.exc_info())
    text = PlainFormatter("%(levelname)s %(message)s").format(record)
    assert_plain(text)
    assert text.splitlines()[0].startswith("WARNING \\x1b]0;PWN")
    assert not any(line.startswith("\x1b") for line in text.splitlines())


WORDS = (
    "x; touch PWNED #",
    "$(touch PWNED)",
    "`touch PWNED`",
    "a b",
    "-rf",
    "--force",
    "a'b",
    '"',
    "&& id",
    "a\nid",
    "\x1b[2J",
    "|id",
    "*",
)
USUAL = {"backend": "onnxruntime", "provider": "cpu", "precision": "float32"}


@needs_posix
@pytest.mark.parametrize("word", [*WORDS, "\u202e", "\\", "é"])
def test_a_quoted_word_is_one_word_of_the_shell(word: str) -> None:
    assert_plain(quote(word), lines=1)
    shell = subprocess.run(["bash", "-c", f"printf %s {quote(word)}"], capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert shell.stdout.decode() == word


@needs_posix
@pytest.mark.parametrize("word", [word for word in WORDS if word.isprintable()])
@pytest.mark.parametrize("field", ["backend", "provider", "precision", "threads", "target"])
def test_every_value_in_a_command_stays_a_value(word: str, field: str) -> None:
    for text in (build_engines({**USUAL, field: word}, word), profile({**USUAL, field: word}, f"/{word}")):
        words = shlex.split(text)
        assert words[0] == "costroute-rt"
        assert all(each.startswith("--") for each in words[2:] if each.startswith("-"))
        if field != "target" or words[1] == "build-engines":
            assert word in words or f"--{field}={word}" in words, text


@needs_posix
@pytest.mark.parametrize("word", WORDS)
def test_names_to_install_and_remove_stay_names(word: str) -> None:
    error = BackendError("a", "b", "c", [word], uninstall=[word], instead={"provider": word})
    for text in (pip_command([word], [word]), remove_engine(word), fix_command(error) or ""):
        assert_plain(text, lines=1)
    assert word[:12] in shlex.split(remove_engine(word)) or not word.isprintable()
    assert "id" not in shlex.split(pip_command([word]))


def test_windows_quotes_as_its_programs_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.sys, "platform", "win32")
    assert quote("my bundle") == '"my bundle"'
    assert quote("plain") == "plain"


def run(*arguments: str, home: Path, folder: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "costroute_rt.cli", *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "COSTROUTE_HOME": str(home)}, capture_output=True, timeout=120)


def broken_bundle(source: Path, target: Path) -> Path:
    """Its manifest lists a file with a hostile name."""
    import hashlib

    shutil.copytree(source, target)
    manifest: dict[str, Any] = json.loads((target / "manifest.json").read_text())
    manifest["files"][HOSTILE.replace("\ud800", "")] = {"sha256": "0" * 64, "bytes": 1}
    manifest["license"] = HOSTILE.replace("\ud800", "")
    data = json.dumps(manifest).encode()
    (target / "manifest.json").write_bytes(data)
    (target / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())
    return target


@needs_posix
def test_a_hostile_bundle_does_not_control_the_terminal(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = broken_bundle(tiny_bundle, tmp_path / "bundle")
    for arguments in (["route", "a lake", "--bundle", str(bundle)], ["engines", "list", "--bundle", str(tmp_path / "\x1b[2J")]):
        result = run(*arguments, home=tmp_path / "home", folder=tmp_path)
        assert result.returncode in (2, 4), result
        assert_plain((result.stdout + result.stderr).decode())
        assert b"error: forged" not in b"\n".join(result.stderr.splitlines()[1:])
