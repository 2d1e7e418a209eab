"""Damage to files: of bytes, of JSON values, of the headers of weights, of graphs; and making a bundle's hashes match afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import onnx

from costroute_rt.engines.bundle.section import MOST_BYTES
from costroute_rt.engines.store.cost import _digest as costs_digest
from costroute_rt.regular_file import read_regular
from tests.fuzz.odd import TEXTS, odd_text

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**53, 2**63, 10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"),
    float("inf"), "", " ", "x", "0",
    [], {}, [[]], [0], [None], [1, 2, 3], {"": 0}, {"x": 1}, [1e308, -1e308], "../../x", "/etc/passwd", "a\0b", "\ud800", "x" * 5000,
    "tiny-base@8", "float32",
)  # fmt: skip


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """The bytes with a few of them changed, lost, moved or added."""
    size = len(data)
    at = random.randrange(size + 1)
    length = min(size - at, random.choice((1, 2, 8, 64, 1000)))
    match random.randrange(9):
        case 0 if size:
            changed = bytearray(data)
            for _ in range(random.choice((1, 1, 2, 8))):
                changed[random.randrange(size)] ^= 1 << random.randrange(8)
            return bytes(changed)
        case 1:
            return data[:at]
        case 2:
            return b""
        case 3:
            return data + random.randbytes(random.choice((1, 100, 10000)))
        case 4:
            return data[:at] + data[at + length :]
        case 5:
            return data[:at] + bytes(length) + data[at + length :]
        case 6:
            return data[:at] + random.randbytes(length) + data[at + length :]
        case 7:
            return data[:at] + data[at : at + length] * random.choice((2, 100)) + data[at + length :]
        case _:
            return data[at:] + data[:at]


def mutate_json(random: Random, data: bytes) -> bytes:
    """The JSON text with one to three values of another type, lost, doubled or deeply nested."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(random, data)
    if random.random() < 0.03:
        return random.choice(
            (
                b"[" * 100_000,
                b"{}",
                b"[]",
                b"null",
                b"1",
                b'"x"',
                b'{"a":' * 5000,
                b"1" * 100_000,
                data.decode("utf-8", "replace").encode("utf-16"),
            )
        )
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _mutate_value(random, value)
    with suppress(ValueError, RecursionError):
        return json.dumps(value).encode("utf-8", "surrogatepass")
    return data


