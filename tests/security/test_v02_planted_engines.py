"""V2: nothing in the store is used that others than this user and root could have put there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.backends.setup import USUAL
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store import access
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import EngineError, Reason
from costroute_rt.family.calls import engine_names
from tests.other_user import UID, needs_other_user, run_as_other_user, run_command, shared_folder
from tests.security.small_store import KEY, read_costs, reseal, write_engine

on_posix = pytest.mark.skipif(os.name == "nt", reason="owners and modes, which Windows does not have")


@pytest.fixture
def engine(tmp_path: Path) -> StoredEngine:
    return write_engine(tmp_path / "way/store")[1]


@pytest.fixture
def store(engine: StoredEngine) -> Store:
    return Store.open(engine.path.parent.parent)


def contents(root: Path) -> dict[str, object]:
    found = {path: path.lstat() for path in (root, *root.rglob("*"))}
    return {str(path): (each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for path, each in found.items()}


def refused(store: Store, reason: Reason = Reason.UNTRUSTED) -> EngineError:
    """The error about the engine, after checking that no view of the store calls it good."""
    with pytest.raises(EngineError) as caught:
        store.find(KEY)
    assert caught.value.reason is reason, caught.value
    assert [each.is_good for each in store.verify()] == [False]
    return caught.value


@on_posix
@pytest.mark.parametrize("name", ["..", ".", "engines", "engines/ENGINE", "engines/ENGINE/model.onnx", "engines/ENGINE/manifest.json"])
@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_what_all_users_can_write_is_refused(store: Store, name: str, mode: int) -> None:
    path = (store.root / name.replace("ENGINE", KEY.digest)).resolve()
    path.chmod(mode)
    error = refused(store)
    assert error.path == str(path)
    assert error.problem == "all users can write it"
    assert "COSTROUTE_HOME" in str(error)


@on_posix
@pytest.mark.parametrize("name", [".", "engines", "engines/ENGINE"])
def test_the_sticky_bit_does_not_make_a_stores_own_directory_safe(store: Store, name: str) -> None:
    (store.root / name.replace("ENGINE", KEY.digest)).chmod(0o1777)
    refused(store)


@on_posix
def test_a_sticky_directory_above_the_store_is_safe(store: Store) -> None:
    store.root.parent.chmod(0o1777)
    assert store.find(KEY) is not None
    assert [each.is_good for each in store.verify()] == [True]


@on_posix
def test_nothing_is_written_to_a_store_that_others_can_write(store: Store, tiny_bundle: Path) -> None:
    store.root.chmod(0o777)
    before = contents(store.root)
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(EngineError, match="all users can write it"):
        build_engines(bundle, store, engine_names(bundle)[:1], USUAL)
    with pytest.raises(EngineError, match="all users can write it"):
        store.remove(KEY.digest)
    store.remember({tiny_bundle / "manifest.json": "0" * 64})
    assert store.sweep() == []
    assert contents(store.root) == before


@on_posix
def test_a_store_is_not_made_where_others_could_replace_it(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(EngineError) as caught:
        write_engine(tmp_path / "open/store")
    assert caught.value.reason is Reason.UNTRUSTED
    assert list((tmp_path / "open").iterdir()) == []


@on_posix
def test_costs_that_others_can_write_are_not_read(store: Store, engine: StoredEngine) -> None:
    assert len(read_costs(store, engine)) == 1
    (engine.path / "costs.json").chmod(0o666)
    with pytest.raises(EngineError, match="all users can write it") as caught:
        read_costs(store, engine)
    assert caught.value.reason is Reason.NOT_MEASURED


@on_posix
def test_links_are_followed_only_where_nobody_else_can_turn_them(store: Store, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    for folder in (tmp_path, tmp_path / "open"):
        (folder / "link").symlink_to("../" * (folder != tmp_path) + "way/store")
    (tmp_path / "open").chmod(0o777)
    assert Store.open(tmp_path / "link").find(KEY) is not None
    refused(Store.open(tmp_path / "open/link"))
    (tmp_path / "again").symlink_to(tmp_path / "open/link")  # by way of the same directory
    refused(Store.open(tmp_path / "again"))
    (tmp_path / "circle").symlink_to("circle")
    assert access.find_exposure(tmp_path / "circle") is not None


@on_posix
def test_an_engine_that_is_a_link_is_judged_by_its_target(store: Store, tmp_path: Path) -> None:
    path = store.folder / KEY.digest
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert store.find(KEY) is not None
    (tmp_path / "moved").chmod(0o777)
    refused(store)


@on_posix
def test_a_directory_that_the_user_vouches_for_is_exempt(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store.root.chmod(0o777)
    monkeypatch.setenv("COSTROUTE_TRUSTED_STORES", os.pathsep.join([str(tmp_path / "other"), str(store.root)]))
    assert store.find(KEY) is not None
    monkeypatch.setenv("COSTROUTE_TRUSTED_STORES", str(tmp_path / "way/sto"))
    refused(store)


@on_posix
def test_a_group_counts_unless_nobody_else_is_in_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.root.chmod(0o775)
    monkeypatch.setattr(access, "_is_private", lambda _: False)
    assert "a group can write it (gid " in refused(store).problem
    monkeypatch.setattr(access, "_is_private", lambda _: True)
    assert store.find(KEY) is not None
    monkeypatch.setattr(access, "_has_list", lambda _: True)
    assert "access control list" in refused(store).problem


@on_posix
@pytest.mark.parametrize(
    ("members", "primary", "is_private"),
    [([], "me", True), (["me", "root"], "me", True), (["me", "eve"], "me", False), ([], "eve", False), (["gone"], "me", False)],
)
def test_who_is_in_a_group(monkeypatch: pytest.MonkeyPatch, members: list[str], primary: str, is_private: bool) -> None:
    import grp
    import pwd

    ids = {"me": os.geteuid(), "root": 0, "eve": 4242}
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=members))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=ids[name]))
    monkeypatch.setattr(pwd, "getpwall", lambda: [SimpleNamespace(pw_uid=ids[primary], pw_gid=4343)])
    assert access._is_private.__wrapped__(4343) is is_private


@on_posix
def test_the_usual_store_is_replaced_by_a_temporary_one_where_others_can_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, temporary = tmp_path / "cache/costroute-rt", tmp_path / "tmp"
    (tmp_path / "cache").mkdir()
    temporary.mkdir()
    monkeypatch.delenv("COSTROUTE_HOME", raising=False)
    monkeypatch.setattr("costroute_rt.engines.store.home._usual", lambda: usual)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    assert Store.open().root == usual
    (tmp_path / "cache").chmod(0o777)
    store = Store.open()
    assert (store.root.parent, store.extras) == (temporary, ())
    assert "all users can write it" in str(store.note)


@on_posix
def test_an_extra_store_that_others_can_write_is_left_out(tiny_bundle: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    with Runtime.open(tiny_bundle, home=extra, build=True):
        pass
    extra.chmod(0o777)
    with pytest.raises(EngineError) as caught:
        Runtime.open(tiny_bundle, home=tmp_path / "home", extra_stores=[extra])
    assert caught.value.reason is Reason.UNTRUSTED
    with Runtime.open(tiny_bundle, home=tmp_path / "home", extra_stores=[extra], build=True) as runtime:
        assert runtime.generate("a lake", seed=1).pixels.any()
    assert len(list((tmp_path / "home/engines").iterdir())) == 5


PLANTS: dict[str, Callable[[Path], object]] = {
    "file": lambda folder: (folder / "model2.onnx").write_bytes(b"network"),
    "link": lambda folder: (folder / "weights.bin").symlink_to("/etc/hostname"),
    "folder": lambda folder: (folder / "sub").mkdir(),
    "hidden file": lambda folder: (folder / ".model.onnx").touch(),
    "name like a leftover of costs": lambda folder: (folder / ".costs.json.d").touch(),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_file_that_the_manifest_does_not_list_makes_an_engine_invalid(store: Store, engine: StoredEngine, plant: str) -> None:
    PLANTS[plant](engine.path)
    error = refused(store, Reason.DAMAGED)
    assert error.problem == "the engine's manifest does not list it"
    assert os.path.dirname(str(error.path)) == str(engine.path)


@pytest.mark.parametrize("leftover", ["costs.json", "runtime.cache", ".costs.json.0123456789abcdef", ".runtime.cache.0123456789abcdef"])
def test_what_the_program_adds_to_an_engine_is_no_damage(store: Store, engine: StoredEngine, leftover: str) -> None:
    (engine.path / leftover).touch()
    assert [each.is_good for each in store.verify()] == [True]


def test_an_engine_without_files_is_invalid(store: Store, engine: StoredEngine) -> None:
    reseal(engine, lambda manifest: manifest.update(files={}))
    assert "no files" in refused(store, Reason.DAMAGED).problem


@on_posix
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "socket"])
def test_an_engines_files_are_regular_ones(
    store: Store, engine: StoredEngine, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = engine.path / name
    path.rename(store.root / "kept")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(store.root / "kept")
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(engine.path)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
    assert os.path.dirname(str(refused(store, Reason.DAMAGED).path)) == str(engine.path)


@on_posix
@pytest.mark.parametrize("name", ["costs.json", "../../trust.json"])
@pytest.mark.parametrize("target", ["/dev/zero", None])
def test_costs_and_hashes_are_read_from_regular_files(store: Store, engine: StoredEngine, name: str, target: str | None) -> None:
    path = engine.path / name
    path.unlink()
    if target is None:
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    again = Store.open(store.root)
    assert again.find(KEY) is not None
    if name == "costs.json":
        with pytest.raises(EngineError) as caught:
            read_costs(again, engine)
        assert caught.value.reason is Reason.NOT_MEASURED


PLANTER = """import shutil, json, pathlib, hashlib
shutil.copytree('{source}', '{shared}/engines')
for engine in pathlib.Path('{shared}/engines').iterdir():
    manifest = json.loads((engine / 'manifest.json').read_text())
    manifest['files'] = {{}}
    for data in engine.glob('*.data'):
        data.write_bytes(bytes(data.stat().st_size))
    text = json.dumps(manifest).encode()
    (engine / 'manifest.json').write_bytes(text)
    (engine / 'manifest.sha256').write_text(hashlib.sha256(text).hexdigest())
