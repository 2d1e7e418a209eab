"""F8: engines that root builds, as in a container image, are used by another user without any write."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.backends.setup import USUAL
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine.durable import replacing_folder, write_file
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names
from tests.other_user import needs_other_user, run_as_other_user, run_command, shared_folder

OPEN = """from costroute_rt import Runtime
with Runtime.open('{bundle}', build={build}) as runtime:
    print(runtime.generate('a lake', seed=1).pixels.shape)"""


class Shared:
    """A bundle, and a store with its engines, which root made for all."""

    def __init__(self, folder: Path, bundle: Path, home: Path) -> None:
        self.folder, self.bundle, self.home = folder, folder / "bundle", folder / "store"
        shutil.copytree(bundle, self.bundle)
        shutil.copytree(home, self.home)

    @property
    def engines(self) -> list[Path]:
        return sorted(path for path in (self.home / "engines").iterdir() if not path.name.startswith("."))

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, "--bundle", self.bundle, environment={"COSTROUTE_HOME": str(self.home), **environment})

    def state(self) -> dict[str, Any]:
        """Everything that a write would change."""
        found = {path: path.lstat() for path in (self.home, *self.home.rglob("*"))}
        return {str(path): (each.st_mode, each.st_uid, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for path, each in found.items()}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def built(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that root built, with the usual umask."""
    home, bundle = tmp_path_factory.mktemp("built") / "home", Bundle.open(tiny_bundle)
    with umask(0o022):
        build_engines(bundle, Store.open(home), engine_names(bundle), USUAL)
    return home


@pytest.fixture
def shared(tiny_bundle: Path, built: Path) -> Iterator[Shared]:
    with shared_folder() as folder:
        yield Shared(folder, tiny_bundle, built)


@pytest.mark.skipif(os.name == "nt", reason="checks modes under a umask, which Windows does not have")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o000])
def test_f8_only_its_owner_may_write_what_a_build_writes(tiny_bundle: Path, tmp_path: Path, mask: int) -> None:
    bundle = Bundle.open(tiny_bundle)
    with umask(mask):
        build_engines(bundle, Store.open(tmp_path / "home"), engine_names(bundle)[:1], USUAL)
    for path in (tmp_path / "home").rglob("*"):
        if path.parent.name == "locks":  # the locking library's own
            continue
        full = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == full & ~mask, path


@pytest.mark.skipif(os.name == "nt", reason="checks modes under a umask, which Windows does not have")
def test_f8_written_files_and_replaced_folders_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    with umask(0o027), replacing_folder(tmp_path / "folder"):
        write_file(tmp_path / "file", b"")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")] == [0o640, 0o750]


@needs_other_user
@pytest.mark.parametrize("build", [False, True])
def test_f8_another_user_opens_and_generates_without_a_write(shared: Shared, build: bool) -> None:
    before = shared.state()
    done = run_as_other_user(OPEN.format(bundle=shared.bundle, build=build), {"COSTROUTE_HOME": str(shared.home)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "(1, " in done.stdout
    assert shared.state() == before


@needs_other_user
@pytest.mark.parametrize(
    "arguments",
    [("engines", "list"), ("engines", "gc", "--max-gb", 10, "--dry-run"), ("engines", "gc", "--max-gb", 10), ("engines", "explain")],
)
def test_f8_another_user_looks_into_the_store(shared: Shared, arguments: tuple[object, ...]) -> None:
    before = shared.state()
    done = shared.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shared.state() == before


@needs_other_user
def test_f8_another_user_makes_an_image_with_the_command(shared: Shared) -> None:
    target = shared.folder / "output"
    target.mkdir()
    target.chmod(0o777)
    done = shared.run("gen", "a lake", "-o", target / "lake.png")
    assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr
    assert (target / "lake.png").exists()


@needs_other_user
def test_f8_what_must_be_written_names_the_owner_and_the_remedy(shared: Shared) -> None:
    shutil.rmtree(shared.engines[0])
    done = shared.run("gen", "a lake", "-o", "/tmp/never.png")
    assert done.returncode == 5
    assert "it belongs to another user (uid 0, root)" in done.stderr
    assert "COSTROUTE_HOME" in done.stderr
    assert "--force" not in done.stderr
    for arguments in (("engines", "rm", "--all"), ("engines", "rm", shared.engines[0].name)):
        done = run_command(*arguments, environment={"COSTROUTE_HOME": str(shared.home)})
        assert (done.returncode, "uid 0, root" in done.stderr, "a bug" in done.stderr) == (5, True, False), done.stderr
    assert len(shared.engines) == 4


@needs_other_user
def test_f8_a_store_of_another_user_alone_is_an_error_that_names_the_owner(shared: Shared) -> None:
    shared.home.chmod(0o700)
    for arguments in (
        ("gen", "a lake", "-o", "/tmp/never.png"),
        ("gen", "a lake", "--no-build", "-o", "/tmp/never.png"),
        ("engines", "list"),
    ):
        done = shared.run(*arguments)
        assert done.returncode == 5, done.stderr
        assert "it belongs to another user (uid 0, root)" in done.stderr
        assert "COSTROUTE_HOME" in done.stderr
        assert "--force" not in done.stderr


@needs_other_user
def test_f8_one_unreadable_engine_hides_no_other(shared: Shared) -> None:
    private, *others = shared.engines
    private.chmod(0o700)
    listed = json.loads(shared.run("engines", "list", "--json").stdout)["engines"]
    assert len(listed) == 5
    (hidden,) = [each for each in listed if each["engine"] == private.name]
    assert "another user (uid 0, root)" in hidden["state"]
    done = run_command("engines", "verify", environment={"COSTROUTE_HOME": str(shared.home)})
    assert done.returncode == 5
    assert "1 of 5 engines cannot be read" in done.stderr
    assert "engines rm" not in done.stderr
    assert done.stdout.count("good") == len(others)
    done = shared.run("engines", "gc", "--max-gb", 0)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert len(shared.engines) == 5
    done = run_command("engines", "rm", "--all", environment={"COSTROUTE_HOME": str(shared.home)})
    assert done.returncode == 5
    done = run_command("doctor", environment={"COSTROUTE_HOME": str(shared.home)})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


@needs_other_user
def test_f8_a_private_file_of_an_engine_names_the_owner(shared: Shared) -> None:
    for engine in shared.engines:
        (engine / "model.onnx").chmod(0o600)
    done = shared.run("gen", "a lake", "--no-build", "-o", "/tmp/never.png")
    assert (done.returncode, "uid 0, root" in done.stderr, "--force" in done.stderr) == (5, True, False), done.stderr


@needs_other_user
def test_f8_engines_that_are_missing_are_built_into_the_users_own_store(shared: Shared) -> None:
    shutil.rmtree(shared.engines[0])
    own = shared.folder / "own"
    own.mkdir()
    own.chmod(0o1777)
    done = run_as_other_user(
        OPEN.format(bundle=shared.bundle, build=True), {"COSTROUTE_HOME": str(own / "home"), "COSTROUTE_EXTRA_STORES": str(shared.home)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((own / "home/engines").iterdir())) == 1
