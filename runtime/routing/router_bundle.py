"""The router in a bundle: opening it, and making a bundle with another one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.manifest import MANIFEST, ROUTER_GRAPHS
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.replacing import check_target
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.engines.machine.durable import replacing_folder
from costroute_rt.error import BundleError, OutputError, Reason
from costroute_rt.routing.prompt_encoder import TOKENIZER
from costroute_rt.routing.router import Router, pool_difference
from costroute_rt.routing.router_file import ROUTER_ARRAYS, ROUTER_JSON, router_error
from costroute_rt.routing.router_network import OpenEngine, no_engine
from costroute_rt.routing.tagged_encoder import find_sentence_encoder

FOLDER = "router"


def open_router(bundle: Bundle, open_engine: OpenEngine = no_engine) -> Router:
    """`open_pool_router` of a bundle by itself."""
    return open_pool_router(Pool.of_bundle(bundle), open_engine)


def open_pool_router(pool: Pool, open_engine: OpenEngine = no_engine) -> Router:
    """The pool's router; raises BundleError if it has none, or one that was fitted for other candidates or another text encoder.

    open_engine: called for the engines of its networks whenever it judges.
    """
    bundle = pool.router
    if bundle is None or bundle.router is None:
        raise BundleError(pool.root, "it has no router", "fit one to it", reason=Reason.ROUTER)
    path, arrays = bundle.path(bundle.router["file"]), bundle.path(bundle.router["arrays"])
    if path.name != ROUTER_JSON or arrays != path.with_name(ROUTER_ARRAYS):
        raise router_error(path, f"expected {ROUTER_JSON} and {ROUTER_ARRAYS} in one folder")
    tokenizer = bundle.router.get("tokenizer")
    if tokenizer is not None and bundle.path(tokenizer) != path.with_name(TOKENIZER):
        expected = path.with_name(TOKENIZER).relative_to(bundle.root).as_posix()
        raise router_error(path, f"expected {expected} to be the router's tokenizer")
    router = Router.load(path.parent, open_engine=open_engine, read=bundle.read_path, may_have_tokenizer=tokenizer is not None)
    check_router(router, pool, path)
    for network in router.networks:
        component = bundle.components.get(network.role)
        if component is None or bundle.graphs[component.graphs[network.graph]] != network.spec:
            raise router_error(path, f"the bundle's {network.engine} is not the network it was fitted with")
    return router


def check_router(router: Router, pool: Pool, path: Path) -> None:
    """Raises BundleError, naming the difference, if the router at `path` was fitted for other candidates or another text encoder."""
    difference = pool_difference(pool.rows, router.pool)
    reads_text = router.text_encoder is not None and (pool.is_bundle or router.needs_states)
    if difference is None and reads_text and router.text_encoder != _pool_encoder_sha256(pool):
        difference = "it was fitted on the states of another text encoder"
    if difference is not None:
        problem = f"the router does not belong to this {'bundle' if pool.is_bundle else 'pool'}: {difference}"
        raise BundleError(path, problem, "fit one to it", reason=Reason.ROUTER)


def states_source(bundle: Bundle) -> tuple[str, str]:
    """The text encoder, and the name of its output, that the bundle's router reads: by default the first with one state per token.

    Raises BundleError where no text encoder has such an output.
    """
    stated = (bundle.router or {}).get("states")
    for encoder, component in bundle.components.items():
        if component.role == "text_encoder":
            for output, spec in bundle.graphs[component.graphs["encode"]].outputs.items():
                name = f"{encoder}.{output}"
                if name == stated or (stated is None and len(spec.shape) == 3):
                    return encoder, name
    problem = "no text encoder has one state per token" if stated is None else f"no text encoder has the output {stated}"
    raise BundleError(bundle.root / MANIFEST, problem, "fit its router again")


def _pool_encoder_sha256(pool: Pool) -> str | None:
    return None if pool.states_bundle is None else text_encoder_sha256(pool.bundles[pool.states_bundle])


def text_encoder_sha256(bundle: Bundle) -> str:
    """Hash of the weights of the text encoder that a router reads, or of its graph if the weights are inside."""
    encoder, _ = states_source(bundle)
    component = bundle.components[encoder]
    return bundle.weights_sha256(encoder) if component.weights else bundle.files[component.graphs["encode"]].sha256


def with_router(bundle: Bundle, router_folder: Path, target: Path, *, force: bool = False) -> Bundle:
    """A new bundle at `target`: the files of `bundle` as hard links (copies where links fail) and the router in `router_folder`.

    The folder holds router.json, router.safetensors, and the files of the router's networks.
    `target` is written completely or not at all. force: replace a bundle at `target`, which may be `bundle` itself.
    Raises BundleError for a router of another pool, OutputError if `target` exists, is not a mere bundle, or cannot be written.
    """
    router = Router.load(router_folder)
    check_router(router, Pool.of_bundle(bundle), router_folder / ROUTER_JSON)
    files = check_files(router, router_folder)
    check_target(target, force=force)
    try:
        with replacing_folder(target) as new:
            _copy(bundle, router_folder, files, new)
            made = seal_bundle(new, _manifest(bundle, router))
            _check_copies(bundle, made)
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error
    return Bundle.open(target, verify=False)


def check_files(router: Router, folder: Path) -> list[str]:
    """Names of all files of the router in `folder`; raises BundleError if one is missing, a link, or damaged."""
    own = [TOKENIZER] if find_sentence_encoder(router.encoder) else []
    files = [ROUTER_JSON, ROUTER_ARRAYS, *own, *(name for network in router.networks for name in (network.file, network.weights))]
    for name in files:
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise router_error(folder / name, "the router needs this file, which must not be a link")
    for network in router.networks:
        read_stored_tensors(folder / network.weights)
    return files


def router_section(router: Router, states: Bundle | None) -> dict[str, Any]:
    """The entry `router` of a manifest; states: the bundle whose text encoder it reads, if it reads one."""
    section: dict[str, Any] = {"file": f"{FOLDER}/{ROUTER_JSON}", "arrays": f"{FOLDER}/{ROUTER_ARRAYS}"}
    sentence_encoder = find_sentence_encoder(router.encoder)
    if sentence_encoder is not None:
        section |= {"tokenizer": f"{FOLDER}/{TOKENIZER}", "max_length": sentence_encoder.max_length}
    if router.needs_states and states is not None:
        section["states"] = states_source(states)[1]
    return section


def _copy(bundle: Bundle, router_folder: Path, files: list[str], new: Path) -> None:
    former = set() if bundle.router is None else {bundle.router["file"], bundle.router["arrays"]}
    for name in bundle.files:
        if name not in former and PurePosixPath(name).parts[0] != FOLDER:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _link(bundle.path(name).resolve(), new / name)
    (new / FOLDER).mkdir()
    for name in files:
        shutil.copyfile(router_folder / name, new / FOLDER / name)


def _check_copies(bundle: Bundle, made: Bundle) -> None:
    """Raises BundleError if a file of the bundle was changed or swapped before it was copied."""
    for name, entry in made.files.items():
        if PurePosixPath(name).parts[0] != FOLDER and entry != bundle.files[name]:
            raise BundleError(bundle.path(name), "its content does not match the manifest", "get the bundle again")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)


def _manifest(bundle: Bundle, router: Router) -> dict[str, Any]:
    """The bundle's manifest with this router and its networks in place of the former ones."""
    manifest = bundle.read_manifest()
    components = {name: part for name, part in manifest["components"].items() if part["role"] not in ROUTER_GRAPHS}
    graphs = {path: spec for path, spec in manifest["graphs"].items() if PurePosixPath(path).parts[0] != FOLDER}
    for network in router.networks:
        file, weights = (f"{FOLDER}/{name}" for name in (network.file, network.weights))
        components[network.role] = {"role": network.role, "graphs": {network.graph: file}, "weights": [weights]}
        graphs[file] = to_json(network.spec)
    return {**manifest, "components": components, "graphs": graphs, "router": router_section(router, bundle)}
