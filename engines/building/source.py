"""The graph that an engine is built from, beside its weights, as the libraries want it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.digest import sha256_files
from costroute_rt.engines.machine.durable import make_folder_beside, store_errors
from costroute_rt.engines.store.access import check_file
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError

_State = tuple[int, ...]
_Content = tuple[int, int, int, int]


@contextmanager
def verified_graph(bundle: Bundle, store: Store, component: str, graph: str, digest: str) -> Iterator[Path]:
    """A graph of a bundle, verified with its weights, while an engine is built from it. The caller holds the lock of `digest`.

    The graph and its weights get their names in a private folder of the store, and are hashed there: as hard links, or as copies on
    another disk. So nobody can put other files in their place between the check and the build, libraries find nothing else beside the
    graph, and a model hub's links are files (libraries refuse weights that are links). Raises BundleError for files that are changed
    meanwhile, when the block ends.
    """
    names = bundle.graph_files(component, graph)
    digests = _hash_own(bundle, store, names)
    with store_errors(store.folder):
        store.make_folder()
        folder = make_folder_beside(store.folder / digest, 0o700)
    try:
        with store_errors(folder):
            for name in names:
                _link(bundle.path(name).resolve(), folder / name)
        states = _states(folder, names)
        yield bundle.verify_graph(component, graph, folder, hash_files=partial(_hash_files, digests))
        if _states(folder, names) != states:  # another link also changes a time of a file
            bundle.check_hashes(*names, folder=folder)
        known = {bundle.path(name): bundle.files[name].sha256 for name in names if _is_same(folder / name, bundle.path(name))}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    store.remember(known)  # a hard link changes a time of the file, which would be hashed again


def _hash_own(bundle: Bundle, store: Store, names: tuple[str, ...]) -> dict[_Content, str]:
    """Hashes of the files that nobody but this user and root can write, most of them from the record of the store.

    A checkpoint of some gigabytes is then not read again for each graph.
    """
    own = dict[Path, _Content]()
    for name in names:
        path = bundle.path(name).resolve()
        with suppress(OSError, EngineError):
            found = path.stat()
            check_file(path, found)
            own[path] = _content(found)
    try:
        digests = store.hash_files(own)
    except OSError:  # it is reported by the check that follows
        return {}
    return {state: digests[path] for path, state in own.items()}


def _hash_files(known: Mapping[_Content, str], paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file; known: by what a hard link to a file that is hashed already has in common with it."""
    states = {path: _content(path.stat()) for path in paths}
    found = {path: known[state] for path, state in states.items() if state in known}
    return found | sha256_files(path for path in states if path not in found)


def _content(state: os.stat_result) -> _Content:
    """What stays when a file gets another name, which changes a time of the inode."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, a file system without hard links, or a file of another user
        shutil.copyfile(source, target)


def _states(folder: Path, names: tuple[str, ...]) -> list[_State]:
    """Inode, size and times of each file, which change with its content."""
    found = [os.stat(folder / name, follow_symlinks=False) for name in names]
    return [(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
