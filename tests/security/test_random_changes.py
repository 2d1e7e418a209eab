"""Routers, tokenizers, tables, indexes of checkpoints and images with random changes: read, or refused with an error of this package."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import CostrouteError
from costroute_rt.export.checkpoint.checkpoint import check_export
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import read_prompts
from costroute_rt.image_settings import read_settings
from costroute_rt.routing.router import Router
from tests.export.checkpoint_folder import simple_recipe, write_folder
from tests.runtime.routing.routers import write_network_router
from tests.security.test_w08_info import write_png
from tests.small_router import make_router
from tests.tiny_bundle import END, write_tokenizer

ROUNDS = 150
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**400, -(10**30), 0.5, -0.0, 1e308,
    "", "\ud800", "\x1b[2J", "a" * 2000, "../x", [], {}, [[]], [None] * 9, {"": None}, {"type": "Sequence"},
    [-(10**30), "F32"], "=1", "'", 1e-320,
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container below a value, with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def change_json(text: bytes, chance: random.Random) -> bytes:
    """One to three values replaced, removed or repeated, anywhere in a JSON text."""
    value = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        found = list(places(value))
        if not found:
            break
        container, key = found[chance.randrange(min(len(found), 400))]
        if chance.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(chance.choice(VALUES))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to eight bytes replaced, and sometimes a part cut out or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] = chance.choice((0, 1, 10, 34, 39, 44, 61, 127, 128, 255, chance.randrange(256)))
    begin, end = sorted(chance.randrange(len(changed)) for _ in range(2))
    kind = chance.random()
    return bytes(changed[:begin] + changed[end:] if kind < 0.2 else changed[:end] + changed[begin:] if kind < 0.3 else changed)


Make = Callable[[Path, Path], tuple[Path, Callable[[Path], Any]]]


def network_router(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    write_network_router(Bundle.open(tiny, verify=False), root / "r")
    return root / "r" / "router.json", lambda path: Router.load(path.parent)


def plain_router(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    make_router(Bundle.open(tiny, verify=False).pool).save(root / "r")
    return root / "r" / "router.json", lambda path: Router.load(path.parent)


def router_arrays(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    make_router(Bundle.open(tiny, verify=False).pool).save(root / "r")
    # The hash is that of the changed file, as whoever changed it would write.
    return root / "r" / "router.safetensors", load_resealed


def load_resealed(path: Path) -> Router:
    settings = json.loads(path.with_name("router.json").read_text())
    settings["arrays_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("router.json").write_text(json.dumps(settings))
    return Router.load(path.parent)


def tokenizer(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    write_tokenizer(root / "tokenizer.json")
    return root / "tokenizer.json", lambda path: Tokenizer.open(path, max_length=16, pad=END).encode("a red house, Zürich 日本")


def labels(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    rows = "".join(f"id{row},'a lake {row}',a@{row % 3},{row % 2},0.{row},{row}.5,x\n" for row in range(40))
    (root / "labels.csv").write_text("prompt_id,prompt,candidate,seed,score,cost_ms,fingerprint\n" + rows)
    return root / "labels.csv", lambda path: LabelTable.open(path).cells()


def packed_labels(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    path, read = labels(root, tiny)
    (root / "labels.csv.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return root / "labels.csv.gz", read


def prompts(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    (root / "prompts.csv").write_text("prompt,stated\n" + "".join(f'a lake {row},"{{""sky"": {row}}}"\n' for row in range(20)))
    return root / "prompts.csv", read_prompts


def index(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "requires_safety_checker": True}
    return write_folder(root / "c", model_index=parts) / "model_index.json", lambda path: check_export(path.parent, simple_recipe())


def unet(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    return write_folder(root / "c") / "unet/config.json", lambda path: check_export(path.parent.parent, simple_recipe())


def scheduler(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    return write_folder(root / "c") / "scheduler/scheduler_config.json", lambda path: check_export(path.parent.parent, simple_recipe())


def image(root: Path, tiny: Path) -> tuple[Path, Callable[[Path], Any]]:
    return write_png(root / "image.png", {"prompt": "a lake", "seed": 7}), read_settings


JSON_FILES: tuple[Make, ...] = (plain_router, network_router, tokenizer, index, unet, scheduler)
FILES: tuple[Make, ...] = (router_arrays, tokenizer, labels, packed_labels, prompts, index, image, plain_router)
CASES = [(make, change_json) for make in JSON_FILES] + [(make, change_bytes) for make in FILES]


@pytest.mark.parametrize(("make", "change"), CASES, ids=[f"{make.__name__}, {change.__name__}" for make, change in CASES])
def test_nothing_but_errors_of_this_package_comes_out(
    tmp_path: Path, tiny_bundle: Path, make: Make, change: Callable[[bytes, random.Random], bytes]
) -> None:
    path, read = make(tmp_path, tiny_bundle)
    original, texts = path.read_bytes(), list[str]()
    read(path)
    for seed in range(ROUNDS):
        path.write_bytes(change(original, random.Random(seed)))
        try:
            read(path)
        except CostrouteError as error:
            texts.append(str(error))
        except Exception as error:
            raise AssertionError(f"round {seed}: {type(error).__name__}: {error}") from error
    assert len(texts) > ROUNDS // 20
    assert [text for text in texts if not text.isprintable()] == []
