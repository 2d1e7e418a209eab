"""Bundles: one family in portable form, checked when it is opened."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from costroute_rt.engines.bundle.digest import HashFiles, sha256_files
from costroute_rt.engines.bundle.image_gate import ImageGate
from costroute_rt.engines.bundle.manifest import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_SHA256,
    Component,
    FileEntry,
    GraphSpec,
    ImageSpec,
    PreviewSpec,
    TokenizerSpec,
)
from costroute_rt.engines.bundle.manifest_reader import GRAPH_SUFFIX, parse_manifest
from costroute_rt.engines.bundle.mistaken import mistaken_path
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.engines.bundle.section import MOST_BYTES, Fail, canonical_json, parse_section
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.regular_file import find_link_out, read_regular

if TYPE_CHECKING:
    from costroute_rt.engines.bundle.graph_check import Region

_REMEDY = "get the bundle again"
_DIGEST_LIMIT_BYTES = 1024


def shipped_bundle() -> Path:
    """Path of the bundle that ships with the package, the `postcard` family."""
    package = sys.modules[__name__.partition(".")[0]]
    return Path(str(package.__file__)).resolve().parent / "bundles" / "postcard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One family in portable form; only `Bundle.open` creates one."""

    root: Path
    family: str
    revision: str
    license: str
    made_with: Mapping[str, str]
    files: Mapping[str, FileEntry]
    components: Mapping[str, Component]
    graphs: Mapping[str, GraphSpec]
    """Inputs and outputs of each ONNX file, by its path in the bundle."""
    tokenizers: Mapping[str, TokenizerSpec]
    negative_prompt: str
    """What replaces a missing negative prompt: empty_text or zeros."""
    image: ImageSpec
    preview: PreviewSpec | None
    schedulers: Mapping[str, Mapping[str, Any]]
    pool: tuple[Mapping[str, Any], ...]
    """Candidates as checked plain data: name, denoiser, scheduler, num_inference_steps, guidance_scale, decoder."""
    quality: Mapping[str, Any]
    """{"metric": name, "candidates": {candidate: {"mean": score, "standard_error": score}}}"""
    quality_gates: Mapping[str, ImageGate]
    """How close the images of components of less precision are to those of the exact ones, by component."""
    router: Mapping[str, Any] | None
    """{"file": path of router.json, "arrays": path of router.safetensors}; a router with a tokenizer of its own also has
    {"tokenizer": path of its tokenizer, "max_length": limit of its tokens}.

    None means that the bundle has no router, and routing uses `quality` alone.
    """
    manifest_sha256: str
    alias: str | None = None
    """Its name in a pool, where that is not the family's; two bundles of one family have different ones."""

    @property
    def name(self) -> str:
        """The first part of the names of its engines: the family, or the alias that a pool gives it."""
        return self.alias or self.family

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = True) -> Bundle:
        """Read the bundle directory at `path`; raises BundleError, and ConfigError for what is no path.

        The manifest is always checked in full, and so are the presence, size and location of every file: inside the directory, or, for a
        bundle in the cache of a model hub, among the blobs of its repository. `verify` also hashes every file and checks where the ONNX
        files' external data are. Without it, call `verify()` for the files that you are about to read.
        """
        if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
            raise ConfigError("bundle", path, "the path of a directory")
        given = Path(path)
        if (mistake := mistaken_path(given)) is not None:
            raise mistake
        root = given.resolve()
        data = _read_manifest(root)
        fail = _fail_at(root / MANIFEST)
        section = parse_section(data, fail)
        bundle = cls(root=root, manifest_sha256=hashlib.sha256(data).hexdigest(), **parse_manifest(section))
        bundle.check_places()
        if verify:
            bundle.verify()
        return bundle

    def path(self, name: str) -> Path:
        """Path of the listed file `name`; raises BundleError for a file that the manifest does not list."""
        if name not in self.files:
            raise BundleError(self.root / MANIFEST, f"it does not list the file {name}", _REMEDY)
        return self.root / name

    def graph_path(self, component: str, graph: str) -> str:
        """Path in the bundle of a component's graph, e.g. `unet/step.onnx`; raises BundleError if the component has no such graph."""
        found = self.components.get(component)
        if found is None or graph not in found.graphs:
            known = ", ".join(f"{name}/{key}" for name, each in self.components.items() for key in each.graphs)
            raise BundleError(self.root / MANIFEST, f"family {self.name} has no graph {component}/{graph}", f"it has {known}")
        return found.graphs[graph]

    def read(self, name: str, folder: Path | None = None, most_bytes: int | None = None) -> bytes:
        """The content of a listed file, opened once: what is hashed is what is returned; raises BundleError.

        folder: where the file is read, under the same name; None is the bundle itself. most_bytes: a larger file is refused.
        """
        path = self.path(name)
        try:
            largest = self.files[name].bytes if most_bytes is None else min(self.files[name].bytes, most_bytes)
            data = read_regular(path if folder is None else folder / name, largest)
        except OSError as error:
            raise BundleError(path, f"a file of the bundle cannot be read: {_reason(error)}", _REMEDY) from error
        self._compare(name, path, hashlib.sha256(data).hexdigest())
        return data

    def verify(self, *names: str, folder: Path | None = None, hash_files: HashFiles = sha256_files) -> None:
        """Check hashes, as `check_hashes` does, and what the graphs and weights among the files hold; raises BundleError.

        folder: where the files are read, under the same names; None is the bundle itself.
        """
        self.check_hashes(*names, folder=folder, hash_files=hash_files)
        weights = {file for component in self.components.values() for file in component.weights}
        finite: set[Region] = set()
        for name in names or self.files:
            if name.endswith(GRAPH_SUFFIX):
                self._check_graph(name, folder, finite)
            elif name in weights and name.endswith(".safetensors"):
                read_stored_tensors((folder or self.root) / name)

    def check_graphs(self, names: Iterable[str]) -> None:
        """Check the hashes of graphs and what they hold, without their weights (about 0.1 s for a large one); raises BundleError."""
        for name in dict.fromkeys(names):
            self._check_graph(name, None, None)

    def _check_graph(self, name: str, folder: Path | None, finite: set[Region] | None) -> None:
        """Check one graph, as `verify` does; weights are those of all components that use it."""
        from costroute_rt.engines.bundle.graph_check import check_graph  # loads NumPy

        users = [component for component in self.components.values() if name in component.graphs.values()]
        weights = {file: self.files[file].bytes for component in users for file in component.weights}
        own_bytes = sum(self.weights_bytes(component.name) for component in users)
        try:
            data = self.read(name, folder)
            check_graph(name, data, weights, own_bytes, folder or self.root, lambda file: _fail_at(self.path(file)), finite)
        except OSError as error:
            raise BundleError(error.filename or self.root, f"a file of the bundle cannot be read: {_reason(error)}", _REMEDY) from error

    def check_hashes(self, *names: str, folder: Path | None = None, hash_files: HashFiles = sha256_files) -> None:
        """Compare the hashes of the named files, or of all, with the manifest; raises BundleError.

        folder: where the files are read; None is the bundle itself.
        hash_files: hashes files (about 1 ms per megabyte), or knows their hashes.
        """
        listed = {name: self.path(name) for name in (names or self.files)}
        wanted = listed if folder is None else {name: folder / name for name in listed}
        try:
            found = hash_files(wanted.values())
        except OSError as error:
            raise BundleError(error.filename or self.root, f"a file of the bundle cannot be read: {_reason(error)}", _REMEDY) from error
        for name, path in wanted.items():
            self._compare(name, listed[name], found[path])

    def _compare(self, name: str, path: Path, sha256: str) -> None:
        if sha256 != self.files[name].sha256:
            raise BundleError(path, f"its content does not match the manifest (SHA-256 begins {sha256[:12]})", _REMEDY)

    def read_path(self, path: Path, most_bytes: int) -> bytes:
        """`read` by the path of the file, for readers that take a function."""
        return self.read(path.relative_to(self.root).as_posix(), most_bytes=most_bytes)

    def read_manifest(self) -> dict[str, Any]:
        """The content of the manifest; raises BundleError if it is not the one that was opened."""
        data = _read_manifest(self.root)
        if hashlib.sha256(data).hexdigest() != self.manifest_sha256:
            raise BundleError(self.root / MANIFEST, "it was replaced", "try again")
        return dict(parse_section(data, _fail_at(self.root / MANIFEST)).values)

    def graph_files(self, component: str, graph: str) -> tuple[str, ...]:
        """What an engine is built from: the graph, and the weights of its component."""
        return self.graph_path(component, graph), *self.components[component].weights

    def verify_graph(self, component: str, graph: str, folder: Path | None = None, *, hash_files: HashFiles = sha256_files) -> Path:
        """Verify one graph and its weights before a build, in the bundle or in `folder`; returns the path of the ONNX file there."""
        names = self.graph_files(component, graph)
        self.verify(*names, folder=folder, hash_files=hash_files)
        return (folder or self.root) / names[0]

    def weights_sha256(self, component: str) -> str:
        """Digest of a component's weights for engine keys: the SHA-256 of its file, or of the digests of several files."""
        digests = [self.files[name].sha256 for name in self.components[component].weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest() if digests else "none"

    def weights_bytes(self, component: str) -> int:
        """Size of a component's weights: those it says are its own, else all of its weight files."""
        found = self.components[component]
        return sum(self.files[name].bytes for name in found.weights) if found.weights_bytes is None else found.weights_bytes

    def check_places(self) -> None:
        folders = dict[Path, Path]()
        for name, entry in self.files.items():
            path = self.root / name
            try:
                folder = folders.get(path.parent) or folders.setdefault(path.parent, path.parent.resolve(strict=True))
                status = path.lstat()
                is_link = stat.S_ISLNK(status.st_mode)
                real, status = (path.resolve(strict=True), path.stat()) if is_link else (folder / path.name, status)
            except (OSError, RuntimeError, ValueError) as error:
                raise BundleError(path, f"a file of the bundle cannot be read: {_reason(error)}", _REMEDY) from error
            if not real.is_relative_to(self.root) and find_link_out(path, self.root) is not None:
                raise BundleError(path, f"it is a link out of the bundle, to {real}", "replace the link with the file itself")
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(path, "it is not a regular file", _REMEDY)
            if status.st_size != entry.bytes:
                raise BundleError(path, f"it has {status.st_size} bytes, the manifest says {entry.bytes}", _REMEDY)


def seal_bundle(root: Path, manifest: Mapping[str, Any]) -> Bundle:
    """Write manifest.json and manifest.sha256 for the files below `root`, filling in `format` and `files`; returns the checked bundle.

    manifest: all other sections, as `manifest_reader.parse_manifest` reads them. This is the last step of writing a bundle.
    """
    own = {MANIFEST, MANIFEST_SHA256}
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    digests = sha256_files(path for name, path in paths.items() if name not in own)
    files = {name: {"sha256": digests[path], "bytes": path.stat().st_size} for name, path in paths.items() if path in digests}
    data = canonical_json({**manifest, "format": FORMAT, "format_version": FORMAT_VERSION, "files": files})
    (root / MANIFEST).write_bytes(data)
    (root / MANIFEST_SHA256).write_text(hashlib.sha256(data).hexdigest() + "\n", encoding="ascii")
    bundle = Bundle.open(root, verify=False)
    bundle.verify(hash_files=lambda listed: {path: digests[root / path.relative_to(bundle.root)] for path in listed})
    return bundle


def _read_manifest(root: Path) -> bytes:
    """The manifest's bytes, checked against the digest in `manifest.sha256`."""
    path = root / MANIFEST
    try:
        data = read_regular(path, MOST_BYTES)
        stated = read_regular(root / MANIFEST_SHA256, _DIGEST_LIMIT_BYTES).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise BundleError(error.filename or path, f"a bundle needs this file: {_reason(error)}", _REMEDY) from error
    if hashlib.sha256(data).hexdigest() != stated:
        raise BundleError(path, f"its content does not match {MANIFEST_SHA256}", _REMEDY)
    return data


def _fail_at(path: Path) -> Fail:
    def fail(problem: str) -> NoReturn:
        raise BundleError(path, problem, _REMEDY)

    return fail


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
