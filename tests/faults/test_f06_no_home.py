"""F6: without a home directory, or with one that cannot be written, engines are kept in a temporary store of this user."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError, Reason
from tests.other_user import UID, needs_other_user, run_as_other_user, run_command, shared_folder

VARIABLES = ("COSTROUTE_HOME", "COSTROUTE_EXTRA_STORES", "HOME", "XDG_CACHE_HOME")
on_posix = pytest.mark.skipif(os.name == "nt", reason="homes and temporary directories by the rules of POSIX")
OPEN = "from costroute_rt import Runtime\nwith Runtime.open('{bundle}', build=True) as runtime: print(runtime.store)"


@pytest.fixture
def place(tiny_bundle: Path) -> Iterator[Path]:
    """A folder that all can write, like /tmp, with a bundle that all can read."""
    with shared_folder() as folder:
        shutil.copytree(tiny_bundle, folder / "bundle")
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        yield folder


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variable that names a directory, and an empty temporary one; returns it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    from costroute_rt.engines.store import home

    home._warn_once.cache_clear()
    return tmp_path / "tmp"


@needs_other_user
@pytest.mark.parametrize("variables", [{}, {"HOME": "/nonexistent"}, {"HOME": "/"}, {"HOME": "/root"}, {"XDG_CACHE_HOME": "cache"}])
def test_f6_a_user_without_a_usable_home_gets_a_temporary_store(place: Path, variables: dict[str, str]) -> None:
    environment = {**variables, "TMPDIR": str(place / "tmp")}
    first, again = (run_as_other_user(OPEN.format(bundle=place / "bundle"), environment) for _ in range(2))
    store = place / f"tmp/costroute-rt-{UID}"
    for done in (first, again):
        assert (done.returncode, done.stdout.strip()) == (0, str(store)), done.stderr
        assert done.stderr.count(str(store)) == 1
        assert done.stderr.count("COSTROUTE_HOME") == 1
    assert (store.stat().st_uid, stat.S_IMODE(store.stat().st_mode)) == (UID, 0o700)
    assert len([path for path in (store / "engines").iterdir() if path.stat().st_mtime_ns]) == 5


@needs_other_user
def test_f6_the_command_says_where_engines_are_kept_and_works(place: Path) -> None:
    environment = {"PATH": "/usr/bin", "TMPDIR": str(place / "tmp")}
    done = run_command("gen", "a lake", "-o", place / "tmp/lake.png", "--bundle", place / "bundle", environment=environment)
    assert (done.returncode, "a bug" in done.stderr) == (0, False), done.stderr
    assert done.stderr.count("COSTROUTE_HOME") == 1
    done = run_command("doctor", environment=environment)
    assert "engines are kept in the temporary directory" in done.stdout


@needs_other_user
def test_f6_where_nothing_can_be_written_the_error_names_the_variable(place: Path) -> None:
    code = (
        "import tempfile\ndef nowhere(): raise FileNotFoundError(2, 'No usable temporary directory found')\ntempfile.gettempdir = nowhere\n"
    )
    command = f"sys.argv = ['costroute-rt', 'gen', 'a lake', '-o', '/tmp/never.png', '--bundle', {str(place / 'bundle')!r}]\n"
    done = run_as_other_user(f"{code}{command}from costroute_rt.cli.main import main\nmain()", {})
    assert done.returncode == 5, done.stderr
    assert "COSTROUTE_HOME" in done.stderr
    for arguments in (("--help",), ("--version",), ("engines", "list", "--bundle", place / "bundle")):
        assert run_command(*arguments, environment={"TMPDIR": str(place / "tmp")}).returncode == 0


@needs_other_user
@pytest.mark.parametrize("name", ["file", "private", "missing/below/private"])
def test_f6_a_home_that_was_asked_for_is_an_error_only_where_something_is_written(place: Path, name: str) -> None:
    (place / "file").touch()
    (place / "private").mkdir(mode=0o755)
    environment = {"COSTROUTE_HOME": str(place / name)}
    done = run_command("gen", "a lake", "-o", place / "tmp/lake.png", "--bundle", place / "bundle", environment=environment)
    assert (done.returncode, "COSTROUTE_HOME" in done.stderr, "a bug" in done.stderr) == (5, True, False), done.stderr
    if name != "file":
        done = run_command("engines", "list", "--bundle", place / "bundle", environment=environment)
        assert (done.returncode, done.stderr) == (0, "")


@on_posix
def test_f6_the_usual_home_is_used_silently(homeless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    store = Store.open()
    assert store.root.is_relative_to(tmp_path / "user")
    assert (store.note, store.is_writable) == (None, True)
    assert not (tmp_path / "user").exists()


@on_posix
@pytest.mark.parametrize(("variable", "value"), [("XDG_CACHE_HOME", "cache"), ("COSTROUTE_HOME", "")])
def test_f6_a_relative_cache_directory_and_an_empty_variable_are_ignored(
    homeless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv(variable, value)
    assert Store.open().root.is_relative_to(tmp_path / "user")


@on_posix
def test_f6_a_temporary_store_is_reported_once(homeless: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("costroute_rt.engines.store.home._usual", lambda: None)
    with caplog.at_level(logging.WARNING):
        first, again = Store.open(), Store.open()
    assert first == again
    assert first.root == homeless / f"costroute-rt-{os.geteuid()}"
    assert "the home directory is unknown" in str(first.note)
    assert [str(first.root) in record.getMessage() for record in caplog.records] == [True]


@on_posix
@pytest.mark.parametrize("trap", ["link", "file", "wide"])
def test_f6_a_temporary_store_that_others_could_fill_is_not_used(homeless: Path, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    monkeypatch.setattr("costroute_rt.engines.store.home._usual", lambda: None)
    path = homeless / f"costroute-rt-{os.geteuid()}"
    if trap == "link":
        (homeless / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(homeless / "elsewhere")
    elif trap == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777)
    store = Store.open()
    assert not store.is_writable
    with pytest.raises(EngineError, match=r"costroute-rt-.*COSTROUTE_HOME") as caught, store.lock("0"):
        pass
    assert caught.value.reason is Reason.PERMISSION


@on_posix
def test_f6_engines_of_a_home_that_cannot_be_written_are_used(
    homeless: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    usual = Store.open().root
    with Runtime.open(tiny_bundle, build=True) as runtime:
        assert runtime.store == usual
    monkeypatch.setattr("costroute_rt.engines.store.home.can_write", lambda path: not path.is_relative_to(usual))
    with Runtime.open(tiny_bundle) as runtime:
        assert runtime.store == homeless / f"costroute-rt-{os.geteuid()}"
    assert not (homeless / f"costroute-rt-{os.geteuid()}/engines").exists()


@pytest.mark.parametrize("home", ["", "  ", "a\0b", "~no-such-user-at-all/x"])
def test_f6_a_home_that_is_no_directory_name_is_refused(home: str) -> None:
    with pytest.raises(ConfigError):
        Store.open(home)


@on_posix
def test_f6_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nos.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\nsys.argv = ['costroute-rt', *sys.argv[1:]]\n"
        "from costroute_rt.cli.main import main\nmain()"
    )
    environment = {**os.environ, "COSTROUTE_HOME": "relative"}
    for arguments, exit_code in ((["--help"], 0), (["engines", "list"], 2), (["gen", "a lake"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "a bug" in done.stderr, "Traceback" in done.stderr) == (exit_code, False, False), done.stderr


@on_posix
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_f6_closed_standard_streams(tiny_bundle: Path, tmp_path: Path, closed: int) -> None:
    command = [sys.executable, "-m", "costroute_rt.cli", "gen", "--prompts", "-", "--bundle", str(tiny_bundle)]
    environment = {**os.environ, "COSTROUTE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}{"<" if closed == 0 else ">"}&-', "sh", *command],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "a bug" in done.stderr) == (2, False), done.stderr
    assert closed == 2 or "at least one prompt" in done.stderr
