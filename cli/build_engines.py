"""`costroute-rt build-engines`: from a bundle to engines for this machine."""

from __future__ import annotations

import click

from costroute_rt.cli import option
from costroute_rt.cli.failure import say
from costroute_rt.cli.progress import building_notice, share_notice
from costroute_rt.cli.table import format_bytes, show_json, show_table


@click.command("build-engines")
@click.option("--graph", "graphs", multiple=True, metavar="NAME", help="Build this graph only, such as base/guided_step; may be repeated.")
@click.option("--target", default="", metavar="CARDS", help="Build for these cards instead of this machine's, such as ampere+ (TensorRT).")
@click.option("--force", is_flag=True, help="Build again what is there already.")
@option.engine
@option.as_json()
def build_engines(
    graphs: tuple[str, ...],
    target: str,
    force: bool,
    bundle: str | None,
    backend: str,
    provider: str,
    precision: str,
    as_json: bool,
) -> None:
    """Build, check and measure a bundle's engines.

    Each engine that the candidates need is compared with its reference graph on fixed inputs and timed on this
    machine; a wrong one is set aside with the reason. Engines that are there and valid are kept. Engines that
    can be built but not run here are checked and measured by this command on a machine where they can.

    \b
    costroute-rt build-engines
    costroute-rt build-engines --graph base/guided_step --force
    costroute-rt build-engines --backend tensorrt-rtx --target ampere+
    """
    from costroute_rt import Bundle, shipped_bundle
    from costroute_rt.engines.build import build_engines as build
    from costroute_rt.engines.store import Store

    reports = build(
        Bundle.open(bundle or shipped_bundle()),
        Store.open(),
        backend=backend,
        provider=provider,
        precision=precision,
        graphs=graphs or None,
        target=target,
        force=force,
        progress=building_notice("building"),
        detail=share_notice(),
    )
    rows = [(r.graph, r.digest[:12], r.built, r.build_s, r.size_bytes, r.proved, r.max_abs_error, r.median_ms) for r in reports]
    names = ("graph", "engine", "built", "build_s", "size_bytes", "proved", "max_abs_error", "median_ms")
    if as_json:
        show_json({"engines": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        show_table(
            ("graph", "engine", "built", "build s", "size", "proved", "max error", "median ms"),
            [(*row[:4], format_bytes(row[4]), *row[5:]) for row in rows],
        )
    if not all(report.proved for report in reports):
        say("not proved: these engines cannot run on this machine; where they can, this command or opening them checks them first")
