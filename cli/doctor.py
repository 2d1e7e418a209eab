"""`costroute-rt doctor`: what is installed and what really works, each problem with its fix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.command import build_engines, command_for, fix_command, pip_command, repair_engine
from costroute_rt.cli.table import format_bytes, show, show_json, show_table

if TYPE_CHECKING:
    from costroute_rt.engines.machine.diagnosis import Finding
    from costroute_rt.engines.store.store import Store, Verified

LIBRARIES = ("numpy", "tokenizers", "Pillow", "click", "filelock", "platformdirs", "threadpoolctl", "safetensors")
ROOM_NEEDED_BYTES = 300_000_000
NOT_WRITABLE = "it is not writable"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report; a problem always comes with a remedy."""

    name: str
    value: str
    problem: str | None = None
    remedy: str | None = None
    command: str | None = None

    @property
    def shown(self) -> str:
        """What was found, with the command that adds something optional."""
        return f"{self.value} ({self.command})" if self.command and not self.problem else self.value

    @property
    def fix(self) -> str:
        """`install the cpu extra (pip install "costroute-rt[cpu]")`"""
        return f"{self.remedy} ({self.command})" if self.command else str(self.remedy)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "problem": self.problem, "remedy": self.remedy, "command": self.command}


@click.command()
@option.source
@option.as_json()
def doctor(bundle: str | None, pool: str | None, as_json: bool) -> None:
    """Check the installation and this machine: libraries, providers, drivers, engines.

    Providers are tried, not only listed. Each problem comes with its fix, and makes the exit code 1. With --bundle or
    --pool, these models are checked too, with all their files.

    \b
    costroute-rt doctor
    costroute-rt doctor --pool desk.pool
    costroute-rt doctor --json
    """

    def check_models() -> Iterator[Line]:
        yield from _check_models(bundle, pool)

    def check_choice() -> Iterator[Line]:
        yield from _check_choice(bundle, pool)

    checks = (*CHECKS, check_choice) if bundle is None and pool is None else (*CHECKS, check_models, check_choice)
    lines = [line for check in checks for line in _run(check)]
    problems = [line for line in lines if line.problem]
    if as_json:
        facts = {line.name: line.shown for line in lines}
        show_json({"ok": not problems, "facts": facts, "condition": _condition_json(), "problems": [line.to_json() for line in problems]})
    else:
        show_table(("what", "found"), [(line.name, line.shown) for line in lines])
        for line in problems:
            show(f"\nproblem: {line.name}: {line.problem}\n  fix: {line.fix}")
        show("" if problems else "\nno problem found")
    if problems:
        raise click.exceptions.Exit(1)