def _mutate_value(random: Random, value: Any) -> Any:
    places = list(_places(value))
    if not places:
        return deepcopy(random.choice(VALUES))
    holder, key = random.choice(places)
    old = holder[key]
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(TEXTS)] = holder.pop(key)
        case 2:
            other_holder, other_key = random.choice(places)
            with suppress(KeyError, IndexError, TypeError):  # copies, so that nothing comes to hold itself
                holder[key], other_holder[other_key] = deepcopy(other_holder[other_key]), deepcopy(old)
        case 3 if isinstance(old, (int, float)) and not isinstance(old, bool):
            holder[key] = random.choice(
                (old + 1, -old, old * 1000, old * 2**40, str(old), [old], float(old) if abs(old) < 1e300 else 0, old // 2)
            )
        case 4 if isinstance(old, str):
            holder[key] = random.choice(
                (random.choice(TEXTS), old + "x", old.upper(), f"../{old}", f"./{old}", old[:-1], [old], old + "\0")
            )
        case 5 if isinstance(old, list):
            holder[key] = random.choice(
                (
                    old * 2,
                    old[:-1],
                    [old],
                    old[::-1],
                    old * 1000 if len(old) < 10 else old,
                    {str(index): each for index, each in enumerate(old)},
                )
            )
        case _:
            holder[key] = deepcopy(random.choice(VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and objects; of long lists only the first few."""
    todo = [value]
    while todo:
        holder = todo.pop()
        keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), 4)) if isinstance(holder, list) else ()
        for key in keys:
            yield holder, key
            todo.append(holder[key])


def mutate_safetensors(random: Random, data: bytes) -> bytes:
    """A weight file with a changed header of the right length, or other bytes."""
    if len(data) < 8 or random.random() < 0.3:
        return mutate_bytes(random, data)
    length = int.from_bytes(data[:8], "little")
    header = mutate_json(random, data[8 : 8 + length])
    size = len(header) if random.random() < 0.9 else random.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    return size.to_bytes(8, "little") + header + data[8 + length :]


def mutate_graph(random: Random, data: bytes) -> bytes:
    """A graph with a changed node, tensor, shape or place of its weights, or other bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception:
        return mutate_bytes(random, data)
    for _ in range(random.choice((1, 1, 2))):
        with suppress(IndexError, ValueError, TypeError):
            random.choice(GRAPH_CHANGES)(random, model.graph)
    return bytes(model.SerializeToString())


def _drop_node(random: Random, graph: Any) -> None:
    del graph.node[random.randrange(len(graph.node))]


def _change_operator(random: Random, graph: Any) -> None:
    random.choice(graph.node).op_type = random.choice(("Relu", "MatMul", "Loop", "Nonsense", "", "Concat", "Reshape", "Gather", "Identity"))


def _change_name(random: Random, graph: Any) -> None:
    node = random.choice(graph.node)
    names = random.choice((node.input, node.output))
    names[random.randrange(len(names))] = random.choice(
        (random.choice(graph.node).output[0], "", "nowhere", random.choice(TEXTS).encode("ascii", "ignore").decode())
    )


def _change_location(random: Random, graph: Any) -> None:
    tensor = random.choice([each for each in graph.initializer if each.external_data])
    entry = random.choice(tensor.external_data)
    entry.value = random.choice(
        ("", "0", "-1", "1", str(2**62), str(2**64), "x", "../../x", "/etc/passwd", entry.value + "0", "model.onnx")
    )


def _change_shape(random: Random, graph: Any) -> None:
    tensor = random.choice(graph.initializer)
    if random.random() < 0.5:
        tensor.data_type = random.choice((0, 1, 2, 7, 8, 10, 11, 16, 99))
    elif tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice((0, 1, -1, 3, 2**31, 2**62))


def _change_value_type(random: Random, graph: Any) -> None:
    kind = random.choice([*graph.input, *graph.output]).type.tensor_type
    if random.random() < 0.4:
        kind.elem_type = random.choice((0, 1, 7, 8, 10, 11, 99))
    else:
        size = random.choice(kind.shape.dim)
        size.dim_value = random.choice((0, 1, -1, 2, 7, 2**31, 2**62))


def _change_attribute(random: Random, graph: Any) -> None:
    attribute = random.choice(random.choice([each for each in graph.node if each.attribute]).attribute)
    attribute.i = random.choice((0, -1, 5, 2**31, 2**62))
    if attribute.ints:
        attribute.ints[random.randrange(len(attribute.ints))] = random.choice((0, -1, 5, 2**31, 2**62))


GRAPH_CHANGES: tuple[Callable[[Random, Any], None], ...] = (
    _drop_node, _change_operator, _change_name, _change_location, _change_shape, _change_value_type, _change_attribute,
)  # fmt: skip


def damage_text(random: Random, data: bytes) -> bytes:
    """A table or a list of lines with changed cells, or other bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(random.choice((1, 1, 3))):
        at = random.randrange(len(lines))
        cells = lines[at].split(",")
        cells[random.randrange(len(cells))] = random.choice(
            ("nan", "inf", "-inf", "1e39", "1e308", "-1e308", "", "1e-320", "x", '"', '"a', "9" * 5000, odd_text(random))
        )
        lines[at] = ",".join(cells) if random.random() < 0.8 else random.choice((lines[0], lines[-1], "", ",", "," * 50, odd_text(random)))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damage_image(random: Random, data: bytes) -> bytes:
    """An image file with other bytes, most often near its start, where the settings are."""
    cut = random.choice((len(data), 3000, 600, 60))
    return mutate_bytes(random, data[:cut]) + data[cut:]


def mutate_file(random: Random, path: Path, others: list[Path]) -> str:
    """Change a file's content by its kind, or the file itself; returns what was done."""
    if random.random() < 0.1:
        return _replace_file(random, path, others)
    kinds = {".json": mutate_json, ".safetensors": mutate_safetensors, ".onnx": mutate_graph}
    mutate = kinds.get(path.suffix, mutate_bytes)
    if path.suffix == ".json" and random.random() < 0.2:
        mutate = mutate_bytes
    data = path.read_bytes()
    changed = mutate(random, data)
    path.write_bytes(changed)
    return f"{mutate.__name__}: {len(data)} to {len(changed)} bytes"


def _replace_file(random: Random, path: Path, others: list[Path]) -> str:
    kind = random.choice(("missing", "folder", "dangling", "loop", "other", "closed", "outside", "zero"))
    if kind == "closed":
        path.chmod(0)
        return kind
    if kind == "other":
        shutil.copyfile(random.choice([each for each in others if each.is_file()]), path.with_name("copy"))
        os.replace(path.with_name("copy"), path)
        return kind
    data = path.read_bytes()
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "zero":
            with suppress(OSError):
                os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "outside":
            outside = next(each for each in path.parents if (each / "odd").is_dir()) / "odd" / "moved"
            outside.write_bytes(data)
            path.symlink_to(outside)
    return kind


def seal(bundle: Path) -> None:
    """Make the hashes and sizes of a bundle, or of an engine, agree with its files, as far as the manifest can be read."""
    path = bundle / "manifest.json"
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        manifest = json.loads(read_regular(path, MOST_BYTES))
        for name, entry in manifest["files"].items():
            with suppress(OSError, ValueError, TypeError, AttributeError):
                data = read_regular(bundle / name, MOST_BYTES)
                entry.update({"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})
        path.write_text(json.dumps(manifest))
    seal_costs(bundle)
    with suppress(OSError):
        (bundle / "manifest.sha256").write_text(hashlib.sha256(read_regular(path, MOST_BYTES)).hexdigest())


def seal_costs(engine: Path) -> None:
    """Make the hash of an engine's costs agree with them, as far as they can be read."""
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        costs = json.loads(read_regular(engine / "costs.json", MOST_BYTES))
        costs["sha256"] = costs_digest(costs["costs"])
        (engine / "costs.json").write_text(json.dumps(costs))
