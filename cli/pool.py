"""`costroute-rt pool`: one pool of the candidates of several bundles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.table import show, show_json, show_table

if TYPE_CHECKING:
    from costroute_rt.engines.bundle.pool import Pool


@click.command()
@click.argument("bundles", nargs=-1, type=click.Path(), metavar="[BUNDLE]...")
@click.option("--output", "-o", type=click.Path(), metavar="FOLDER", help="Pool to write.")
@click.option("--show", "shown", type=click.Path(), metavar="FOLDER", help="Show this pool instead of making one.")
@click.option(
    "--labels", type=click.Path(), metavar="FILE",
    help="Also candidates without a bundle: those of this table of labels that no bundle has.",
)  # fmt: skip
@click.option("--score", default="score", show_default=True, metavar="COLUMN", help="With --labels: column of the quality.")
@click.option("--prefer", callback=option.split, metavar="NAME,...", help="These candidates come first, in this order.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is a pool with no other files.")
@option.allowed
@option.as_json()
def pool(
    bundles: tuple[str, ...],
    output: str | None,
    shown: str | None,
    labels: str | None,
    score: str,
    prefer: tuple[str, ...],
    force: bool,
    licenses: tuple[str, ...],
    exclude: tuple[str, ...],
    candidates: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make one pool of the candidates of several BUNDLEs, to route between independent models.

    A pool is a folder with the file pool.json, which names the bundles; they stay where they are. Whatever takes --bundle
    takes --pool too. Give the bundles in the order of preference: it decides until labels are learned from, unless the
    qualities of all bundles are in the same metric. Bundles of one family are called FAMILY, FAMILY-2 ...; a candidate
    whose name is taken is called BUNDLE/CANDIDATE.

    \b
    costroute-rt pool sd15.bundle turbo.bundle xl.bundle -o desk.pool
    costroute-rt pool sd15.bundle xl.bundle -o free.pool --license apache-2.0,mit
    costroute-rt pool --show desk.pool
    """
    if (shown is None) == (output is None):
        raise click.UsageError("give -o FOLDER to make a pool, or --show FOLDER", click.get_current_context())
    from pathlib import Path

    from costroute_rt.engines.bundle.pool import Pool

    if shown is not None:
        _show(Pool.open(shown), as_json=as_json)
        return
    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.engines.bundle.pool_making import combine
    from costroute_rt.routing.pool_writing import check_pool_target, write_pool

    if not bundles and labels is None:
        raise click.UsageError("name one bundle or more, or give --labels FILE", click.get_current_context())
    check_pool_target(Path(str(output)), force=force)
    opened = [Bundle.open(path, verify=False) for path in bundles]
    known = {str(row["name"]) for bundle in opened for row in bundle.pool}
    others = {} if labels is None else _read_labels(labels, score, known)
    made = combine(opened, **others, candidates=candidates, exclude=exclude, licenses=licenses, prefer=prefer)
    _show(write_pool(made, Path(str(output)), force=force), as_json=as_json)


def _read_labels(labels: str, score: str, known: set[str]) -> dict[str, Any]:
    """Candidates without a bundle, and the means of all labelled ones, as `combine` takes them."""
    import numpy as np

    from costroute_rt.export.router.labels import LabelTable

    cells = LabelTable.open(labels, score=score).cells()
    means, counts = np.nanmean(cells.mean, axis=0), (cells.count > 0).sum(0)
    errors = np.nanstd(cells.mean, axis=0) / np.sqrt(counts)
    rows = zip(cells.candidates, cells.cost_ms.tolist(), means.tolist(), errors.tolist(), strict=True)
    found = [(name, ms or None, mean, error) for name, ms, mean, error in rows]
    return {
        "others": {name: ms for name, ms, _, _ in found if name not in known},
        "means": {name: (round(mean, 5), round(error, 5)) for name, _, mean, error in found},
        "metric": score,
    }


def _show(pool: Pool, *, as_json: bool) -> None:
    if as_json:
        about = {"pool": str(pool.root), "metric": pool.metric, "router": _router(pool)}
        show_json({**about, "bundles": _bundles(pool), "candidates": _candidates(pool)})
        return
    show_table(
        ("bundle", "family", "revision", "license", "folder"),
        [(name, bundle.family, bundle.revision, bundle.license, bundle.root) for name, bundle in pool.bundles.items()],
    )
    show()
    show_table(
        ("candidate", "bundle", "license", "steps", pool.metric, "+-"),
        [tuple(row[key] for key in ("name", "bundle", "license", "steps", "mean", "standard_error")) for row in _candidates(pool)],
    )
    show(f"\n{_router(pool) or 'no router: candidates are chosen by these means'}")


def _bundles(pool: Pool) -> dict[str, Any]:
    return {
        name: {"family": bundle.family, "revision": bundle.revision, "license": bundle.license, "folder": str(bundle.root)}
        for name, bundle in pool.bundles.items()
    }


def _candidates(pool: Pool) -> list[dict[str, Any]]:
    rows: Mapping[str, Mapping[str, Any]] = {str(row["name"]): row for row in pool.rows}
    return [
        {
            "name": each.name,
            "bundle": each.bundle,
            "candidate": each.candidate,
            "license": each.license or None,
            "steps": rows[each.name]["num_inference_steps"],
            "mean": each.mean,
            "standard_error": each.standard_error,
            "cost_ms": each.cost_ms,
        }
        for each in pool.candidates
    ]


def _router(pool: Pool) -> str | None:
    """What the router reads, in words; None without one."""
    if pool.router is None:
        return None
    return f"router on {f'the text encoder of {pool.states_bundle}' if pool.states_bundle is not None else 'the words of the prompt'}"
