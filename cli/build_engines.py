"""`costroute-rt build-engines`: from a bundle to engines for this machine."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, choose_names
from costroute_rt.cli.failure import say
from costroute_rt.cli.progress import building_notice
from costroute_rt.cli.table import format_bytes, show, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.building.build import BuildReport
    from costroute_rt.engines.building.plan import PlannedBuild
    from costroute_rt.generation.engine_gate import ImageReport


@click.command("build-engines")
@click.option("--graph", "graphs", multiple=True, metavar="NAME", help="Build this graph only, such as base/guided_step; may be repeated.")
@click.option("--target", default="", metavar="CARDS", help="Build for these cards instead of this machine's, such as ampere+ (TensorRT).")
@click.option("--force", is_flag=True, help="Build again what exists already or is quarantined.")
@click.option("--dry-run", is_flag=True, help="Report what would be built, why, how long it takes and the disk it needs; build nothing.")
@click.option("--init-images", is_flag=True, help="Also build the engines for --init-image.")
@option.size
@option.engine
@option.as_json()
def build_engines(
    graphs: tuple[str, ...],
    target: str,
    force: bool,
    dry_run: bool,
    init_images: bool,
    height: int | None,
    width: int | None,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Build, check and measure the engines of a bundle or pool.

    Each engine that the candidates need is compared with its reference graph on fixed inputs and timed on this
    machine. One that is wrong or slow is quarantined with the reason, and not built again until something it depends on
    changes. Valid engines are kept. Engines that can be built but not run here are checked and measured by this
    command on a machine that can run them.

    Engines of less precision than float32, and those with int8 weights, also make images, which are compared with those
    of float32 engines in the store: same prompts, same seeds.

    The engines of a bundle that makes images of several sizes take any of them. With --height and --width, faster
    engines for that size are built beside them. For the bundle's usual size, the backends tensorrt and tensorrt-rtx
    build both.

    \b
    costroute-rt build-engines
    costroute-rt build-engines --dry-run
    costroute-rt build-engines --graph base/guided_step --force
    costroute-rt build-engines --pool desk.pool
    costroute-rt build-engines --backend tensorrt-rtx --target ampere+
    """
    from costroute_rt.engines.building.build import build_each, raise_quarantined
    from costroute_rt.engines.building.plan import plan_builds
    from costroute_rt.engines.building.progress import Tracker
    from costroute_rt.engines.store.store import Store
    from costroute_rt.generation.engine_gate import check_images

    pool, store, setup = engine.open_pool(), Store.open(), engine.setup(target)
    chosen = choose_names(pool, setup, graphs, option.check_both(height, width), init_images=init_images)
    if dry_run:
        planned = [each for bundle, names in chosen for each in plan_builds(bundle, store, names, setup, force=force)]
        _show_plan(planned, setup, as_json=as_json)
        return
    with building_notice("building") as progress:
        tracker = Tracker(progress)
        done = [(bundle, build_each(bundle, store, names, setup, force=force, tracker=tracker)) for bundle, names in chosen]
        is_whole = not graphs and height is None
        images = [image for bundle in pool.bundles.values() if is_whole for image in check_images(bundle, store, setup, tracker.check)]
        tracker.finish()
    reports = [_with_images(report, images) for _, own in done for report in own]
    _show_reports(reports, images, setup, as_json=as_json)
    for bundle, own in done:
        raise_quarantined(bundle, store, [report for report in reports if report.engine in {each.engine for each in own}], setup.threads)


def _with_images(report: BuildReport, images: Sequence[ImageReport]) -> BuildReport:
    """The report of an engine that was quarantined because of its images, if it was."""
    why = next((each.quarantined for each in images if each.engine == report.engine and each.quarantined), None)
    return report if why is None else replace(report, quarantined=why, proved=False)


def _show_reports(reports: Sequence[BuildReport], images: Sequence[ImageReport], setup: Setup, *, as_json: bool) -> None:
    names = ("graph", "engine", "built", "build_s", "size_bytes", "proved", "max_abs_error", "median_ms")
    rows = [(r.engine, r.digest[:12], r.built, r.build_s, r.size_bytes, r.proved, r.max_abs_error, r.median_ms) for r in reports]
    if as_json:
        engines = [
            {**dict(zip(names, row, strict=True)), "quarantined": report.quarantined} for row, report in zip(rows, reports, strict=True)
        ]
        show_json({**_how(setup), "engines": engines, "images": [asdict(each) for each in images]})
    else:
        show_table(
            ("graph", "engine", "built", "build s", "size", "proved", "max error", "median ms"),
            [(*row[:4], format_bytes(row[4]), *row[5:]) for row in rows],
        )
        _show_images(images)
    if not all(report.proved or report.quarantined for report in reports):
        say("not proved: these engines cannot run on this machine; on one that can, they are checked before they are used")


def _show_images(images: Sequence[ImageReport]) -> None:
    """How close the images of these engines are to those of float32 engines."""
    compared = [each for each in images if each.skipped is None]
    if compared:
        show()
        rows = [(each.engine, each.latent_psnr_db, each.ssim, "quarantined" if each.quarantined else "good") for each in compared]
        show_table(("images of", "latent PSNR dB", "SSIM", "result"), rows)
    for each in images:
        if each.skipped is not None:
            say(f"note: the images of {each.engine} were not compared: {each.skipped}")


def _how(setup: Setup) -> dict[str, str | None]:
    return {"backend": setup.backend, "provider": setup.provider, "precision": setup.precision, "fallback": setup.fallback}


def _show_plan(planned: Sequence[PlannedBuild], setup: Setup, *, as_json: bool) -> None:
    building = [each for each in planned if each.builds]
    known = [each.build_s for each in building if each.build_s is not None]
    total_s = sum(known) if len(known) == len(building) else None
    total_bytes = sum(each.disk_bytes for each in building)
    if as_json:
        engines = [
            {
                "graph": each.engine,
                "engine": each.digest,
                "builds": each.builds,
                "why": each.why,
                "differences": [{"field": d.field, "wanted": d.wanted, "found": d.found} for d in each.differences],
                "build_s": each.build_s,
                "disk_bytes": each.disk_bytes,
            }
            for each in planned
        ]
        show_json({**_how(setup), "engines": engines, "build_s": total_s, "disk_bytes": total_bytes})
        return
    rows = [
        (
            each.engine,
            each.digest[:12],
            each.builds,
            "unknown" if each.build_s is None else f"{each.build_s:.1f}",
            format_bytes(each.disk_bytes),
            each.why,
        )
        for each in planned
    ]
    show_table(("graph", "engine", "builds", "build s", "disk", "why"), rows)
    took = "in an unknown time" if total_s is None else f"in about {total_s:.1f} s plus measuring"
    needs = f", {took}, on {format_bytes(total_bytes)} of disk" if building else ""
    show(f"\n{len(building)} of {len(planned)} engines would be built{needs}")
