"""`costroute-rt engines`: look into the store, check it, clear it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from costroute_rt.cli import option
from costroute_rt.cli.failure import say
from costroute_rt.cli.table import format_bytes, show_json, show_table

if TYPE_CHECKING:
    from costroute_rt.engines.store import StoredEngine

DIGEST_SHOWN = 12


@click.group(invoke_without_command=True)
@click.pass_context
def engines(context: click.Context) -> None:
    """List, check, explain and remove the engines in the store."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@engines.command("list")
@option.as_json()
def list_engines(as_json: bool) -> None:
    """List the engines in the store.

    \b
    costroute-rt engines list
    costroute-rt engines list --json
    """
    from costroute_rt.engines.store import Store

    store = Store.open()
    rows = [_row(engine) for engine in store.engines()]
    names = ("engine", "graph", "backend", "precision", "size_bytes", "built_at", "build_s", "state")
    if as_json:
        show_json({"store": str(store.root), "engines": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    show_table(
        ("engine", "graph", "backend", "precision", "size", "built", "build s", "state"),
        [(row[0][:DIGEST_SHOWN], *row[1:4], format_bytes(row[4]), *row[5:]) for row in rows],
    )
    click.echo(f"\n{len(rows)} engines, {format_bytes(sum(row[4] for row in rows))} in {store.root}")


def _row(engine: StoredEngine) -> tuple[str, str, str, str, int, str, float, str]:
    key = engine.key
    state = f"set aside: {engine.quarantined}" if engine.quarantined else "ready" if engine.gate else "not proved"
    return (
        engine.digest,
        key.graph,
        f"{key.backend} {key.backend_version} {key.provider}",
        key.precision,
        engine.size_bytes,
        engine.built_at,
        engine.build_s,
        state,
    )


@engines.command()
@option.as_json()
def verify(as_json: bool) -> None:
    """Hash every file of every engine; exit code 5 where one is damaged.

    \b
    costroute-rt engines verify
    """
    from costroute_rt.engines.error import EngineError
    from costroute_rt.engines.store import Store

    store = Store.open()
    rows = [(found.digest, found.graph, found.problem) for found in store.verify()]
    if as_json:
        show_json({"store": str(store.root), "engines": [dict(zip(("engine", "graph", "problem"), row, strict=True)) for row in rows]})
    else:
        show_table(("engine", "graph", "state"), [(digest[:DIGEST_SHOWN], graph, problem or "good") for digest, graph, problem in rows])
    damaged = [digest for digest, _, problem in rows if problem]
    if damaged:
        raise EngineError(store.root, f"{len(damaged)} of {len(rows)} engines damaged", "costroute-rt build-engines")


@engines.command()
@option.engine
@option.as_json()
def explain(bundle: str | None, backend: str, provider: str, precision: str, as_json: bool) -> None:
    """Say which engines would be found, and what differs for others.

    \b
    costroute-rt engines explain
    """
    from costroute_rt import Bundle, shipped_bundle
    from costroute_rt.engines.build import explain_engines
    from costroute_rt.engines.store import Store

    opened = Bundle.open(bundle or shipped_bundle())
    found = explain_engines(opened, Store.open(), backend=backend, provider=provider, precision=precision)
    if as_json:
        entries = [
            {
                "graph": entry.graph,
                "engine": entry.digest,
                "found": entry.found,
                "differences": [{"field": d.field, "wanted": d.wanted, "found": d.found} for d in entry.differences],
            }
            for entry in found
        ]
        show_json({"engines": entries})
        return
    rows = [
        (e.graph, e.digest[:DIGEST_SHOWN], e.found, "; ".join(f"{d.field}: wanted {d.wanted}, stored {d.found}" for d in e.differences))
        for e in found
    ]
    show_table(("graph", "engine", "found", "differs from the nearest stored one in"), rows)


@engines.command("rm")
@click.argument("digests", nargs=-1, metavar="[ENGINE]...")
@click.option("--all", "everything", is_flag=True, help="Remove every engine.")
@option.as_json()
def remove(digests: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove engines, named by the start of their digest.

    \b
    costroute-rt engines rm 3f9a21c07b44
    costroute-rt engines rm --all
    """
    from costroute_rt.engines.store import Store

    if bool(digests) == everything:
        raise click.UsageError("name engines (costroute-rt engines list) or give --all", click.get_current_context())
    store = Store.open()
    names = [found.digest for found in store.verify()] if everything else digests  # verify() lists unreadable ones too
    removed = []
    for name in names:
        engine = store.remove(name)
        removed.append(engine.digest)
        if not as_json:  # one by one: what is gone is said even where a later name is wrong
            click.echo(f"removed {engine.digest[:DIGEST_SHOWN]} {engine.key.graph} ({format_bytes(engine.size_bytes)})")
    if as_json:
        show_json({"removed": removed})
        return
    if not removed:
        say("nothing to remove")
