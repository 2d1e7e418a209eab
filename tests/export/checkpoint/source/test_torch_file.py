"""Files of torch.save: tensors are found by position, and nothing in the pickle is imported or called."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.weights import read_weights
from tests.export.small_checkpoint import needs_export
from tests.tensor_file import decode, encode, write_safetensors
from tests.torch_file import rebuild_tensor, text, write_archive, write_torch_file

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)
DICT = b"\x80\x02}" + text("a")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("inside", [None, "state_dict"])
def test_tensors_are_found_by_position(tmp_path: Path, dtype: str, inside: str | None) -> None:
    tensors = {"weight": ARRAY, "bias": ARRAY[0] + 7}
    path = write_torch_file(tmp_path / "model.bin", tensors, dtype=dtype, inside=inside, global_step=3)
    found = read_weights(path)
    assert found.metadata == ({"global_step": "3"} if inside else {})
    for name, tensor in tensors.items():
        region = found.tensors[name]
        content = path.read_bytes()[region.offset : region.offset + region.length]
        assert (region.dtype, content) == encode(tensor, dtype)
        np.testing.assert_array_equal(decode(content, dtype, region.shape), tensor)


def read_tensor(tmp_path: Path, opcodes: bytes, storage: bytes = ARRAY.tobytes()) -> Any:
    return read_weights(write_archive(tmp_path / "a.bin", DICT + opcodes + b"s.", {"0": storage})).tensors["a"]


def test_parts_of_a_storage_and_transposed_matrices_are_regions(tmp_path: Path) -> None:
    rows = read_tensor(tmp_path, rebuild_tensor("FloatStorage", "0", (2, 4), offset=4))
    assert (tmp_path / "a.bin").read_bytes()[rows.offset :][: rows.length] == ARRAY[1:].tobytes()
    turned = read_tensor(tmp_path, rebuild_tensor("FloatStorage", "0", (4, 3), stride=(1, 4)))
    assert (turned.shape, turned.is_transposed) == ((3, 4), True)
    assert read_tensor(tmp_path, rebuild_tensor("FloatStorage", "0", (3, 2), stride=(4, 1))).dtype == "F32 with gaps"


class Harmful:
    """What a pickle of a stranger holds: loading it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.load], ids=lambda function: function.__name__)
def test_a_pickle_that_would_call_a_function_is_refused_and_calls_nothing(tmp_path: Path, function: Any, protocol: int) -> None:
    data = pickle.dumps({"a": Harmful(function, str(tmp_path / "made"))}, protocol)
    with pytest.raises(BundleError, match=r"its pickle names \S+, which weights do not need; save its tensors as safetensors"):
        read_weights(write_archive(tmp_path / "a.bin", data, {}))
    assert not (tmp_path / "made").exists()


