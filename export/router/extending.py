"""From files to files: a pool with the router of a smaller one, extended by the candidates that the smaller one lacks."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.bundle.replacing import check_target
from costroute_rt.error import BundleError, ConfigError, LabelError, Reason
from costroute_rt.export.router.csv_file import suggest
from costroute_rt.export.router.extension import Names, extend_router, useful_prompts
from costroute_rt.export.router.job import Say, Source, in_units_of, opened_router, read_words
from costroute_rt.export.router.label_set import LabelSet
from costroute_rt.export.router.labelling import pool_fingerprints
from costroute_rt.routing.pool_writing import check_pool_target, with_pool_router
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_bundle import check_files, text_encoder_sha256, with_router
from costroute_rt.routing.router_file import ROUTER_ARRAYS, ROUTER_JSON


def extend_pool(pool: Pool, former: Pool, source: Source, output: Path, *, force: bool = False, say: Say = lambda _: None) -> Router:
    """Writes `pool`, or the bundle that it is, with the router of `former` and estimates of the candidates that `former` lacks.

    source: labels of the new candidates on a few prompts, best ones that other candidates have labels of too. Nothing that the router
    learned before is fitted again.

    Raises BundleError if `former` has no router, ConfigError if `pool` lacks a candidate of it or has none to add, LabelError, OutputError
    (before any work: `output` exists, or with `force` is not a mere bundle or pool).
    """
    if pool.is_bundle:
        check_target(output, force=force)
    else:
        check_pool_target(output, force=force)
    if former.router is None:
        raise BundleError(former.root, "it has no router to extend", "fit one to the pool instead", reason=Reason.ROUTER)
    _check_same_weights(pool, former)
    table = source.open(pool)
    with opened_router(former, source) as router:
        check_units(router, table, say)
        table = in_units_of(router, table, pool, source)
        names = Names.of(router, pool.rows)
        labelled = [name for name in names.all if name in table.candidates]
        unlabelled = [name for name in names.new if name not in labelled]
        if not labelled:
            problem = f"it has no labels of {', '.join(names.new)}{suggest(names.new, table.candidates)}"
            raise LabelError(table.path, problem, "label the new candidate on some prompts", reason=Reason.LABELS)
        for name in unlabelled:
            say(f"note: {name} has no labels: its estimate follows from its settings alone, with a wide error")
        cells = table.cells(labelled)
        cells = cells.select(useful_prompts(cells, names.new))
        bundle = _states_bundle(pool, router)
        states = None if bundle is None else source.states(bundle, cells.prompts, say)
        words = read_words(bundle or next(iter(pool.bundles.values()), None), cells.prompts)
        extended = extend_router(router, replace(cells, prompts=words), states, pool=pool.rows, labels=table.to_json())
        with tempfile.TemporaryDirectory() as name:
            _save(extended, router, _router_folder(former), Path(name))
            if pool.is_bundle:
                with_router(next(iter(pool.bundles.values())), Path(name), output, force=force)
            else:
                with_pool_router(pool, Path(name), output, states_bundle=None if bundle is None else bundle.name, force=force)
    return extended


def check_units(router: Router, table: LabelSet, say: Say) -> None:
    """Raises ConfigError if the router was fitted to votes alone, whose logits no score is in; notes another column of scores."""
    fitted = router.record.get("labels", {})
    if "votes" in fitted and "score" not in fitted:
        raise ConfigError("pool", "a router that was fitted to votes", "a router fitted to scores; with votes, fit all candidates again")
    now = table.to_json().get("score")
    if "score" in fitted and fitted["score"] != now:
        say(f"note: the router was fitted to {fitted['score']}, and these labels are {now}: are the units the same?")


def _check_same_weights(pool: Pool, former: Pool) -> None:
    """Raises ConfigError if a candidate has other weights or settings now than when the router learned of it."""
    before, now = pool_fingerprints(former), pool_fingerprints(pool)
    changed = [name for name, mark in before.items() if now.get(name, mark) != mark]
    if changed:
        found = f"{', '.join(changed)} with other weights or settings than in {former.root}"
        raise ConfigError("pool", found, "the same candidates, and new ones under names of their own")


def _states_bundle(pool: Pool, router: Router) -> Bundle | None:
    """The bundle whose text encoder the router reads; None if it reads none. Raises ConfigError if the pool has it no more."""
    if not (router.encoder.needs_states or router.estimator.needs_states):
        return None
    found = next((bundle for bundle in pool.bundles.values() if text_encoder_sha256(bundle) == router.text_encoder), None)
    if found is None:
        raise ConfigError("pool", ", ".join(pool.bundles), "one with the bundle whose text encoder the router reads")
    return found


def _router_folder(pool: Pool) -> Path:
    holder: Any = pool.router
    return Path(holder.path(holder.router["file"])).parent


def _save(router: Router, former: Router, source: Path, folder: Path) -> None:
    """Writes the router with the networks and the tokenizer of the former one, which it has too."""
    router.save(folder)
    for name in check_files(former, source):
        if name not in (ROUTER_JSON, ROUTER_ARRAYS):
            shutil.copyfile(source / name, folder / name)