def _run(check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a check; one that fails is a problem too."""
    try:
        yield from check()
    except Exception as error:
        from costroute_rt.engines.machine.installation import explain
        from costroute_rt.error import CostrouteError

        error = error if isinstance(error, CostrouteError) else explain(error) or error
        problem = str(error) if isinstance(error, CostrouteError) else f"{type(error).__name__}: {error}"
        command = command_for(error) if isinstance(error, CostrouteError) else None
        name = check.__name__.removeprefix("check_")
        yield Line(name, "failed", " ".join(problem.split()), getattr(error, "remedy", "see the message"), command)


def _line(finding: Finding) -> Line:
    if finding.fix is None:
        return Line(finding.name, finding.value, finding.problem)
    return Line(finding.name, finding.value, finding.problem, finding.fix.remedy, fix_command(finding.fix))


def check_versions() -> Iterator[Line]:
    import platform

    from costroute_rt.engines.machine.installation import check_library, requirements, version_of

    yield Line("costroute-rt", version_of("costroute-rt") or "not installed")
    yield Line("python", f"{platform.python_version()} on {platform.platform()}")
    least = requirements()
    for library in LIBRARIES:
        version, error = check_library(library, least.get(library))
        if error is None:
            yield Line(library.lower(), version or "works")
        else:
            yield Line(library.lower(), version or "none", error.found, error.remedy, fix_command(error))


def check_onnxruntime() -> Iterator[Line]:
    from costroute_rt.engines.backends.onnxruntime.providers import diagnose

    yield from map(_line, diagnose())


def check_backends() -> Iterator[Line]:
    from costroute_rt.engines.backends.registry import check_backends

    yield from map(_line, check_backends())


def check_nvidia() -> Iterator[Line]:
    from costroute_rt.engines.machine.diagnosis import check_nvidia

    yield from map(_line, check_nvidia())


def check_device() -> Iterator[Line]:
    from costroute_rt.engines.machine.device import device_facts

    for name, value in device_facts().items():
        if isinstance(value, list):
            text = " ".join(value)
        else:
            text = format_bytes(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)
        yield Line(name.removesuffix("_bytes").replace("_", " "), text)


def check_condition() -> Iterator[Line]:
    from costroute_rt.engines.backends.setup import USUAL

    yield Line("condition of costs", str(USUAL.condition()))


def _condition_json() -> dict[str, Any]:
    """The present condition of costs, and the limits of the processor as numbers."""
    from costroute_rt.engines.backends.setup import USUAL
    from costroute_rt.engines.machine.device import cpu_limit

    return {**USUAL.condition().to_json(), **cpu_limit().to_json()}


def check_bundle() -> Iterator[Line]:
    from costroute_rt import Bundle, BundleError, shipped_bundle

    try:
        bundle = Bundle.open(shipped_bundle())
    except BundleError as error:
        yield Line("bundle", "damaged", str(error), "install costroute-rt again", pip_command(["costroute-rt"], again=True))
        return
    yield Line("bundle", f"{bundle.family} {bundle.revision}, {len(bundle.pool)} candidates, all hashes match")


def _check_models(bundle: str | None, pool: str | None) -> Iterator[Line]:
    """The given bundle, or each bundle of the given pool and its router."""
    from costroute_rt.cli.choice import open_pool

    opened = open_pool(bundle, pool)
    for name, each in opened.bundles.items():
        yield Line(f"models: {name}", f"{each.family} {each.revision}, {len(each.pool)} candidates, all hashes match")
    if opened.router is not None:
        from costroute_rt.routing.router_bundle import open_pool_router

        router = open_pool_router(opened)
        yield Line("router", f"of {len(router.pool)} candidates, fitted to {len(router.prompts)} prompts, routes on {router.routes_on}")
    without = len(opened.candidates) - sum(len(each.pool) for each in opened.bundles.values())
    if without:
        yield Line("models without a bundle", f"{without} candidates, which can be routed to and not run")


def _check_choice(bundle: str | None, pool: str | None) -> Iterator[Line]:
    """What `--backend auto` stands for, and why."""
    from costroute_rt.cli.choice import open_pool
    from costroute_rt.engines.store.store import Store
    from costroute_rt.family.auto_backend import choose_backend

    choice = choose_backend(open_pool(bundle, pool, verify=False), Store.open()).choice
    if choice is None:
        return
    command = build_engines(None, bundle or pool) if choice.basis == "not_measured" else None
    yield Line("backend auto", str(choice), command=command)
    for engines, times in choice.image_ms.items():
        shown = ", ".join(f"{name} {ms:.0f} ms" for name, ms in times.items())
        yield Line(f"images by {engines}", shown)


def check_store() -> Iterator[Line]:
    import shutil

    from costroute_rt.engines.store.home import can_write
    from costroute_rt.engines.store.store import Store

    store = Store.open()
    existing = next(folder for folder in (store.root, *store.root.parents) if os.path.exists(folder))
    if not existing.is_dir():
        yield Line("store folder", str(existing), "it is not a folder", "set COSTROUTE_HOME to a folder")
        return
    states = store.verify()
    yield _describe_engines(store, states)
    if store.note is not None:
        problem, remedy = (None, None) if store.is_writable else (NOT_WRITABLE, "set COSTROUTE_HOME to a writable folder")
        yield Line("store folder", store.note, problem, remedy)
    elif not can_write(store.root):
        problem, remedy = (None, None) if states else (NOT_WRITABLE, "set COSTROUTE_HOME to a writable folder")
        yield Line("store folder", f"{store.root} (read only: engines can be used, and none can be built)", problem, remedy)
    free = shutil.disk_usage(existing).free
    short = free < ROOM_NEEDED_BYTES
    needed = f"engines need about {format_bytes(ROOM_NEEDED_BYTES)}" if short else None
    yield Line("free disk", format_bytes(free), needed, "free some space, or set COSTROUTE_HOME to another disk" if short else None)


def _describe_engines(store: Store, states: Sequence[Verified]) -> Line:
    """How many there are, and the damaged ones as a problem."""
    from costroute_rt.error import Reason

    quarantined = sum(1 for state in states if state.quarantined)
    damaged = {state.digest: state.damage for state in states if state.damage is not None}
    value = f"{store.root}: {len(states)} engines, {format_bytes(store.size_bytes())}"
    value += f", with those in {', '.join(map(str, store.extras))}" if store.extras else ""
    value += f", {quarantined} quarantined" if quarantined else ""
    if not damaged:
        return Line("store", value)
    problem = "; ".join(f"{digest[:12]} {damage.path}: {damage.problem}" for digest, damage in damaged.items())
    repairs = [repair_engine(digest, damage) for digest, damage in damaged.items() if damage.reason is not Reason.PERMISSION]
    remedy = "build these engines again, or remove them" if repairs else next(iter(damaged.values())).remedy
    return Line("store", value, problem, remedy, "; ".join(dict.fromkeys(repairs)) or None)


CHECKS = (check_versions, check_onnxruntime, check_backends, check_nvidia, check_device, check_condition, check_bundle, check_store)
