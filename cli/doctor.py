"""`costroute-rt doctor`: what is installed and what really works, each problem with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from costroute_rt.cli import option
from costroute_rt.cli.table import format_bytes, show_json, show_table

if TYPE_CHECKING:
    from costroute_rt.engines.machine.diagnosis import Finding

LIBRARIES = ("numpy", "tokenizers", "pillow", "click", "filelock", "platformdirs")
ROOM_NEEDED_BYTES = 300_000_000


@click.command()
@option.as_json()
def doctor(as_json: bool) -> None:
    """Check the installation and this machine: libraries, providers, drivers, engines.

    Providers are tried, not only listed. Each problem comes with the command that mends it, and makes the exit code 1.

    \b
    costroute-rt doctor
    costroute-rt doctor --json
    """
    findings = [finding for check in CHECKS for finding in _run(check)]
    problems = [finding for finding in findings if finding.problem]
    if as_json:
        show_json(
            {
                "ok": not problems,
                "facts": {finding.name: finding.value for finding in findings},
                "problems": [{"name": f.name, "problem": f.problem, "remedy": f.remedy} for f in problems],
            }
        )
    else:
        show_table(("what", "found"), [(finding.name, finding.value) for finding in findings])
        for finding in problems:
            click.echo(f"\nproblem: {finding.name}: {finding.problem}\n  mend: {finding.remedy}")
        click.echo("" if problems else "\nno problem found")
    if problems:
        raise click.exceptions.Exit(1)


def _run(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that fails is a finding too."""
    from costroute_rt.engines.machine.diagnosis import Finding

    name = check.__name__.removeprefix("check_")
    try:
        yield from check()
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(name, "failed", problem, getattr(error, "remedy", "see the message"))


def check_versions() -> Iterator[Finding]:
    import platform

    from costroute_rt.engines.machine.diagnosis import Finding, version_of

    yield Finding("costroute-rt", version_of("costroute-rt") or "not installed")
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for library in LIBRARIES:
        if version := version_of(library):
            yield Finding(library, version)


def check_onnxruntime() -> Iterator[Finding]:
    from costroute_rt.engines.machine.diagnosis import check_onnxruntime

    yield from check_onnxruntime()


def check_backends() -> Iterator[Finding]:
    from costroute_rt.engines.machine.diagnosis import check_backends

    yield from check_backends()


def check_nvidia() -> Iterator[Finding]:
    from costroute_rt.engines.machine.diagnosis import check_nvidia

    yield from check_nvidia()


def check_device() -> Iterator[Finding]:
    from costroute_rt.engines.machine.device import device_facts
    from costroute_rt.engines.machine.diagnosis import Finding

    for name, value in device_facts().items():
        if isinstance(value, list):
            text = " ".join(value)
        else:
            text = format_bytes(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)
        yield Finding(name.removesuffix("_bytes").replace("_", " "), text)


def check_bundle() -> Iterator[Finding]:
    from costroute_rt import Bundle, BundleError, shipped_bundle
    from costroute_rt.engines.machine.diagnosis import Finding

    try:
        bundle = Bundle.open(shipped_bundle())
    except BundleError as error:
        yield Finding("bundle", "damaged", str(error), "pip install --force-reinstall --no-deps costroute-rt")
        return
    yield Finding("bundle", f"{bundle.family} {bundle.revision}, {len(bundle.pool)} candidates, every hash right")


def check_store() -> Iterator[Finding]:
    import shutil

    from costroute_rt.engines.machine.diagnosis import Finding
    from costroute_rt.engines.store.store import Store

    store = Store.open()
    states = list(store.verify())
    damaged = [state for state in states if state.remedy is not None]
    set_aside = sum(1 for state in states if state.problem and state.remedy is None)
    size = format_bytes(store.size_bytes())
    yield Finding(
        "store",
        f"{store.root}: {len(states)} engines, {size}{f', {set_aside} set aside' if set_aside else ''}",
        "; ".join(f"{state.digest[:12]} {state.problem}" for state in damaged) or None,
        "; ".join(dict.fromkeys(str(state.remedy) for state in damaged)) or None,
    )
    folder = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        yield Finding("store folder", str(folder), "cannot be written", "set COSTROUTE_HOME to a folder that can")
    free = shutil.disk_usage(folder).free
    short = free < ROOM_NEEDED_BYTES
    problem = f"engines need about {format_bytes(ROOM_NEEDED_BYTES)}" if short else None
    yield Finding("free disk", format_bytes(free), problem, "free some space, or set COSTROUTE_HOME to another disk" if short else None)


CHECKS = (check_versions, check_onnxruntime, check_backends, check_nvidia, check_device, check_bundle, check_store)
