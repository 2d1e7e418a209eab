"""The graph that an engine is built from, beside its weights, as the libraries want it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine.durable import make_folder_beside, store_errors
from costroute_rt.engines.store.store import Store

_State = tuple[int, ...]


@contextmanager
def verified_graph(bundle: Bundle, store: Store, component: str, graph: str, digest: str) -> Iterator[Path]:
    """A graph of a bundle, verified with its weights, while an engine is built from it. The caller holds the lock of `digest`.

    The graph and its weights get their names in a private folder of the store, and are hashed there: as hard links, or as copies on
    another disk. So nobody can put other files in their place between the check and the build, libraries find nothing else beside the
    graph, and a model hub's links are files (libraries refuse weights that are links). Raises BundleError for files that are changed
    meanwhile, when the block ends.
    """
    names = bundle.graph_files(component, graph)
    with store_errors(store.folder):
        store.make_folder()
        folder = make_folder_beside(store.folder / digest, 0o700)
    try:
        with store_errors(folder):
            for name in names:
                _link(bundle.path(name).resolve(), folder / name)
        states = _states(folder, names)
        yield bundle.verify_graph(component, graph, folder)
        if _states(folder, names) != states:  # another link also changes a time of a file
            bundle.check_hashes(*names, folder=folder)
        known = {bundle.path(name): bundle.files[name].sha256 for name in names if _is_same(folder / name, bundle.path(name))}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    store.remember(known)  # a hard link changes a time of the file, which would be hashed again


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
