"""The file `pool.json` of a pool: which bundles, which of their candidates, in which order, and the router over them.

A pool is a folder: this file and, where labels were learned from, the router's files in `router/`. The bundles stay where they are:

    {"format": "costroute-pool", "format_version": 1,
     "metric": "score",                                    what the means are measured in; "order" where they only give an order
     "bundles": [{"name": NAME, "path": "../sd15.bundle", "manifest_sha256": ..., "license": "openrail"}],
     "candidates": [{"name": "sd15@20", "bundle": NAME, "candidate": "sd15@20", "mean": 0.7, "standard_error": 0.01}, ...],
     "files": {"router/router.json": {"sha256": ..., "bytes": ...}, ...},
     "router": {"file": "router/router.json", "arrays": "router/router.safetensors", "components": {...}, "graphs": {...}}}

A path is absolute or relative to the folder. Candidates are in the order of preference. One without `bundle` was labelled elsewhere: it is
routed to, and nothing here can run it; `license` and `cost_ms` say more about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.bundle.manifest import MANIFEST, ROUTER_GRAPHS, FileEntry, GraphSpec
from costroute_rt.engines.bundle.manifest_reader import check_path, parse_graph_spec
from costroute_rt.engines.bundle.mistaken import POOL_JSON
from costroute_rt.engines.bundle.section import MOST_BYTES, Fail, Section, parse_section, shorten
from costroute_rt.error import BundleError, ConfigError, Reason
from costroute_rt.regular_file import read_regular

FORMAT, FORMAT_VERSION = "costroute-pool", 1
ROUTER_NAME = "router"
"""First part of the names of the router's engines; no bundle of a pool is called so."""
ORDER = "order"
"""The metric of a pool whose means only give an order."""
REMEDY = "make the pool again"
_MOST_BUNDLES, _MOST_CANDIDATES, _MOST_TOKENS = 100, 1000, 1 << 16
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+/-]*")
_FOREIGN_NAME = re.compile(r"\S(.*\S)?")
"""Of a candidate without a bundle: whatever tables of labels call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBundle:
    """A bundle of a pool."""

    path: str
    """Absolute, or relative to the pool's folder."""
    manifest_sha256: str
    license: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCandidate:
    """A candidate of a pool."""

    name: str
    """Unique in the pool."""
    bundle: str | None
    """Name of its bundle in the pool; None for one that nothing here can run."""
    candidate: str | None
    """Its name in the bundle."""
    license: str
    """Empty where it is unknown."""
    mean: float
    standard_error: float
    cost_ms: float | None = None
    """Milliseconds of an image, stated for a candidate without a bundle."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, without what is not known; the licence of a bundle is said once, at the bundle."""
        left_out = ("license",) if self.bundle is not None or not self.license else ()
        return {name: value for name, value in asdict(self).items() if value is not None and name not in left_out}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRouter:
    """The router of a pool, as the file describes it."""

    section: Mapping[str, Any]
    """As `Bundle.router`, and `bundle`: the name of the bundle whose text encoder it reads, if it reads one."""
    networks: Mapping[str, Mapping[str, Any]]
    """By role: {"graph": use, "file": path, "weights": path}"""
    graphs: Mapping[str, GraphSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFile:
    """The content of `pool.json`."""

    metric: str
    bundles: Mapping[str, PoolBundle]
    candidates: tuple[PoolCandidate, ...]
    files: Mapping[str, FileEntry]
    router: PoolRouter | None

    @classmethod
    def open(cls, root: Path) -> PoolFile:
        """Reads the file in the folder `root`; raises BundleError for one that is missing, damaged or of a newer version."""
        path, fail = root / POOL_JSON, fail_at(root)
        try:
            data = read_regular(path, MOST_BYTES)
        except OSError as error:
            raise _unreadable(root, error) from error
        return _parse(parse_section(data, fail))


def fail_at(root: Path) -> Fail:
    """Raises BundleError about the pool in `root`."""

    def fail(problem: str) -> NoReturn:
        raise BundleError(root / POOL_JSON, problem.replace("manifest ", "its entry ", 1), REMEDY)

    return fail


def _unreadable(root: Path, error: OSError) -> BundleError:
    path = root / POOL_JSON
    if os.path.isfile(root / MANIFEST):
        return BundleError(root, "it is a bundle, not a pool", "open it as a bundle, or make a pool of it", reason=Reason.NOT_A_BUNDLE)
    if not os.path.lexists(root):
        return BundleError(root, "no pool exists here", "check the path", reason=Reason.NOT_A_BUNDLE)
    if not root.is_dir():
        return BundleError(root, f"a pool is a folder with {POOL_JSON}", "check the path", reason=Reason.NOT_A_BUNDLE)
    return BundleError(path, f"a pool needs this file: {error.strerror or error}", REMEDY)


def _parse(section: Section) -> PoolFile:
    if section.values.get("format") != FORMAT:
        section.fail(f"its format is {shorten(section.values.get('format'))}: expected {FORMAT!r}")
    version = section.integer("format_version", minimum=1)
    if version > FORMAT_VERSION:
        section.fail(f"it has format version {version}, this costroute-rt reads {FORMAT_VERSION}: upgrade costroute-rt")
    rows = list(section.rows("bundles"))
    bundles = {check_alias(row.text("name"), section.fail): _bundle(row) for row in rows}
    if len(rows) > _MOST_BUNDLES or len(bundles) < len(rows):
        section.fail(f"its entry bundles names a bundle twice, or more than {_MOST_BUNDLES}")
    files = {}
    if section.values.get("files") is not None:
        files = {
            check_path(name, section.fail, "a file"): FileEntry(entry.sha256("sha256"), entry.integer("bytes"))
            for name, entry in section.sections("files")
        }
    candidates = _candidates(section, bundles)
    router = _router(section.section("router"), bundles, files) if section.values.get("router") is not None else None
    return PoolFile(metric=section.text("metric"), bundles=bundles, candidates=candidates, files=files, router=router)


def check_alias(name: str, fail: Fail) -> str:
    """The name of a bundle in a pool, checked."""
    if not _ALIAS.fullmatch(name) or name == ROUTER_NAME:
        fail(f"a bundle is named {shorten(name)}: expected letters, digits and . _ -, and not {ROUTER_NAME!r}")
    return name


def _bundle(section: Section) -> PoolBundle:
    return PoolBundle(path=section.text("path"), manifest_sha256=section.sha256("manifest_sha256"), license=section.text("license"))


def _candidates(section: Section, bundles: Mapping[str, PoolBundle]) -> tuple[PoolCandidate, ...]:
    if (count := len(section.items("candidates"))) > _MOST_CANDIDATES:
        section.fail(f"it has {count} candidates: expected {_MOST_CANDIDATES} at most")
    found = tuple(_candidate(row, bundles) for row in section.rows("candidates"))
    names, sources = [each.name for each in found], [(each.bundle, each.candidate) for each in found if each.bundle]
    if not found or len(set(names)) < len(names) or len(set(sources)) < len(sources):
        section.fail("its entry candidates is empty or holds a candidate twice")
    return found


def _candidate(section: Section, bundles: Mapping[str, PoolBundle]) -> PoolCandidate:
    name, bundle = section.text("name"), section.text("bundle") if section.values.get("bundle") is not None else None
    if not (_NAME if bundle is not None else _FOREIGN_NAME).fullmatch(name):
        section.fail(f"manifest {section.at('name')} is {shorten(name)}: expected letters, digits and . _ @ + - /")
    if bundle is not None and bundle not in bundles:
        section.fail(f"manifest {section.at('bundle')} is {shorten(bundle)}, which is not among its bundles")
    stated = section.text("license") if section.values.get("license") is not None else ""
    return PoolCandidate(
        name=name,
        bundle=bundle,
        candidate=None if bundle is None else section.text("candidate"),
        license=stated if bundle is None else bundles[bundle].license,
        mean=section.number("mean"),
        standard_error=section.number("standard_error", minimum=0),
        cost_ms=section.number("cost_ms", minimum=0) if section.values.get("cost_ms") is not None else None,
    )


def _router(section: Section, bundles: Mapping[str, PoolBundle], files: Mapping[str, FileEntry]) -> PoolRouter:
    found: dict[str, Any] = {name: _listed(section, name, files) for name in ("file", "arrays")}
    if section.values.get("states") is not None:
        found |= {"states": section.text("states"), "bundle": section.text("bundle")}
        if found["bundle"] not in bundles:
            section.fail(f"manifest {section.at('bundle')} is {shorten(found['bundle'])}, which is not among its bundles")
    if section.values.get("tokenizer") is not None:
        most = section.integer("max_length", minimum=1, maximum=_MOST_TOKENS)
        found |= {"tokenizer": _listed(section, "tokenizer", files), "max_length": most}
    networks = {role: _network(role, entry, files) for role, entry in section.sections("components")}
    graphs = {name: parse_graph_spec(entry) for name, entry in section.sections("graphs")}
    for each in networks.values():
        if each["file"] not in graphs:
            section.fail(f"its entry router.graphs has no {shorten(each['file'])}")
    return PoolRouter(section=found, networks=networks, graphs=graphs)


def _network(role: str, section: Section, files: Mapping[str, FileEntry]) -> dict[str, str]:
    if role not in ROUTER_GRAPHS:
        section.fail(f"manifest {section.place} is no network of a router: expected {' or '.join(ROUTER_GRAPHS)}")
    file = _listed(section, "file", files)
    if not file.endswith(".onnx"):
        section.fail(f"manifest {section.at('file')} is {shorten(file)}: expected a file that ends in .onnx")
    return {"graph": ROUTER_GRAPHS[role], "file": file, "weights": _listed(section, "weights", files)}


def _listed(section: Section, key: str, files: Mapping[str, FileEntry]) -> str:
    name = check_path(section.text(key), section.fail, section.at(key))
    if name not in files:
        section.fail(f"manifest {section.at(key)} names {shorten(name)}, which is not among its files")
    return name


def pool_path(path: object) -> Path:
    """The folder that `path` names, or that holds the pool.json that it names; raises ConfigError for what is no path."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise ConfigError("pool", path, "the path of a pool's folder")
    given = Path(path)
    return given.parent if given.name == POOL_JSON else given


def is_pool(path: str | os.PathLike[str]) -> bool:
    """Whether a pool is in the folder `path`."""
    try:
        return os.path.isfile(os.path.join(path, POOL_JSON))
    except (TypeError, ValueError):
        return False
