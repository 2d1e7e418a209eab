"""Damaged content read directly, without a command: many more damages in the same time."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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
from costroute_rt.routing.router_bundle import open_router
from tests.fuzz.case import Case
from tests.fuzz.mutation import damage_image, damage_text, mutate_bytes, mutate_graph, mutate_json, mutate_safetensors, seal

TIMES = 60
"""Damages in a case."""


def try_readers(case: Case) -> None:
    """One kind of file with many damages, one after the other."""
    case.random.choice(READERS)(case)


def _each(case: Case, path: Path, damage: Callable[[bytes], bytes], read: Callable[[], object]) -> None:
    """Reads the file after each damage; any error but ours is a problem."""
    data = path.read_bytes()
    for number in range(TIMES):
        path.write_bytes(damage(data))
        case.note(f"read {path.name} after damage {number}")
        try:
            read()
        except CostrouteError as error:
            str(error)
        except BaseException as error:
            case.problems.append(f"damage {number} of {path.name} raised " + "".join(traceback.format_exception(error))[-2500:])
            return


def read_image(case: Case) -> None:
    path = case.place.root / "cwd" / case.random.choice(("image.png", "image.jpg", "image.webp"))
    _each(case, path, lambda data: damage_image(case.random, data), lambda: read_settings(path))


def read_table(case: Case) -> None:
    path = case.place.root / "cwd" / "labels.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:60]))
    _each(case, path, lambda data: damage_text(case.random, data), lambda: _read_labels(path))


def _read_labels(path: Path) -> None:
    table = LabelTable.open(path, category="category")
    repr(table.labels)


def read_packed_table(case: Case) -> None:
    path = case.place.root / "cwd" / "labels.csv.gz"
    path.write_bytes(gzip.compress(b"".join((case.place.root / "cwd/labels.csv").read_bytes().splitlines(keepends=True)[:30]), mtime=0))
    _each(case, path, lambda data: mutate_bytes(case.random, data), lambda: _read_labels(path))


def read_growing_table(case: Case) -> None:
    path = case.place.root / "cwd" / "labels.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:30]))

    def read() -> None:
        with open_label_file(path):
            pass

    _each(case, path, lambda data: damage_text(case.random, data), read)


def read_prompt_table(case: Case) -> None:
    path = case.place.root / "cwd" / "prompts.csv"
    _each(case, path, lambda data: damage_text(case.random, data), lambda: read_prompts(path))


def read_manifest(case: Case) -> None:
    folder = case.place.root / case.random.choice(("bundle", "routed"))

    def read() -> None:
        seal(folder)
        bundle = Bundle.open(folder)
        family = Family.open(bundle)
        quality = AverageQuality.from_bundle(bundle, family.pool) if bundle.router is None else open_router(bundle)
        if not quality.engines and not quality.needs_states:
            quality.judge("a lake", None)

    _each(case, folder / "manifest.json", lambda data: mutate_json(case.random, data), read)


def read_router(case: Case) -> None:
    folder = case.place.root / "routed"
    is_json = case.random.random() < 0.7
    path = folder / "router" / ("router.json" if is_json else "router.safetensors")

    def read() -> None:
        seal(folder)
        quality = open_router(Bundle.open(folder))
        quality.judge("a lake", None)

    _each(case, path, lambda data: (mutate_json if is_json else mutate_safetensors)(case.random, data), read)


def read_tokenizer(case: Case) -> None:
    path = case.place.root / "bundle/tokenizer/tokenizer.json"

    def read() -> None:
        tokenizer = Tokenizer.open(path, max_length=16, pad=1)
        for text in ("a lake", "🏠 é, the" * 20, " "):
            tokenizer.encode(text)

    _each(case, path, lambda data: mutate_json(case.random, data), read)


def read_weights(case: Case) -> None:
    path = case.place.root / "bundle/unet/diffusion_pytorch_model.safetensors"
    _each(case, path, lambda data: mutate_safetensors(case.random, data), lambda: read_stored_tensors(path))


def read_graph(case: Case) -> None:
    path = case.place.root / "bundle/unet/guided_step.onnx"

    def read() -> None:
        for reader in (lambda path: read_external_tensors(path.read_bytes()), read_graph_spec):
            with suppress(ValueError):  # what it promises
                reader(path)

    _each(case, path, lambda data: mutate_graph(case.random, data), read)


def read_engine(case: Case) -> None:
    store = Store.open(case.place.root / "home")
    engine = next(each for each in sorted(store.folder.iterdir()) if (each / "costs.json").exists())
    for other in store.folder.iterdir():
        if other != engine:
            shutil.rmtree(other)

    def read() -> None:
        seal(engine)
        store.verify()
        if name == "costs.json":
            CostFiles(store.root, engine).read(identity(key, "0" * 64), "engine")

    key, name = next(iter(store.everything())).key, case.random.choice(("manifest.json", "costs.json"))
    _each(case, engine / name, lambda data: mutate_json(case.random, data), read)


def read_checkpoint(case: Case) -> None:
    """The configurations of a checkpoint, and a recipe: the shipped bundle has both, in the form of a checkpoint."""
    source, folder = shipped_bundle(), case.place.root / "odd" / "checkpoint"
    shutil.copytree(source, folder, copy_function=os.symlink, ignore=shutil.ignore_patterns("router", "*.onnx"))
    names = ["model_index.json", "recipe", *(f"{name}/config.json" for name in ("unet", "vae", "text_encoder"))]
    path = folder / case.random.choice([*names, "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"])
    recipe = {name: json.loads((source / "manifest.json").read_bytes())[name] for name in ("pool", "quality", "schedulers")}
    recipe |= {"family": "postcard", "revision": "1", "license": "Apache-2.0", "sizes": [[64, 64]], "any_size": False, "preview": None}
    data = json.dumps(recipe).encode() if path.name == "recipe" else path.read_bytes()
    path.unlink(missing_ok=True)
    path.write_bytes(data)

    def read() -> None:
        try:
            values = json.loads((folder / "recipe").read_bytes()) if path.name == "recipe" else recipe
        except (ValueError, RecursionError):  # of this test: a recipe is no file
            return
        if not isinstance(values, dict):
            return
        try:
            made = BundleRecipe(**{name: tuple(each) if isinstance(each, list) else each for name, each in values.items()})
        except TypeError:  # fields of other names
            return
        check_export(folder, made)

    _each(case, path, lambda data: mutate_json(case.random, data), read)


READERS: tuple[Callable[[Case], None], ...] = (
    read_checkpoint,
    read_image,
    read_table,
    read_packed_table,
    read_growing_table,
    read_prompt_table,
    read_manifest,
    read_router,
    read_tokenizer,
    read_weights,
    read_graph,
    read_engine,
)
