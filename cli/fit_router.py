"""`costroute-rt fit-router`: from a table of labels to a bundle or pool that routes by the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, open_pool
from costroute_rt.cli.failure import say
from costroute_rt.cli.label_choice import LabelChoice
from costroute_rt.cli.table import show, show_json, show_table

if TYPE_CHECKING:
    from costroute_rt.engines.bundle.pool import Pool
    from costroute_rt.routing.router import Router

KINDS = ("knn", "linear", "mean")
"""The estimators that are tried by default."""


@click.command("fit-router")
@option.labels("CSV of labels, as `costroute-rt label` writes it, or your own.", "Also report the gain on kinds of prompts never seen.")
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="FOLDER",
    help="Bundle or pool to write: the given one with the new router.  [default: with --pool, that pool]",
)
@click.option(
    "--encoder", metavar="(states|states:BUNDLE|hashed|FOLDER)[+tags]",
    help="How prompts are read: by the text encoder's states (of a pool's first bundle, or of the one named), by their words alone, or by "
    "the sentence encoder in FOLDER (as transformers or sentence-transformers saved it, or CLIP's; fitting with one needs the export "
    "extra). With +tags, by tags such as counts, colours, relations and style as well.  "
    "[default: states; hashed if no candidate has a bundle]",
)  # fmt: skip
@click.option(
    "--estimator", "estimators", multiple=True, type=click.Choice([*KINDS, "transformer"]),
    help="Choose among these only; may be repeated. With the transformer (fitting it needs the export extra), a mean may include it.  "
    "[default: knn, linear, mean]",
)  # fmt: skip
@click.option(
    "--extend", "former", type=click.Path(), metavar="FOLDER",
    help="Keep the router of this bundle or pool as it is, and add the candidates that it lacks: labels of a new candidate on some 40 "
    "prompts are enough (`costroute-rt label --anchors 40`).",
)  # fmt: skip
@click.option(
    "--strict", is_flag=True,
    help="Route by the prompt only as far as a gain is sure at the trade-off of each request, on this device. It loses less by luck, and "
    "gains less.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is a bundle with no other files.")
@option.engine
@option.as_json()
def fit_router(
    labels: LabelChoice,
    output: str | None,
    encoder: str | None,
    estimators: tuple[str, ...],
    former: str | None,
    strict: bool,
    force: bool,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Learn from labels which candidate a prompt needs.

    Cross-validation chooses the estimator, and measures how much of the predicted differences between candidates comes
    true: the prompt counts for as much, and averages per candidate for the rest. The labels may come from elsewhere:
    columns prompt, candidate and score are enough; prompt_id, seed, rater and cost_ms are used if they exist. Not every
    prompt needs labels of every candidate. Votes between two candidates (columns prompt, candidate_a, candidate_b and
    winner) may take the place of scores, or be added.

    \b
    costroute-rt fit-router --labels labels.csv -o my-bundle
    costroute-rt gen "a red house by a lake" --bundle my-bundle --max-ms 500
    costroute-rt fit-router --labels labels.csv --pool desk.pool
    costroute-rt fit-router --labels labels.csv --score score=2 --score score_clip -o my-bundle
    costroute-rt fit-router --votes votes.csv -o my-bundle
    costroute-rt fit-router --labels labels.csv --pool larger.pool --extend desk.pool
    """
    if output is None and engine.pool is None:
        raise click.UsageError("give -o FOLDER: the bundle to write", click.get_current_context())
    if former is not None and (encoder or estimators or labels.category or strict):
        raise click.UsageError("--extend keeps the router: no --encoder, --estimator, --category or --strict", click.get_current_context())
    if former is not None and labels.votes:
        raise click.UsageError("--extend takes scores alone; to learn from votes, fit all candidates again", click.get_current_context())
    from pathlib import Path

    from costroute_rt.export.router.job import fit_pool

    opened = engine.open_pool()
    setup = engine.setup(opened)
    source = labels.source(setup)
    target, replaces = (opened.root, True) if output is None else (Path(output), force)
    if former is not None:
        from costroute_rt.export.router.extending import extend_pool

        router = extend_pool(opened, open_either(former), source, target, force=replaces, say=say)
    else:
        reader = encoder or ("states" if opened.bundles else "hashed")
        router = fit_pool(opened, source, target, encoder=reader, estimators=estimators or KINDS, strict=strict, force=replaces, say=say)
    output = str(target)
    if as_json:
        show_json({"fallback": setup.fallback, ("bundle" if engine.pool is None else "pool"): output, **describe(router)})
    else:
        _show(router, output)


def open_either(folder: str) -> Pool:
    """The pool in this folder, or the bundle as one."""
    from costroute_rt.engines.bundle.pool_file import is_pool

    return open_pool(None, folder) if is_pool(folder) else open_pool(folder, None)


def describe(router: Router) -> dict[str, Any]:
    """Plain data: the router and its gain."""
    return {
        "routes_on": router.routes_on,
        "reason": router.reason,
        "encoder": router.encoder.to_json(),
        "estimator": router.estimator.to_json(),
        **router.record,
    }


def _show(router: Router, output: str) -> None:
    labelled = router.record["labels"]["candidates"]
    show_table(
        ("candidate", "mean quality", "prompts", "ms"),
        [(name, row["mean"], row["prompts"], row["cost_ms"]) for name, row in labelled.items()],
    )
    found = router.record["cross_validation"]
    if found is not None:
        show()
        if all(row["cost_ms"] is not None for row in labelled.values()):
            show_table(("estimator", "gain"), [(name, f"{-loss:+.4f}") for name, loss in list(found["losses"].items())[:5]])
        else:
            show_table(("estimator", "squared error"), list(found["losses"].items())[:5])
        apart = found["leave_category_out"]
        if apart is not None:
            ends = f"{apart['low']:+.4f} to {apart['high']:+.4f}"
            show(f"\ngain on kinds of prompts never seen: {apart['value']:+.4f} (95 % interval {ends})")
    for name, row in router.record.get("added", {}).items():
        show(f"\nadded {name} by labels of {row['prompts']} prompts; nothing else was fitted again")
    show(f"\nroutes on {router.routes_on}: {router.reason}\nwrote {output}")
