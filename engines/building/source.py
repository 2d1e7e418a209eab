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


@contextmanager
def verified_graph(bundle: Bundle, store: Store, component: str, graph: str, digest: str) -> Iterator[Path]:
    """A graph of a bundle, verified with its weights, while an engine is built from it. The caller holds the lock of `digest`.

    In a bundle from a model hub's cache each file is a link to another name, and libraries refuse weights that are links. Such a graph
    and its weights get their names in a temporary folder of the store: as hard links, or as copies on another disk.
    """
    path = bundle.verify_graph(component, graph, store.hash_files)
    names = [bundle.graph_path(component, graph), *bundle.components[component].weights]
    if not any(bundle.path(name).is_symlink() for name in names):
        yield path
        return
    with store_errors(store.folder):
        store.make_folder()
        folder = make_folder_beside(store.folder / digest, 0o755)
    try:
        with store_errors(folder):
            for name in names:
                _link(bundle.path(name).resolve(), folder / name)
        yield folder / names[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        store.remember({bundle.path(name): bundle.files[name].sha256 for name in names})  # a hard link changes a time of the file


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, a file system without hard links, or a file of another user
        shutil.copyfile(source, target)
