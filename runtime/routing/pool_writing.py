"""Writing pools, with a router or without."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.digest import sha256_file
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.mistaken import POOL_JSON
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.pool_file import FORMAT, FORMAT_VERSION
from costroute_rt.engines.bundle.section import MOST_BYTES, canonical_json, parse_section
from costroute_rt.engines.machine.durable import replacing_folder
from costroute_rt.error import BundleError, OutputError, Reason
from costroute_rt.regular_file import read_regular
from costroute_rt.routing.router import Router, pool_difference
from costroute_rt.routing.router_bundle import FOLDER, check_files, router_section
from costroute_rt.routing.router_file import ROUTER_JSON


def write_pool(
    pool: Pool, target: Path, *, router: Mapping[str, Any] | None = None, router_folder: Path | None = None, force: bool
) -> Pool:
    """Writes the pool into the folder `target`, all or nothing, and opens it.

    router: the entry `router` of the file; router_folder: its files, which become the folder `router`. force: replace a pool at `target`.
    Raises OutputError if `target` exists or is not a mere pool, or cannot be written.
    """
    check_pool_target(target, force=force)
    try:
        with replacing_folder(target) as new:
            if router_folder is not None:
                shutil.copytree(router_folder, new / FOLDER)
            (new / POOL_JSON).write_bytes(canonical_json(_to_json(pool, target.resolve(), new, router)))
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error
    return Pool.open(target)


def _to_json(pool: Pool, target: Path, new: Path, router: Mapping[str, Any] | None) -> dict[str, Any]:
    paths = [path for path in sorted(new.rglob("*")) if path.is_file()]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "metric": pool.metric,
        "bundles": [
            {
                "name": name,
                "path": _stored_path(bundle.root, target),
                "manifest_sha256": bundle.manifest_sha256,
                "license": bundle.license,
            }
            for name, bundle in pool.bundles.items()
        ],
        "candidates": [each.to_json() for each in pool.candidates],
        "files": {path.relative_to(new).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in paths},
        "router": None if router is None else dict(router),
    }


def _stored_path(bundle: Path, target: Path) -> str:
    """Relative to the pool if both lie in one folder, and can be moved together."""
    if bundle.is_relative_to(target.parent):
        return Path(os.path.relpath(bundle, target)).as_posix()
    return str(bundle)


def check_pool_target(target: Path, *, force: bool) -> None:
    """Raises OutputError for what a pool must not replace: anything without `force`, with it all but a folder with nothing but a pool."""
    if not os.path.lexists(target):
        return
    if not force:
        raise OutputError(target, "it exists already", reason=Reason.EXISTS)

    def refuse(problem: str) -> NoReturn:
        raise OutputError(target, f"{problem}, so it is not replaced")

    if target.is_symlink() or not target.is_dir():
        refuse("it is not a pool")
    try:
        section = parse_section(read_regular(target / POOL_JSON, MOST_BYTES, follows_links=False), lambda _: refuse("it is not a pool"))
        if section.values.get("format") != FORMAT:
            refuse("it is not a pool")
        files = section.values.get("files")
        listed = {POOL_JSON, *(files if isinstance(files, dict) else ())}
        foreign = [path for path in target.rglob("*") if path.is_symlink() or not path.is_dir()]
    except OSError as error:
        refuse("it is not a pool" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error.strerror or error})")
    for path in foreign:
        if path.relative_to(target).as_posix() not in listed:
            refuse(f"it holds {path.name!r}, which is not part of the pool")


def with_pool_router(pool: Pool, router_folder: Path, target: Path, *, states_bundle: str | None = None, force: bool = False) -> Pool:
    """A new pool at `target`: that of `pool` with the router in `router_folder`. Written completely or not at all.

    states_bundle: name of the bundle whose text encoder the router reads, if it reads one. force: replace a pool at `target`, which may be
    `pool` itself. Raises BundleError for a router of other candidates, OutputError if `target` exists, is no pool, or cannot be written.
    """
    router = Router.load(router_folder)
    difference = pool_difference(pool.rows, router.pool)
    if difference is not None:
        problem = f"the router does not belong to this pool: {difference}"
        raise BundleError(router_folder / ROUTER_JSON, problem, "fit one to it", reason=Reason.ROUTER)
    files = check_files(router, router_folder)
    check_pool_target(target, force=force)
    states = None if states_bundle is None or not router.needs_states else pool.bundles[states_bundle]
    with tempfile.TemporaryDirectory() as name:
        for file in files:
            shutil.copyfile(router_folder / file, Path(name) / file)
        return write_pool(pool, target, router=_section(router, states), router_folder=Path(name), force=force)


def _section(router: Router, states: Bundle | None) -> dict[str, Any]:
    """The entry `router` of the pool's file, with the router's networks."""
    networks = {network.role: {"file": f"{FOLDER}/{network.file}", "weights": f"{FOLDER}/{network.weights}"} for network in router.networks}
    graphs = {f"{FOLDER}/{network.file}": to_json(network.spec) for network in router.networks}
    own = {} if states is None else {"bundle": states.name}
    return {**router_section(router, states), **own, "components": networks, "graphs": graphs}