"""


@pytest.fixture
def planted(tiny_bundle: Path) -> Iterator[Path]:
    """A directory that all can write, like /tmp, into which another user put engines first."""
    with shared_folder() as folder:
        bundle = Bundle.open(tiny_bundle)
        build_engines(bundle, Store.open(folder / "honest"), engine_names(bundle), USUAL)
        (folder / "shared").mkdir()
        (folder / "shared").chmod(0o1777)
        done = run_as_other_user(PLANTER.format(source=folder / "honest/engines", shared=folder / "shared"), {})
        assert done.returncode == 0, done.stderr
        yield folder / "shared"


def run_here(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "costroute_rt.cli", *map(str, arguments)]
    environment = {**os.environ, "COSTROUTE_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@needs_other_user
@pytest.mark.parametrize("mode", [0o1777, 0o755])
def test_engines_that_another_user_planted_are_neither_run_nor_good(planted: Path, tiny_bundle: Path, tmp_path: Path, mode: int) -> None:
    planted.chmod(mode)
    made = run_here("gen", "a lake", "--bundle", tiny_bundle, "-o", tmp_path / "lake.png", home=planted)
    assert (made.returncode, (tmp_path / "lake.png").exists()) == (5, False), made.stderr
    assert ("all users can write it" if mode == 0o1777 else f"it belongs to another user (uid {UID})") in made.stderr
    verified = run_here("engines", "verify", "--json", home=planted)
    assert verified.returncode == 5
    assert all(each["problem"] for each in json.loads(verified.stdout)["engines"])
    listed = run_here("engines", "list", "--bundle", tiny_bundle, "--json", home=planted)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert {each["state"].split(":")[0] for each in json.loads(listed.stdout)["engines"]} == {"not trusted"}
    assert run_here("doctor", home=planted).returncode == 1


@needs_other_user
def test_one_engine_of_another_user_is_built_again(tiny_bundle: Path, tmp_path: Path) -> None:
    with Runtime.open(tiny_bundle, home=tmp_path, build=True):
        pass
    strange = next(iter((tmp_path / "engines").iterdir()))
    os.chown(strange, UID, UID)
    states = {each["engine"]: each for each in json.loads(run_here("engines", "verify", "--json", home=tmp_path).stdout)["engines"]}
    assert states[strange.name]["command"] == f"costroute-rt engines rm {strange.name[:12]}"
    with pytest.raises(EngineError, match=f"another user \\(uid {UID}"):
        Runtime.open(tiny_bundle, home=tmp_path)
    with Runtime.open(tiny_bundle, home=tmp_path, build=True):
        pass
    assert strange.stat().st_uid == 0


@needs_other_user
def test_another_users_store_is_not_used_by_root(tiny_bundle: Path) -> None:
    with shared_folder() as folder:
        shutil.copytree(tiny_bundle, folder / "bundle")
        (folder / "home").mkdir()
        os.chown(folder / "home", UID, UID)
        code = f"from costroute_rt import Runtime\nRuntime.open('{folder}/bundle', home='{folder}/home/store', build=True).close()"
        assert run_as_other_user(code, {}).returncode == 0
        with pytest.raises(EngineError, match=f"home: it belongs to another user \\(uid {UID}\\)"):
            Runtime.open(tiny_bundle, home=folder / "home/store", build=True)


@needs_other_user
def test_engines_of_root_are_used_by_another_user(tiny_bundle: Path) -> None:
    with shared_folder() as folder:
        bundle = Bundle.open(shutil.copytree(tiny_bundle, folder / "bundle"))
        build_engines(bundle, Store.open(folder / "store"), engine_names(bundle), USUAL)
        done = run_command("engines", "verify", environment={"COSTROUTE_HOME": str(folder / "store")})
        assert (done.returncode, done.stdout.count("good")) == (0, 5), done.stderr


@on_posix
def test_in_a_user_namespace_the_directories_above_may_belong_to_users_outside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    way, lstat = str(store.root.parent), os.lstat

    def outside(path: str) -> os.stat_result:
        found = lstat(path)
        return os.stat_result((*found[:4], 65534, *found[5:])) if str(path) in owned else found

    monkeypatch.setattr(access.os, "lstat", outside)
    monkeypatch.setattr(access, "_unmapped_uid", lambda: 65534)
    owned = {"/", way}
    assert access.find_exposure(store.root) is None
    owned.add(str(store.root))
    assert access.find_exposure(store.root) is not None
    owned.remove(str(store.root))
    monkeypatch.setattr(access, "_unmapped_uid", lambda: None)
    assert access.find_exposure(store.root) is not None
