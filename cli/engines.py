"""`costroute-rt engines`: look into the store, check it, clear it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, open_pool
from costroute_rt.cli.command import repair_engine
from costroute_rt.cli.failure import say, say_error, with_command
from costroute_rt.cli.number import Number
from costroute_rt.cli.table import format_bytes, show, show_json, show_table
from costroute_rt.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from costroute_rt.engines.building.usage import Usage
    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.engines.bundle.pool import Pool
    from costroute_rt.engines.store.store import StoredEngine, Verified

DIGEST_SHOWN = 12
_USERS_SHOWN = 2


@click.group(invoke_without_command=True)
@click.pass_context
def engines(context: click.Context) -> None:
    """List, check, explain and remove the engines in the store."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@engines.command("list")
@option.source
@option.as_json()
def list_engines(bundle: str | None, pool: str | None, as_json: bool) -> None:
    """List the engines in the store: size, age, cost, what uses them.

    `used by` names candidates of the bundle or pool. An engine whose key has changed is stale: the state names what differs. If
    that cannot be determined, the state is unknown, with the reason. A quarantined engine is shown with the reason, and so
    is one that this user must not read. Times are those measured under the condition nearest to the present one. Engines of
    extra stores ($COSTROUTE_EXTRA_STORES) are listed with their store.

    \b
    costroute-rt engines list
    costroute-rt engines list --json
    """
    from costroute_rt.engines.building.usage import survey
    from costroute_rt.engines.store.store import Store
    from costroute_rt.family.calls import pool_candidate_names

    store, opened = Store.open(), open_pool(bundle, pool, verify=False)
    found = survey(_bundles(opened), store, pool_candidate_names(opened))
    if as_json:
        extras = [str(root) for root in store.extras]
        show_json({"store": str(store.root), "extra_stores": extras, "engines": [_to_json(each) for each in found]})
        return
    now_s = time.time()
    rows = [
        (
            each.stored.digest[:DIGEST_SHOWN],
            each.engine,
            _how(each),
            format_bytes(each.disk_bytes),
            _age(each.stored.built_at, now_s),
            _ago(now_s - each.stored.used_at_s),
            None if each.cost is None else each.cost.call.median_ms,
            _conditions(each),
            _users(each.used_by, len(opened.candidates)),
            each.state,
            *([str(root_of(each.stored))] if store.extras else []),
        )
        for each in found
    ]
    header = ("engine", "graph", "backend", "size", "built", "used", "ms", "measured with", "used by", "state")
    show_table((*header, *(["store"] if store.extras else [])), rows)
    stores = " and ".join(map(str, (store.root, *store.extras)))
    show(f"\n{len(rows)} engines, {format_bytes(sum(each.disk_bytes for each in found))} in {stores}")


def _bundles(pool: Pool) -> list[Bundle]:
    """All that holds engines; the shipped bundle for a pool without bundles, to have something to compare with."""
    from costroute_rt import Bundle, shipped_bundle

    return list(pool.holders.values()) or [Bundle.open(shipped_bundle(), verify=False)]


def root_of(stored: StoredEngine) -> Path:
    """The store, or extra store, in which an engine lies."""
    return stored.path.parent.parent


def _users(names: Sequence[str], candidates: int) -> str | None:
    """The candidates in short, of so many in all; --json names each."""
    if len(names) <= _USERS_SHOWN:
        return ", ".join(names) or None
    return f"all {candidates}" if len(names) == candidates else f"{', '.join(names[:_USERS_SHOWN])}, +{len(names) - _USERS_SHOWN}"


def _conditions(usage: Usage) -> str | None:
    """The condition of the shown costs, and the number of others; --json has each."""
    if usage.cost is None:
        return None
    return f"{usage.cost.condition}{f' (+{len(usage.costs) - 1})' if len(usage.costs) > 1 else ''}"


def _how(usage: Usage) -> str:
    key = usage.stored.key
    return " ".join((key.backend, key.backend_version, key.provider, key.precision))