def nested(depth: int) -> bytes:
    """A tuple in a tuple in a tuple, as the key of a dict."""
    return b"\x80\x02})" + b"\x85" * depth + b"Ns."


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no end": (DICT, "pickle"),
    "empty": (b"", "pickle"),
    "no dict": (b"\x80\x02K\x01.", "it holds no state dict"),
    "no tensor": (DICT + b"K\x01s.", "it holds no state dict"),
    "a deep key": (nested(200_000), "it holds no state dict"),
    "many opcodes": (b"\x80\x02" + b"]" * 1_000_001 + b".", "its pickle has more than 1,000,000 opcodes"),
    "many bytes": (b"\x80\x02" + b"]" * (9 << 20) + b".", "8 MiB"),
    "an empty stack": (b"\x80\x020.", "its pickle is damaged"),
    "an unknown value": (b"\x80\x02h\x07.", "its pickle is damaged"),
    "no such storage": (DICT + rebuild_tensor("FloatStorage", "7", (1,)) + b"s.", "the storage 7 is missing"),
    "beyond its storage": (DICT + rebuild_tensor("FloatStorage", "0", (3, 5)) + b"s.", "its tensor a is larger than its storage"),
    "a negative place": (DICT + rebuild_tensor("FloatStorage", "0", (1,), offset=-4) + b"s.", "a tensor without a position"),
    "two shapes": (DICT + rebuild_tensor("FloatStorage", "0", (1,), stride=(1, 1)) + b"s.", "a tensor without a shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_pickles_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    data, problem = HOSTILE[name]
    with pytest.raises(BundleError, match=problem) as caught:
        read_weights(write_archive(tmp_path / "a.bin", data, {"0": ARRAY.tobytes()}))
    assert "\n" not in str(caught.value)


def test_archives_that_are_damaged_are_refused(tmp_path: Path) -> None:
    whole = write_torch_file(tmp_path / "a.bin", {"a": ARRAY})
    content = whole.read_bytes()
    (tmp_path / "cut.bin").write_bytes(content[:-40])
    with pytest.raises(BundleError, match="it is incomplete, or it does not hold torch weights"):
        read_weights(tmp_path / "cut.bin")
    opcodes = DICT + rebuild_tensor("FloatStorage", "0", (3, 4)) + b"s."
    with pytest.raises(BundleError, match="its storages are compressed"):
        read_weights(write_archive(tmp_path / "b.bin", opcodes, {"0": ARRAY.tobytes()}, compression=zipfile.ZIP_DEFLATED))


def test_any_damaged_byte_gives_tensors_or_an_error(tmp_path: Path) -> None:
    content = write_torch_file(tmp_path / "a.bin", {"a": ARRAY, "b": ARRAY}, inside="state_dict", step=1).read_bytes()
    chance, path = random.Random(0), tmp_path / "b.bin"
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 3, 9))):
            damaged[chance.randrange(4, len(damaged))] = chance.choice((0, 0x28, 0x2E, 0x74, 0x80, 0xFF, chance.randrange(256)))
        path.write_bytes(damaged)
        try:
            read_weights(path)
            outcomes.add("tensors")
        except BundleError:
            outcomes.add("an error")
    assert outcomes == {"tensors", "an error"}


def test_the_old_format_is_refused_and_a_header_of_640_bytes_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03.")
    with pytest.raises(BundleError, match=r"it is in torch's format before version 1\.6.*safetensors\.torch\.save_file"):
        read_weights(tmp_path / "old.ckpt")
    path = write_safetensors(tmp_path / "new.safetensors", {"a": ARRAY}, metadata={"title": "x" * 542})
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read_weights(path).tensors["a"].shape == (3, 4)


class TestWithTorch:
    pytestmark = needs_export

    def test_what_torch_saves_is_read(self, tmp_path: Path) -> None:
        import torch

        base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
        saved = {
            "plain": base, "rows": base[1:3], "turned": base.T, "half": base.half(), "wide": base.bfloat16(),
            "parameter": torch.nn.Parameter(base + 1), "scalar": torch.tensor(3.0), "gaps": base[:, :2], "whole": torch.arange(3),
        }  # fmt: skip
        torch.save({"state_dict": saved, "global_step": 7, "optimizer": [{"lr": 0.1}]}, tmp_path / "a.ckpt")
        found = read_weights(tmp_path / "a.ckpt")
        content = (tmp_path / "a.ckpt").read_bytes()
        assert found.metadata == {"global_step": "7"}
        assert found.tensors.keys() == saved.keys()
        assert found.tensors["gaps"].dtype == "F32 with gaps"
        assert found.tensors["whole"].dtype == "I64"
        for name in ("plain", "rows", "turned", "half", "wide", "parameter", "scalar"):
            region = found.tensors[name]
            array = decode(content[region.offset : region.offset + region.length], region.dtype, region.shape)
            np.testing.assert_array_equal(array.T if region.is_transposed else array, saved[name].detach().float().numpy())

    def test_the_state_of_a_module_and_8_bits_are_read(self, tmp_path: Path) -> None:
        import torch

        torch.save(torch.nn.Linear(2, 3).state_dict() | {"low": torch.zeros(4, dtype=torch.float8_e4m3fn)}, tmp_path / "a.bin")
        found = read_weights(tmp_path / "a.bin").tensors
        assert {name: region.dtype for name, region in found.items()} == {"weight": "F32", "bias": "F32", "low": "F8_E4M3"}
