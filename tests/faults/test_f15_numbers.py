"""F15: `--max-gb nan` ended in "a bug"; every numeric option refuses what it cannot calculate with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from costroute_rt.cli.main import cli

BAD_NUMBERS = ("nan", "-nan", "inf", "-inf", "1e309", "1e300", "-1", "", " ", "1e", "0x10", "half")
BAD_WHOLE_NUMBERS = ("nan", "inf", "-1", "", "1.5", "1e3", str(10**30), "9" * 5000)


def options(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    """Every option of every command, with the words that call the command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from options(command, (*path, name))
        yield from (((*path, name), each) for each in command.params if isinstance(each, click.Option))


NUMERIC = [(path, each) for path, each in options() if isinstance(each.type, click.types._NumberParamTypeBase)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), prog_name="costroute-rt")


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_f15_a_size_limit_that_is_no_number_is_refused(home: Path, value: str) -> None:
    done = run("engines", "gc", f"--max-gb={value}")
    assert done.exit_code == 2, done.output
    assert "--max-gb" in done.stderr
    assert "a bug" not in done.stderr


@pytest.mark.parametrize("value", ["0", "1e-320", "0.5", "1e12"])
def test_f15_sizes_that_mean_something_are_taken(home: Path, value: str) -> None:
    assert run("engines", "gc", f"--max-gb={value}").exit_code == 0


def test_f15_no_option_has_a_number_type_of_click_itself() -> None:
    from costroute_rt.cli.number import Number, WholeNumber

    assert len(NUMERIC) > 10
    assert [(path, each.name) for path, each in NUMERIC if not isinstance(each.type, Number | WholeNumber)] == []


@pytest.mark.parametrize(("path", "option"), NUMERIC, ids=lambda each: each.name if isinstance(each, click.Option) else " ".join(each))
def test_f15_every_numeric_option_refuses_such_values(home: Path, path: tuple[str, ...], option: click.Option) -> None:
    for value in BAD_NUMBERS if isinstance(option.type, click.FloatRange) else BAD_WHOLE_NUMBERS:
        done = run(*path, f"{option.opts[0]}={value}")
        assert done.exit_code == 2, (value, done.output)
        assert option.opts[0] in done.stderr, value