def _age(built_at: str, now_s: float) -> str:
    from datetime import datetime

    try:
        return _ago(now_s - datetime.fromisoformat(built_at).timestamp())
    except (ValueError, OverflowError, OSError):  # no date, or one that the system cannot compute with
        return "unknown"


def _ago(seconds: float) -> str:
    """`3 h`: how long ago, in the largest unit that has passed."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"


def _to_json(usage: Usage) -> dict[str, Any]:
    stored, key = usage.stored, usage.stored.key
    return {
        "engine": stored.digest,
        "store": str(root_of(stored)),
        "graph": usage.engine,
        "backend": f"{key.backend} {key.backend_version} {key.provider}",
        "precision": key.precision,
        "shapes": key.shapes,
        "size_bytes": usage.disk_bytes,
        "built_at": stored.built_at,
        "build_s": stored.build_s,
        "used_at_s": round(stored.used_at_s, 3),
        "median_ms": None if usage.cost is None else usage.cost.call.median_ms,
        "costs": [
            {"condition": cost.condition.to_json(), "median_ms": cost.call.median_ms, "p95_ms": cost.call.p95_ms} for cost in usage.costs
        ],
        "used_by": list(usage.used_by),
        "differences": [{"field": d.field, "wanted": d.wanted, "found": d.found} for d in usage.differences],
        "state": usage.state,
        "quarantined": stored.quarantined,
    }


@engines.command()
@click.option("--max-gb", type=Number(min=0), required=True, metavar="GB", help="Size limit of the store, in 10^9 bytes.")
@click.option("--dry-run", is_flag=True, help="Report what would be removed; remove nothing.")
@option.source
@option.as_json()
def gc(max_gb: float, dry_run: bool, bundle: str | None, pool: str | None, as_json: bool) -> None:
    """Remove engines until the store is small enough, those not used for longest first.

    Engines in use are kept, unless they alone exceed --max-gb; so are engines whose status is unknown because a device
    or backend is missing. Records of quarantined engines are kept, and nothing is removed from extra stores.

    \b
    costroute-rt engines gc --max-gb 20 --dry-run
    costroute-rt engines gc --max-gb 20
    """
    from costroute_rt.engines.building.usage import collect_garbage
    from costroute_rt.engines.store.store import Store
    from costroute_rt.family.calls import pool_candidate_names

    store, opened, max_bytes = Store.open(), open_pool(bundle, pool, verify=False), int(max_gb * 1e9)
    done = collect_garbage(_bundles(opened), store, pool_candidate_names(opened), max_bytes, dry_run=dry_run)
    if as_json:
        removed = [{**_to_json(usage), "why": why} for usage, why in done.removed]
        kept = [{**_to_json(usage), "why": error.problem} for usage, error in done.kept]
        sizes = {"before_bytes": done.before_bytes, "after_bytes": done.after_bytes, "max_bytes": max_bytes}
        show_json({"dry_run": dry_run, "removed": removed, "kept": kept, **sizes})
        return
    would = "would remove" if dry_run else "removed"
    for usage, why in done.removed:
        show(f"{would} {usage.stored.digest[:DIGEST_SHOWN]} {usage.engine} ({format_bytes(usage.disk_bytes)}): {one_line(why)}")
    for usage, error in done.kept:
        say(f"note: {usage.stored.digest[:DIGEST_SHOWN]} {usage.engine} cannot be removed: {error.problem}")
    left = "would be left" if dry_run else "left"
    show(f"{len(done.removed)} engines; {format_bytes(done.after_bytes)} of {format_bytes(done.before_bytes)} {left}")
    if done.after_bytes > max_bytes:
        say(f"note: engines that cannot be removed now take more than {format_bytes(max_bytes)}")


@engines.command()
@option.as_json()
def verify(as_json: bool) -> None:
    """Hash every file of every engine, in extra stores too; exit code 5 if one is damaged or cannot be read.

    \b
    costroute-rt engines verify
    """
    from costroute_rt.engines.store.store import Store
    from costroute_rt.error import EngineError, Reason

    store = Store.open()
    states = store.verify()
    damages = {each.path: each.damage for each in states if each.damage is not None}
    commands = {path: repair_engine(path.name, damage) for path, damage in damages.items() if damage.reason is not Reason.PERMISSION}
    if as_json:
        engines = [
            {"engine": each.digest, "graph": each.graph, "problem": problem_of(each), "command": commands.get(each.path)} for each in states
        ]
        show_json({"store": str(store.root), "engines": engines})
    else:
        show_table(("engine", "graph", "state"), [(each.digest[:DIGEST_SHOWN], each.graph, problem_of(each) or "good") for each in states])
    if commands:
        repairs = "; ".join(dict.fromkeys(commands.values()))
        say_error(f"{store.root}: {len(commands)} of {len(states)} engines are damaged ({repairs})")
    if len(damages) > len(commands):
        first = next(damage for path, damage in damages.items() if path not in commands)
        say_error(f"{len(damages) - len(commands)} of {len(states)} engines cannot be read: {first}")
    if damages:
        raise click.exceptions.Exit(EngineError.exit_code)


def problem_of(state: Verified) -> str | None:
    """What is wrong with an engine's files, or why it is quarantined; None for a good one."""
    if state.damage is not None:
        return f"{state.damage.path}: {state.damage.problem}"
    return f"quarantined: {state.quarantined}" if state.quarantined else None


