"""The command reference, made from the help texts: `python -m costroute_rt.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

WIDTH = 110
INTRODUCTION = """\
# Commands

The help text of every command, as `--help` prints it. Made by `python -m costroute_rt.cli.reference > docs/cli.md`; a test fails
where it is out of date.
"""


def reference() -> str:
    """Markdown with one section for each command."""
    from costroute_rt.cli.main import cli

    sections = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in _help_texts(cli, "costroute-rt", None)]
    return "\n".join([INTRODUCTION, *sections])


def _help_texts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from _help_texts(command.commands[child], child, context)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
