"""W16: a bundle's files have names that mean the same file on every system."""

from __future__ import annotations

from typing import NoReturn

import pytest

from costroute_rt.engines.bundle.manifest_reader import check_path
from costroute_rt.error import BundleError


def fail(problem: str) -> NoReturn:
    raise BundleError(None, problem, "")


STREAMS = ["a/b:stream", "a:b", "unet/step.onnx::$DATA", "C:/x"]
DEVICES = [
    "NUL",
    "nul",
    "a/NUL.onnx",
    "con.txt",
    "AUX .onnx",
    "a/prn",
    "COM1",
    "com0",
    "lpt9.bin",
    "COM¹",
    "LPT².x",
    "CONIN$",
    "conout$.onnx",
]
ENDINGS = ["a./b", "a/b.", "a /b", "a/b ", "...", "a/. /b"]
CHARACTERS = ["a\\b", "a\0b", "a\x1fb", "a\x7fb", "a?b", "a*b", "*/_ORT_MEM_ADDR_/*", 'a"b', "a<b", "a>b", "a|b"]
OUTSIDE = ["", ".", "..", "a/../b", "a//b", "/a", "a/"]
USUAL = ["unet/step.onnx", ".gitattributes", "a b/c", "console", "com10", "nulls.txt", "communal/lpt", "ünïcode/图.onnx"]


@pytest.mark.parametrize("name", [*STREAMS, *DEVICES, *ENDINGS, *CHARACTERS, *OUTSIDE])
def test_a_name_that_some_system_reads_differently_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="expected a relative path"):
        check_path(name, fail, "a file")


@pytest.mark.parametrize("name", USUAL)
def test_usual_names_are_allowed(name: str) -> None:
    assert check_path(name, fail, "a file") == name