@engines.command()
@option.engine
@option.as_json()
def explain(engine: EngineChoice, as_json: bool) -> None:
    """Show which engines would be found, and in which fields of their keys the nearest stored ones differ.

    \b
    costroute-rt engines explain
    """
    from costroute_rt.engines.building.lookup import explain_engines
    from costroute_rt.engines.store.store import Store
    from costroute_rt.family.calls import pool_names

    pool, store = engine.open_pool(), Store.open()
    setup = engine.setup(pool, store)
    found = [each for name, names in pool_names(pool).items() for each in explain_engines(pool.holders[name], store, names, setup)]
    if as_json:
        entries = [
            {
                "graph": entry.engine,
                "engine": entry.digest,
                "found": entry.problem is None,
                "problem": entry.problem,
                "differences": [{"field": d.field, "wanted": d.wanted, "found": d.found} for d in entry.differences],
            }
            for entry in found
        ]
        show_json({"fallback": setup.fallback, "engines": entries})
        return
    show_table(
        ("graph", "engine", "found", "why not"), [(e.engine, e.digest[:DIGEST_SHOWN], e.problem is None, e.problem or "") for e in found]
    )


@engines.command("rm")
@click.argument("digests", nargs=-1, metavar="[ENGINE]...")
@click.option("--all", "everything", is_flag=True, help="Remove every engine.")
@option.as_json()
def remove(digests: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove engines, named by the start of their digest; exit code 5 if one cannot be removed. Extra stores are left alone.

    \b
    costroute-rt engines rm 3f9a21c07b44
    costroute-rt engines rm --all
    """
    from costroute_rt.engines.store.store import Store
    from costroute_rt.error import EngineError

    if bool(digests) == everything:
        raise click.UsageError("name engines (costroute-rt engines list) or give --all", click.get_current_context())
    store = Store.open()
    names = [found.digest for found in store.everything() if store.owns(found)] if everything else digests
    removed, failed = [], list[EngineError]()
    for name in names:
        try:
            engine = store.remove(name)
        except EngineError as error:
            say_error(with_command(error))
            failed.append(error)
            continue
        removed.append(engine.digest)
        if not as_json:
            show(f"removed {engine.digest[:DIGEST_SHOWN]} {engine.key.graph} ({format_bytes(engine.size_bytes)})")
    if as_json:
        show_json({"removed": removed})
    elif not names:
        say("nothing to remove")
    if failed:
        raise click.exceptions.Exit(EngineError.exit_code)
