"""Readers of files that may come from others, each with a way to change such a file."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from costroute_rt import Bundle, CostrouteError, read_settings, shipped_bundle
from costroute_rt.engines.bundle.onnx_file import read_graph_spec
from costroute_rt.engines.bundle.onnx_scan import read_external_tensors
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.engines.store.cost import CostFiles, identity
from costroute_rt.engines.store.store import Store
from costroute_rt.export.checkpoint.checkpoint import check_export
from costroute_rt.export.checkpoint.recipe import BundleRecipe
from costroute_rt.export.router.label_file import open_label_file
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import read_prompts
from costroute_rt.family.family import Family
from costroute_rt.routing.quality import AverageQuality
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_bundle import open_router
from tests.fuzz.mutation import damage_image, damage_text, mutate_bytes, mutate_graph, mutate_json, mutate_safetensors, seal, seal_costs
from tests.runtime.routing.routers import write_network_router

Make = Callable[[Path], Path]
Change = Callable[[Random, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Reader:
    """One kind of file."""

    make: Make
    """Returns such a file, in a copy of the template that it is given."""
    change: Change
    read: Callable[[Path], object]
    """Reads the whole file; may raise errors of this package alone."""

    def try_content(self, path: Path, data: bytes) -> str | None:
        """The trace of an error of another kind, or an error text with control characters; None if the content is read or refused well."""
        path.write_bytes(data)
        try:
            self.read(path)
        except CostrouteError as error:
            text = str(error).replace("\n", "")
            return None if text.isprintable() else f"not printable: {text!r}"
        except BaseException as error:  # such as a panic of a native library
            return "".join(traceback.format_exception(error))[-2500:]
        return None


def at(name: str) -> Make:
    """The file of that name in the template."""
    return lambda root: root / name


def head(name: str, lines: int) -> Make:
    """The first lines of the file of that name."""

    def make(root: Path) -> Path:
        path = root / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
        return path

    return make


def make_packed_table(root: Path) -> Path:
    path = root / "cwd/labels.csv.gz"
    path.write_bytes(gzip.compress(head("cwd/labels.csv", 30)(root).read_bytes(), mtime=0))
    return path


def read_labels(path: Path) -> None:
    table = LabelTable.open(path, category="category")
    repr(table.labels)


def read_growing_labels(path: Path) -> None:
    with open_label_file(path):
        pass


def read_bundle(path: Path) -> None:
    """All of the bundle with this manifest that is read before an engine runs."""
    seal(path.parent)
    bundle = Bundle.open(path.parent)
    family = Family.open(bundle)
    quality = AverageQuality.from_bundle(bundle, family.pool) if bundle.router is None else open_router(bundle)
    if not quality.engines and not quality.needs_states:
        quality.judge("a lake", None)


def read_router(path: Path) -> None:
    """The router, with hashes that agree with its files, as whoever changed them would write."""
    folder = path.parent.parent
    if path.name == "router.safetensors":
        router = json.loads(path.with_name("router.json").read_bytes())
        path.with_name("router.json").write_text(json.dumps({**router, "arrays_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    seal(folder)
    open_router(Bundle.open(folder)).judge("a lake", None)


def make_network_router(root: Path) -> Path:
    """A router that reads prompts with a network, and so has a tokenizer."""
    write_network_router(Bundle.open(root / "bundle"), root / "network")
    return root / "network/router.json"


def read_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer.open(path, max_length=16, pad=1)
    for text in ("a lake", "🏠 é, the" * 20, " "):
        tokenizer.encode(text)


def read_graph(path: Path) -> None:
    for read in (lambda: read_external_tensors(path.read_bytes()), lambda: read_graph_spec(path)):
        with suppress(ValueError):  # the documented error
            read()


def keep_one_engine(name: str) -> Make:
    """The file of that name of an engine, in a store without others."""

    def make(root: Path) -> Path:
        engines = root / "home/engines"
        kept = next(each for each in sorted(engines.iterdir()) if (each / "costs.json").exists())
        for other in engines.iterdir():
            if other != kept:
                shutil.rmtree(other)
        return kept / name

    return make


def read_engine(path: Path) -> None:
    store = Store.open(path.parent.parent.parent)
    seal(path.parent)
    store.verify()


def read_costs(path: Path) -> None:
    store = Store.open(path.parent.parent.parent)
    seal_costs(path.parent)
    for stored in store.everything():
        CostFiles(store.root, stored.path).read(identity(stored.key, stored.sha256), "engine")


RECIPE = "recipe.json"


def make_checkpoint(name: str) -> Make:
    """A file of a checkpoint, beside a recipe: the shipped bundle has both, in the form of a checkpoint."""

    def make(root: Path) -> Path:
        source, folder = shipped_bundle(), root / "odd/checkpoint"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("router", "*.onnx"))
        recipe = {key: json.loads((source / "manifest.json").read_bytes())[key] for key in ("pool", "quality", "schedulers")}
        recipe |= {"family": "postcard", "revision": "1", "license": "Apache-2.0", "sizes": [[64, 64]], "any_size": False, "preview": None}
        (folder / RECIPE).write_text(json.dumps(recipe))
        return folder / name

    return make


def read_checkpoint(path: Path) -> None:
    folder = next(each for each in path.parents if each.name == "checkpoint")
    try:
        values = json.loads((folder / RECIPE).read_bytes())
        recipe = BundleRecipe(**{name: tuple(each) if isinstance(each, list) else each for name, each in values.items()})
    except (ValueError, RecursionError, TypeError, AttributeError):  # a recipe is made by code: its fields have the right names
        return
    check_export(folder, recipe)


CHECKPOINT_FILES = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    RECIPE,
)
READERS: dict[str, Reader] = {
    "manifest": Reader(at("bundle/manifest.json"), mutate_json, read_bundle),
    "manifest with router": Reader(at("routed/manifest.json"), mutate_json, read_bundle),
    "graph": Reader(at("bundle/unet/guided_step.onnx"), mutate_graph, read_graph),
    "weights": Reader(at("bundle/unet/diffusion_pytorch_model.safetensors"), mutate_safetensors, read_stored_tensors),
    "router": Reader(at("routed/router/router.json"), mutate_json, read_router),
    "router arrays": Reader(at("routed/router/router.safetensors"), mutate_safetensors, read_router),
    "network router": Reader(make_network_router, mutate_json, lambda path: Router.load(path.parent)),
    "tokenizer": Reader(at("bundle/tokenizer/tokenizer.json"), mutate_json, read_tokenizer),
    "labels": Reader(head("cwd/labels.csv", 60), damage_text, read_labels),
    "packed labels": Reader(make_packed_table, mutate_bytes, read_labels),
    "growing labels": Reader(head("cwd/labels.csv", 30), damage_text, read_growing_labels),
    "prompts": Reader(at("cwd/prompts.csv"), damage_text, read_prompts),
    **{suffix: Reader(at(f"cwd/image.{suffix}"), damage_image, read_settings) for suffix in ("png", "jpg", "webp")},
    "engine": Reader(keep_one_engine("manifest.json"), mutate_json, read_engine),
    "costs": Reader(keep_one_engine("costs.json"), mutate_json, read_costs),
    **{name: Reader(make_checkpoint(name), mutate_json, read_checkpoint) for name in CHECKPOINT_FILES},
}
"""By the name of the file's kind."""
