"""`costroute-rt doctor`: what is installed and what really works, each problem with the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from costroute_rt.cli import option
from costroute_rt.cli.table import format_bytes, show_json, show_table

LIBRARIES = ("numpy", "tokenizers", "pillow", "click", "filelock", "platformdirs", "openvino", "tensorrt", "tensorrt-rtx")
ROOM_NEEDED_BYTES = 300_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a problem always comes with what mends it."""

    name: str
    value: str
    problem: str | None = None
    remedy: str | None = None


@click.command()
@option.as_json()
def doctor(as_json: bool) -> None:
    """Check the installation and this machine.

    Each problem comes with the command that mends it, and makes the exit code 1.

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
    name = check.__name__.removeprefix("check_")
    try:
        yield from check()
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(name, "failed", problem, getattr(error, "remedy", "see the message"))


def check_versions() -> Iterator[Finding]:
    import platform

    yield Finding("costroute-rt", _version_of("costroute-rt") or "not installed")
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for library in LIBRARIES:
        if version := _version_of(library):
            yield Finding(library, version)


def check_onnxruntime() -> Iterator[Finding]:
    """One distribution, since all install the same module; then the providers that run a tiny graph, and those only listed."""
    from costroute_rt.engines import onnxruntime_backend

    installed = onnxruntime_backend.installed_distributions()
    if not installed:
        yield Finding("onnx runtime", "none", "ONNX Runtime is not installed", 'pip install "costroute-rt[cpu]"')
        return
    found = " and ".join(f"{name} {_version_of(name)}" for name in installed)
    if len(installed) > 1:
        remedy = f"pip uninstall -y {' '.join(installed)} && pip install {installed[-1]}"
        yield Finding("onnx runtime", found, "they install the same module, and what runs is whichever came last", remedy)
        return
    yield Finding("onnx runtime", found)
    for provider in onnxruntime_backend.check_providers():
        mend = None if provider.works else f"install what {provider.name} needs, or use --provider cpu"
        yield Finding(f"provider {provider.name}", "works" if provider.works else "listed, does not work", provider.problem, mend)


def check_tensorrt() -> Iterator[Finding]:
    """A library that builds engines and cannot run them is no problem on a machine that builds for others."""
    from costroute_rt.engines import tensorrt_backend

    for check in tensorrt_backend.check_libraries():
        obstacle, name = check.obstacle, f"backend {check.name}"
        if obstacle is None:
            yield Finding(name, "works")
        elif check.version is not None:
            yield Finding(name, f"builds engines, cannot run them: {obstacle.found} ({obstacle.remedy})")
        else:
            yield Finding(name, "does not work", obstacle.found, obstacle.remedy)


def check_device() -> Iterator[Finding]:
    from costroute_rt.engines.device import device_facts

    for name, value in device_facts().items():
        if isinstance(value, list):
            text = " ".join(value)
        else:
            text = format_bytes(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)
        yield Finding(name.removesuffix("_bytes").replace("_", " "), text)


def check_bundle() -> Iterator[Finding]:
    from costroute_rt import Bundle, BundleError, shipped_bundle

    try:
        bundle = Bundle.open(shipped_bundle())
    except BundleError as error:
        yield Finding("bundle", "damaged", str(error), "pip install --force-reinstall --no-deps costroute-rt")
        return
    yield Finding("bundle", f"{bundle.family} {bundle.revision}, {len(bundle.pool)} candidates, every hash right")


def check_store() -> Iterator[Finding]:
    import shutil

    from costroute_rt.engines.store import Store

    store = Store.open()
    states = list(store.verify())
    damaged = [state for state in states if state.problem]
    size = format_bytes(store.size_bytes())
    yield Finding(
        "store",
        f"{store.root}: {len(states)} engines, {size}",
        "; ".join(f"{state.digest[:12]} {state.problem}" for state in damaged) or None,
        "costroute-rt build-engines" if damaged else None,
    )
    folder = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        yield Finding("store folder", str(folder), "cannot be written", "set COSTROUTE_HOME to a folder that can")
    free = shutil.disk_usage(folder).free
    short = free < ROOM_NEEDED_BYTES
    problem = f"engines need about {format_bytes(ROOM_NEEDED_BYTES)}" if short else None
    yield Finding("free disk", format_bytes(free), problem, "free some space, or set COSTROUTE_HOME to another disk" if short else None)


def _version_of(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


CHECKS = (check_versions, check_onnxruntime, check_tensorrt, check_device, check_bundle, check_store)
