"""The router's place in a bundle: opening it there, and making a bundle with another one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from costroute_rt.engines.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle_manifest import MANIFEST
from costroute_rt.engines.error import BundleError, OutputError
from costroute_rt.estimator import OpenEngine
from costroute_rt.router import Router, pool_difference
from costroute_rt.router_file import REMEDY, ROUTER_ARRAYS, ROUTER_JSON

FOLDER = "router"


def open_router(bundle: Bundle, open_engine: OpenEngine | None = None) -> Router:
    """The bundle's router; raises BundleError where it has none, or one that was fitted for another pool or text encoder."""
    if bundle.router is None:
        raise BundleError(bundle.root / MANIFEST, "it has no router", "fit one with costroute-rt fit-router")
    path, arrays = bundle.path(bundle.router["file"]), bundle.path(bundle.router["arrays"])
    if path.name != ROUTER_JSON or arrays != path.with_name(ROUTER_ARRAYS):
        raise BundleError(path, f"expected {ROUTER_JSON} and {ROUTER_ARRAYS} in one folder", REMEDY)
    router = Router.load(path.parent, open_engine=open_engine)
    check_router(router, bundle, path)
    return router


def check_router(router: Router, bundle: Bundle, path: Path) -> None:
    """Raises BundleError, with the difference, where the router at `path` was fitted for another pool or text encoder."""
    difference = pool_difference(bundle.pool, router.pool)
    if difference is None and router.text_encoder not in (None, text_encoder_sha256(bundle)):
        difference = "it was fitted on the states of another text encoder"
    if difference is not None:
        raise BundleError(path, f"the router does not belong to this bundle: {difference}", "fit one with costroute-rt fit-router")


def text_encoder_sha256(bundle: Bundle) -> str:
    """Of its weights, or of its graph where the weights are inside: what `Router.text_encoder` holds."""
    component = next(component for component in bundle.components.values() if component.role == "text_encoder")
    return bundle.files[component.weights or component.graphs["encode"]].sha256


def with_router(bundle: Bundle, router_folder: Path, target: Path, *, force: bool = False) -> Bundle:
    """A new bundle at `target`: the files of `bundle` as hard links (copies where links fail) and the router in `router_folder`.

    It appears under its name complete or not at all. force: an existing `target`, which may be `bundle` itself, is replaced.
    Raises BundleError for a router of another pool, OutputError where `target` exists or cannot be written.
    """
    check_router(Router.load(router_folder), bundle, router_folder / ROUTER_JSON)
    if os.path.lexists(target) and not force:
        raise OutputError(target, "it exists already (--force replaces it)")
    if os.path.lexists(target) and not (target / MANIFEST).is_file():
        raise OutputError(target, "it is no bundle, so it is not replaced")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error
    try:
        new = staging / "new"
        new.mkdir()
        _copy(bundle, router_folder, new)
        seal_bundle(new, _manifest(bundle))
        _put(new, target, staging / "old")
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle.open(target, verify=False)


def _put(new: Path, target: Path, old: Path) -> None:
    """Renames `new` to `target`; what was there goes to `old`, and comes back where that fails."""
    existed = os.path.lexists(target)
    if existed:
        os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        if existed:
            os.replace(old, target)
        raise


def _copy(bundle: Bundle, router_folder: Path, new: Path) -> None:
    former = set() if bundle.router is None else {bundle.router["file"], bundle.router["arrays"]}
    for name in bundle.files:
        if name not in former and PurePosixPath(name).parts[0] != FOLDER:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _link(bundle.path(name).resolve(), new / name)
    (new / FOLDER).mkdir()
    for name in (ROUTER_JSON, ROUTER_ARRAYS):
        shutil.copyfile(router_folder / name, new / FOLDER / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)


def _manifest(bundle: Bundle) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((bundle.root / MANIFEST).read_bytes())
    return {**manifest, "router": {"file": f"{FOLDER}/{ROUTER_JSON}", "arrays": f"{FOLDER}/{ROUTER_ARRAYS}"}}
