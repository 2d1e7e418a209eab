"""`costroute-rt build-engines`: from a bundle to engines for this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, choose_names
from costroute_rt.cli.engine_report import describe_setup, reports_json, say_unproved, show_choice, show_reports
from costroute_rt.cli.progress import building_notice
from costroute_rt.cli.table import format_bytes, show, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.building.build import BuildReport
    from costroute_rt.engines.building.plan import PlannedBuild
    from costroute_rt.engines.bundle.bundle import Bundle
    from costroute_rt.engines.bundle.pool import Pool
    from costroute_rt.engines.store.store import Store
    from costroute_rt.generation.engine_gate import ImageReport
    from costroute_rt.generation.fastest import NamesOf, SetReport


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

    Without --backend, the engines of ONNX Runtime are built and, where it is installed, those of OpenVINO: in bfloat16
    where the processor is faster in that, else in float32. Both make images in turns, and the result is kept in the
    store: from then on all commands use OpenVINO if its images take at most 0.9 times as long. For models with more than
    512 MB of weights, only those of OpenVINO are built.

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
    from costroute_rt.engines.store.store import Store
    from costroute_rt.generation.fastest import can_run

    pool, store, size = engine.open_pool(), Store.open(), option.check_both(height, width)
    setups = _open_setups(engine, pool, store) if engine.is_open and not target else [engine.setup(pool, store, target)]

    def names_of(setup: Setup) -> list[tuple[Bundle, list[str]]]:
        return choose_names(pool, setup, graphs, size, init_images=init_images)

    is_whole = not graphs and size is None
    if dry_run:
        choice = engine.choose(pool, store, target).choice
        compared = {} if choice is None else choice.image_ms
        others = [each for each in setups[1:] if can_run(each) and (not compared or str(each) in compared)]
        _show_plans(store, [(setup, names_of(setup)) for setup in (*setups[:1], *others)], force=force, as_json=as_json)
    elif len(setups) > 1:
        _build_several(engine, pool, store, names_of, force=force, is_whole=is_whole, as_json=as_json)
    else:
        reports, images = _build_one(pool, store, setups[0], names_of(setups[0]), force=force, is_whole=is_whole)
        choice = engine.choose(pool, store, target).choice if engine.is_open and not target else None
        if as_json:
            show_json({**describe_setup(setups[0]), "choice": choice and choice.to_json(), **reports_json(reports, images)})
            say_unproved(reports)
        else:
            show_reports(reports, images)
            if choice is not None:
                show_choice(choice)
        _raise_quarantined(store, setups[0], reports, names_of(setups[0]))


def _open_setups(engine: EngineChoice, pool: Pool, store: Store) -> list[Setup]:
    """What `auto` chooses between: the second only takes the place of the first."""
    from costroute_rt.generation.fastest import find_alone, setups_to_compare

    alone = find_alone(pool, store, engine.precision, engine.threads)
    return [alone] if alone is not None else setups_to_compare(engine.precision, engine.threads)


def _build_one(
    pool: Pool, store: Store, setup: Setup, chosen: Sequence[tuple[Bundle, list[str]]], *, force: bool, is_whole: bool
) -> tuple[list[BuildReport], list[ImageReport]]:
    from costroute_rt.engines.building.build import build_each
    from costroute_rt.engines.building.progress import Tracker
    from costroute_rt.generation.engine_gate import check_images

    with building_notice("building") as progress:
        tracker = Tracker(progress)
        done = [each for bundle, names in chosen for each in build_each(bundle, store, names, setup, force=force, tracker=tracker)]
        images = [image for bundle in pool.bundles.values() if is_whole for image in check_images(bundle, store, setup, tracker.check)]
        tracker.finish()
    return [_with_images(report, images) for report in done], images


def _raise_quarantined(store: Store, setup: Setup, reports: Sequence[BuildReport], chosen: Sequence[tuple[Bundle, list[str]]]) -> None:
    from costroute_rt.engines.building.build import raise_quarantined

    for bundle, names in chosen:
        raise_quarantined(bundle, store, [report for report in reports if report.engine in names], setup.threads)


def _build_several(
    engine: EngineChoice, pool: Pool, store: Store, names_of: NamesOf, *, force: bool, is_whole: bool, as_json: bool
) -> None:
    from costroute_rt.engines.building.progress import Tracker
    from costroute_rt.generation.fastest import build_fastest

    @contextmanager
    def follow(what: str) -> Iterator[Tracker]:
        with building_notice(what if what == "comparing" else f"building {what}") as progress:
            tracker = Tracker(progress)
            yield tracker
            tracker.finish()

    done = build_fastest(
        pool, store, precision=engine.precision, threads=engine.threads, names_of=names_of, is_whole=is_whole, force=force, follow=follow
    )
    setup, choice = done.chosen.setup, done.chosen.choice
    if as_json:
        sets = [{**describe_setup(each.setup), **reports_json(_reports(each), each.images)} for each in done.sets]
        mine = next(json for each, json in zip(done.sets, sets, strict=True) if each.setup == setup)
        show_json({**mine, "choice": choice and choice.to_json(), "sets": sets})
    else:
        for each in done.sets:
            show(f"{each.setup}:")
            show_reports(_reports(each), each.images)
            show()
        if choice is not None:
            show_choice(choice)
    for each in done.sets:
        if each.setup in (setup, done.sets[0].setup):  # what others lack is the reason why they were not chosen
            _raise_quarantined(store, each.setup, _reports(each), names_of(each.setup))


def _reports(done: SetReport) -> list[BuildReport]:
    return [_with_images(report, done.images) for _, own in done.built for report in own]


def _with_images(report: BuildReport, images: Sequence[ImageReport]) -> BuildReport:
    """The report of an engine that was quarantined because of its images, if it was."""
    why = next((each.quarantined for each in images if each.engine == report.engine and each.quarantined), None)
    return report if why is None else replace(report, quarantined=why, proved=False)


def _show_plans(store: Store, chosen: Sequence[tuple[Setup, Sequence[tuple[Bundle, list[str]]]]], *, force: bool, as_json: bool) -> None:
    from costroute_rt.engines.building.plan import plan_builds

    plans = [
        (setup, [each for bundle, names in own for each in plan_builds(bundle, store, names, setup, force=force)]) for setup, own in chosen
    ]
    if as_json:
        sets = [_plan_json(setup, planned) for setup, planned in plans]
        show_json(sets[0] if len(sets) == 1 else {"sets": sets})
        return
    for number, (setup, planned) in enumerate(plans):
        if len(plans) > 1:
            show(("\n" if number else "") + f"{setup}{' (only where the one before cannot be used)' if number > 1 else ''}:")
        _show_plan(planned)


def _plan_json(setup: Setup, planned: Sequence[PlannedBuild]) -> dict[str, Any]:
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
    return {
        **describe_setup(setup),
        "engines": engines,
        "build_s": _total_s(planned),
        "disk_bytes": sum(e.disk_bytes for e in _built(planned)),
    }


def _built(planned: Sequence[PlannedBuild]) -> list[PlannedBuild]:
    return [each for each in planned if each.builds]


def _total_s(planned: Sequence[PlannedBuild]) -> float | None:
    """Seconds that all builds take; None if that of one is unknown."""
    known = [each.build_s for each in _built(planned) if each.build_s is not None]
    return sum(known) if len(known) == len(_built(planned)) else None


def _show_plan(planned: Sequence[PlannedBuild]) -> None:
    building, total_s = _built(planned), _total_s(planned)
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
    needs = f", {took}, on {format_bytes(sum(each.disk_bytes for each in building))} of disk" if building else ""
    show(f"\n{len(building)} of {len(planned)} engines would be built{needs}")
