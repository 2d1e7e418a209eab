"""`costroute-rt export`: from a model as people have it to a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.command import PROGRAM, format_option
from costroute_rt.cli.failure import say
from costroute_rt.cli.model_choice import CandidateChoice, ModelChoice
from costroute_rt.cli.progress import ExportLine
from costroute_rt.cli.table import format_bytes, show, show_json, show_table

if TYPE_CHECKING:
    from costroute_rt.export.bundle.export import ExportReport
    from costroute_rt.export.bundle.plan import ComponentPlan, ExportPlan


@click.command()
@option.model
@click.option("-o", "--output", required=True, type=click.Path(), metavar="BUNDLE", help="Folder to write the bundle to.")
@option.candidates
@click.option("--dry-run", is_flag=True, help="Show what would be made, from which files; write nothing.")
@option.as_json()
def export(model: ModelChoice, output: str, candidates: CandidateChoice, dry_run: bool, as_json: bool) -> None:
    """Make a bundle from a Stable Diffusion model: 1.x, 2.x, XL, and what is distilled from them.

    SOURCE is a single file as AUTOMATIC1111 and ComfyUI use it, a folder as diffusers saves it, or OWNER/NAME on the
    Hugging Face hub; so are decoders. Weights are not copied where the disk can link them: the bundle then uses the
    model's own files, which may be deleted, but must not be changed in place; --copy makes it stand alone.

    The candidates are those usual for the kind of model. Until labels say better (label, fit-router), they are
    preferred in the order of what is known of such models: that is a prior, not a measurement.

    What is done is kept when the command is stopped: the same command goes on from there. A bundle that was made from
    the same files with the same options is left as it is.

    \b
    costroute-rt export dreamshaper_8.safetensors -o dream.bundle
    costroute-rt export stabilityai/sdxl-turbo -o turbo.bundle
    costroute-rt export ./sdxl --lora lightning_4step.safetensors -o fast.bundle --dry-run
    costroute-rt export ./sd15 -o sd15.bundle --size 512x512 --size 768x512 --steps 6,12,20 --force
    """
    from costroute_rt.export.bundle.export import export_model
    from costroute_rt.export.bundle.plan import plan_export

    options = candidates.options()
    with ExportLine() as line:
        source, additions = model.open(line)
    if dry_run:
        _show_plan(plan_export(source, options, additions), Path(output), options.copies, as_json=as_json)
        return
    with _keeping(output), ExportLine() as line:
        report = export_model(source, Path(output), options, additions=additions, progress=line)
    _show_report(report, as_json=as_json)


@contextmanager
def _keeping(output: str) -> Iterator[None]:
    """Say, where the export is stopped, that it can be continued."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"parts of {output} that are done are kept: the same command goes on from there")
        raise


def _show_plan(plan: ExportPlan, output: Path, copies: bool, *, as_json: bool) -> None:
    from costroute_rt.export.bundle.plan import nearest_folder

    written, linked = plan.expected_bytes(nearest_folder(output), copies=copies)
    if as_json:
        show_json({**_describe(plan), "bundle": str(output), "written_bytes": written, "linked_bytes": linked})
        return
    rows = [(each.name, each.network.class_name, format_bytes(each.weights_bytes), _files(each)) for each in plan.components]
    show_table(("network", "class", "weights", "files"), rows)
    show()
    _show_pool(plan)
    show(f"\n{output} would be written: {format_bytes(linked)} of weights linked, {format_bytes(written)} copied")


def _files(component: ComponentPlan) -> str:
    files = component.network.files()
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _show_report(report: ExportReport, *, as_json: bool) -> None:
    placed = report.placed
    if as_json:
        size = {"written_bytes": placed.written_bytes, "linked_bytes": placed.linked_bytes}
        how = {"is_new": report.is_new, "continued": list(report.continued), "total_s": round(report.total_s, 3)}
        show_json({**_describe(report.plan), "bundle": str(report.path), **how, **(size if report.is_new else {})})
        return
    if not report.is_new:
        show(f"{report.path} is up to date: made from these files with these options; nothing was done")
        return
    _show_pool(report.plan)
    size_text = f"{format_bytes(placed.linked_bytes)} of weights linked, {format_bytes(placed.written_bytes)} copied"
    kept = f", {len(report.continued)} parts from before" if report.continued else ""
    show(f"\n{report.path}: {size_text}, {report.total_s:.0f} s{kept}")
    show(f"next: {PROGRAM} build-engines {format_option('bundle', str(report.path))}")


def _show_pool(plan: ExportPlan) -> None:
    sizes = ", ".join(f"{height}x{width}" for height, width in plan.sizes)
    show(f"{plan.family.title}, {sizes} pixels{' and other sizes' if plan.any_size else ''}")
    for note in plan.notes:
        show(f"note: {note}")
    quality = plan.pool.quality["candidates"]
    rows = [(row["name"], *_scheduler(plan, row), f"{row['guidance_scale']:g}", quality[row["name"]]["mean"]) for row in plan.pool.rows]
    show_table(("candidate", "steps", "scheduler", "guidance", "prior"), rows)


def _scheduler(plan: ExportPlan, row: Mapping[str, Any]) -> tuple[int, str]:
    """The number of steps, and the scheduler in short."""
    config = plan.pool.schedulers[row["scheduler"]]
    karras = ", Karras" if config.get("use_karras_sigmas") else ""
    return row["num_inference_steps"], f"{config['_class_name'].removesuffix('Scheduler')}{karras}"


def _network(component: ComponentPlan) -> dict[str, Any]:
    network = component.network
    return {"class": network.class_name, "bytes": component.weights_bytes, "files": [str(file) for file in network.files()]}


def _describe(plan: ExportPlan) -> dict[str, Any]:
    return {
        "family": plan.family.name,
        "kind": plan.kind.kind.name,
        "model": plan.source.name,
        "license": plan.source.license,
        "sizes": [list(size) for size in plan.sizes],
        "networks": {each.name: _network(each) for each in plan.components},
        "pool": [dict(row) for row in plan.pool.rows],
        "quality": dict(plan.pool.quality),
        "notes": list(plan.notes),
    }
