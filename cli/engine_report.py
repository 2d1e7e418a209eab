"""Tables of engines that were built, of their images, and of what `--backend auto` has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from costroute_rt.cli.failure import say
from costroute_rt.cli.table import format_bytes, show, show_table
from costroute_rt.plain_text import one_line

if TYPE_CHECKING:
    from costroute_rt.backend_choice import BackendChoice
    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.building.build import BuildReport
    from costroute_rt.generation.engine_gate import ImageReport

_NAMES = ("graph", "engine", "built", "build_s", "size_bytes", "proved", "max_abs_error", "median_ms")


def describe_setup(setup: Setup) -> dict[str, str | None]:
    return {"backend": setup.backend, "provider": setup.provider, "precision": setup.precision, "fallback": setup.fallback}


def reports_json(reports: Iterable[BuildReport], images: Iterable[ImageReport]) -> dict[str, Any]:
    """Plain data: engines and images."""
    engines = [{**dict(zip(_NAMES, _row(each), strict=True)), "quarantined": each.quarantined} for each in reports]
    return {"engines": engines, "images": [asdict(each) for each in images]}


def show_reports(reports: Sequence[BuildReport], images: Sequence[ImageReport]) -> None:
    rows = [_row(each) for each in reports]
    show_table(
        ("graph", "engine", "built", "build s", "size", "proved", "max error", "median ms"),
        [(*row[:4], format_bytes(row[4]), *row[5:]) for row in rows],
    )
    _show_images(images)
    say_unproved(reports)


def say_unproved(reports: Iterable[BuildReport]) -> None:
    if not all(report.proved or report.quarantined for report in reports):
        say("not proved: these engines cannot run on this machine; on one that can, they are checked before they are used")


def show_choice(choice: BackendChoice) -> None:
    """What `auto` has chosen and why, with the times of images where they were compared."""
    show(f"\nengines of {one_line(str(choice))}")
    candidates = list(dict.fromkeys(name for times in choice.image_ms.values() for name in times))
    if candidates:
        rows = [(how, *(times.get(name) for name in candidates)) for how, times in choice.image_ms.items()]
        show_table(("ms an image by", *candidates), rows)


def _row(report: BuildReport) -> tuple[Any, ...]:
    return (
        report.engine, report.digest[:12], report.built, report.build_s, report.size_bytes, report.proved, report.max_abs_error,
        report.median_ms,
    )  # fmt: skip


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
