"""W1: whatever the files of the store contain, reading them gives an answer or an EngineError, and no entry hides another."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from costroute_rt.cli.main import cli
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import EngineError, Reason
from tests.security.small_store import KEY, read_costs, reseal, reseal_costs, write_engine

Edit = Callable[[dict[str, Any]], object]
SURROGATE, LONG = "\ud800", 10**400
PIECES = (b"", b'"', b"[", b"9" * 400, b"\\ud800", b"1e999", b"-", b"null", b"\xed\xa0\x80")

COSTS: dict[str, Edit] = {
    "surrogate": lambda body: body["measured"][0]["identity"].update(os=SURROGATE),
    "surrogate as a name": lambda body: body.update({SURROGATE: 1}),
    "long time": lambda body: body["measured"][0]["call_ms"].update(median_ms=LONG),
    "huge time": lambda body: body["measured"][0]["call_ms"].update(p95_ms=1e308),
    "many calls": lambda body: body["measured"][0]["load_ms"].update(calls=LONG),
    "many threads": lambda body: body["measured"][0]["condition"].update(threads=LONG),
    "no threads": lambda body: body["measured"][0]["condition"].update(threads=0),
    "threads as text": lambda body: body["measured"][0]["condition"].update(threads="2"),
    "negative time": lambda body: body["measured"][0]["call_ms"].update(median_ms=-1),
    "version": lambda body: body.update(format_version=LONG),
    "older version": lambda body: body.update(format_version=2, engine=SURROGATE),
    "list": lambda body: body.update(measured=[[]]),
    "object": lambda body: body.update(measured={}),
    "no times": lambda body: body["measured"][0].pop("call_ms"),
}

MANIFESTS: dict[str, Edit] = {
    "surrogate in a file name": lambda manifest: manifest["files"].update({SURROGATE: manifest["files"]["model.onnx"]}),
    "surrogate in the source": lambda manifest: manifest.update(source=SURROGATE),
    "surrogate in the key": lambda manifest: manifest["key"].update(graph=SURROGATE),
    "surrogate in the reason": lambda manifest: manifest.update(quarantined=SURROGATE),
    "control character in a file name": lambda manifest: manifest["files"].update({"a\x1b]0;x\x07": manifest["files"]["model.onnx"]}),
    "huge size": lambda manifest: manifest["files"]["model.onnx"].update(bytes=LONG),
    "huge build time": lambda manifest: manifest.update(build_s=1e300),
    "long build time": lambda manifest: manifest.update(build_s=LONG),
    "gate of text": lambda manifest: manifest.update(gate={"max_abs_error": "x"}),
    "gate of a long number": lambda manifest: manifest.update(gate={"engine_ms": LONG}),
    "gate of a list": lambda manifest: manifest.update(gate={"device": []}),
    "file in a folder": lambda manifest: manifest["files"].update({"a/b": manifest["files"]["model.onnx"]}),
    "file outside": lambda manifest: manifest["files"].update({"../b": manifest["files"]["model.onnx"]}),
    "no object": lambda manifest: manifest.update(files=[]),
    "another key": lambda manifest: manifest["key"].update(backend="another"),
    "format": lambda manifest: manifest.update(format_version=[]),
    "long shapes": lambda manifest: manifest["key"].update(shapes="height=" + "9" * 5000),
    "odd size": lambda manifest: manifest.update(build_s="1"),
}

ACCEPTED: dict[str, Edit] = {
    "first year": lambda manifest: manifest.update(built_at="0001-01-01T00:00:00"),
    "last year": lambda manifest: manifest.update(built_at="9999-12-31T23:59:59-23:59"),
    "no date": lambda manifest: manifest.update(built_at="yesterday"),
    "odd shapes": lambda manifest: manifest["key"].update(shapes="batch=x height width=1=2 =" + "9" * 1500),
    "unknown backend": lambda manifest: manifest["key"].update(backend="abacus", precision="decimal", provider="x"),
    "graph without slashes": lambda manifest: manifest["key"].update(graph="x"),
    "graph of the family": lambda manifest: manifest["key"].update(graph="tiny/x/y@0x0"),
    "empty key": lambda manifest: manifest["key"].update(dict.fromkeys(manifest["key"], "")),
}


@pytest.fixture
def engine(tmp_path: Path) -> StoredEngine:
    return write_engine(tmp_path / "store")[1]


@pytest.fixture
def store(engine: StoredEngine) -> Store:
    return Store.open(engine.path.parent.parent)


@pytest.mark.parametrize("edit", COSTS)
def test_impossible_costs_count_as_none(store: Store, engine: StoredEngine, edit: str) -> None:
    reseal_costs(engine, COSTS[edit])
    with pytest.raises(EngineError) as caught:
        read_costs(store, engine)
    assert caught.value.reason is Reason.NOT_MEASURED
    str(caught.value).encode()


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"costs":' * 900 + b"1" + b"}" * 900, b"\xff", b"", b"1", b" " * (2 << 20)])
def test_costs_that_are_no_costs_count_as_none(store: Store, engine: StoredEngine, text: bytes) -> None:
    for name in ("costs.json", "manifest.json"):
        (engine.path / name).write_bytes(text)
    with pytest.raises(EngineError):
        read_costs(store, engine)
    with pytest.raises(EngineError):
        store.find(KEY)


@pytest.mark.parametrize("edit", MANIFESTS)
def test_an_impossible_manifest_is_damage(store: Store, engine: StoredEngine, edit: str) -> None:
    reseal(engine, MANIFESTS[edit])
    with pytest.raises(EngineError) as caught:
        store.find(KEY)
    assert caught.value.reason is Reason.DAMAGED
    str(caught.value).encode()


def test_every_command_survives_such_entries(tiny_bundle: Path, tmp_path: Path, home: Path) -> None:
    engine = write_engine(home)[1]
    for index, edit in enumerate((*MANIFESTS.values(), *ACCEPTED.values())):
        folder = engine.path.with_name(f"{index:032x}")
        shutil.copytree(engine.path, folder)
        values = json.loads((folder / "manifest.json").read_bytes())
        edit(values)
        reseal(next(each for each in Store.open(home).engines() if each.path == folder), lambda manifest, new=values: manifest.update(new))
    for arguments in (
        ("list", "--bundle", tiny_bundle), ("list", "--bundle", tiny_bundle, "--json"), ("verify",), ("verify", "--json"),
        ("explain", "--bundle", tiny_bundle), ("gc", "--max-gb", "0", "--bundle", tiny_bundle, "--dry-run"),
        ("gc", "--max-gb", "0", "--bundle", tiny_bundle), ("rm", "--all"),
    ):  # fmt: skip
        done = CliRunner().invoke(cli, ["engines", *map(str, arguments)])
        assert done.exit_code in (0, 5), (arguments, done.output)
        assert not {"Traceback", "a bug"} & set(done.output.split()), done.output
        assert "a bug" not in done.output, (arguments, done.output)


def test_changed_bytes_give_an_answer_or_an_engine_error(store: Store, engine: StoredEngine) -> None:
    chance = random.Random(0)
    whole = {name: (engine.path / name).read_bytes() for name in ("manifest.json", "costs.json")}
    refused = 0
    for _ in range(150):
        for name, data in whole.items():
            values = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(values))
                values[at : at + chance.randrange(3)] = chance.choice(PIECES)
            try:
                edited = json.loads(values)
                if name == "costs.json":
                    reseal_costs(engine, lambda body, new=edited: body.update(new["costs"]))
                else:
                    reseal(engine, lambda manifest, new=edited: manifest.update(new))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                (engine.path / name).write_bytes(values)
        for read in (lambda: store.find(KEY), lambda: read_costs(store, engine), store.verify, store.everything):
            try:
                read()
            except EngineError as error:
                refused += 1
                str(error).encode()
        for name, data in whole.items():
            (engine.path / name).write_bytes(data)
    assert refused
