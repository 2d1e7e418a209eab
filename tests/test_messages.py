"""The library speaks of remedies in words: commands and their options are for the command line to name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from costroute_rt.cli.main import cli

ROOT = Path(__file__).parent.parent
PROGRAMS = {path for path in (ROOT / "export/postcard").glob("*.py") if "argparse" in path.read_text(encoding="utf-8")}
"""They have a command line of their own."""
FILES = sorted({path for folder in ("runtime", "engines", "export") for path in (ROOT / folder).rglob("*.py")} - PROGRAMS)
COMMAND = re.compile(rf"costroute-rt ({'|'.join(cli.commands)})\b|\bpip (install|uninstall)\b|(?:^|[\s`'\"])--[a-z][a-z-]+")


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every piece of text in the code, without docstrings."""
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
            yield node.lineno, node.value


def find_commands(source: str) -> list[tuple[int, str]]:
    """Line and text of everything that reads like a command or one of its options."""
    return [(line, text) for line, text in texts(ast.parse(source)) if COMMAND.search(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_of_the_library_names_a_command(path: Path) -> None:
    assert find_commands(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["costroute-rt build-engines", "fit one with costroute-rt fit-router", "use --provider cpu", "--force", "pip install onnx"]
)
def test_such_text_is_found(text: str) -> None:
    source = f'"""costroute-rt gen"""\ndef fail(name):\n    """--force"""\n    raise ValueError(f"{{name}}: {text}")\n'
    assert [line for line, _ in find_commands(source)] == [4]
