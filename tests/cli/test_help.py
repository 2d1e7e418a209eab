from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from costroute_rt.cli.main import cli
from costroute_rt.cli.reference import reference

REFERENCE = Path(__file__).parents[2] / "docs" / "cli.md"
HEAVY = ("numpy", "PIL", "onnxruntime", "onnx", "tokenizers", "filelock", "platformdirs", "torch", "diffusers", "transformers")


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `code`."""
    shown = f"import sys\n{code}\nsys.stderr.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def help_of(path: tuple[str, ...]) -> str:
    return f"from costroute_rt.cli.main import cli\ntry: cli({[*path, '--help']!r})\nexcept SystemExit as end: assert end.code == 0"


@pytest.mark.parametrize("path", [(), ("gen",), ("engines", "list"), ("doctor",)], ids=" ".join)
def test_help_loads_click_and_nothing_heavy(path: tuple[str, ...]) -> None:
    loaded = loaded_by(help_of(path))
    assert "click" in loaded
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize("path", list(commands()), ids=lambda path: " ".join(path) or "costroute-rt")
def test_every_help_says_what_and_how(path: tuple[str, ...]) -> None:
    usage, what, *rest = CliRunner().invoke(cli, [*path, "--help"], prog_name="costroute-rt").stdout.split("\n\n")
    name = " ".join(["costroute-rt", *path])
    assert usage.startswith(f"Usage: {name} ")
    assert what.rstrip().endswith(".")
    assert path in ((), ("engines",)) or any(f"  {name}" in paragraph for paragraph in rest)


@pytest.mark.parametrize("path", [path for path in commands() if path and path != ("engines",)], ids=" ".join)
def test_every_command_can_print_json(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


@pytest.mark.skipif(
    tuple(map(int, version("click").split(".")[:3])) < (8, 4, 2), reason="compares texts that an older click writes in another form"
)
def test_reference_is_up_to_date() -> None:
    if not REFERENCE.exists():
        pytest.skip("compares docs/cli.md, which is missing: the tests stand outside the repository")
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run: python -m costroute_rt.cli.reference > docs/cli.md"
