"""Every command line that a message names, composed from the data of the error it is about."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from costroute_rt.engines.machine.fix import Fix
    from costroute_rt.error import BackendError, BudgetError, BundleError, CostrouteError, EngineError

PROGRAM = "costroute-rt"
_SIZE = re.compile(r".+@(\d+)x(\d+)")
_PLAIN = re.compile(r"[\w.=+-]+", re.ASCII)
_REQUIREMENT = re.compile(r"[\w.,<>=!~+\[\]-]+", re.ASCII)


def command_for(error: CostrouteError) -> str | None:
    """What to type after this error: a command, an option, or several; None if nothing of that kind helps."""
    from costroute_rt.error import BackendError, BudgetError, BundleError, EngineError, Reason

    if isinstance(error, EngineError):
        return _after_engine_error(error)
    if isinstance(error, BackendError):
        return fix_command(error)
    if isinstance(error, BudgetError):
        return _after_budget_error(error)
    commands = {
        Reason.EXISTS: "--force replaces it",
        Reason.FOREIGN: "--overwrite replaces it",
        Reason.CHECKPOINT: f"{PROGRAM} export SOURCE -o NEW.bundle",
        Reason.ROUTER: f"{PROGRAM} fit-router",
        Reason.LABELS: f"{PROGRAM} label",
        Reason.SIZE_MISSING: f"{PROGRAM} build-engines --height H --width W",
    }
    if error.reason in commands:
        return commands[error.reason]
    return _reinstall(error) if isinstance(error, BundleError) else None


def _after_budget_error(error: BudgetError) -> str:
    """More time, as the option for a whole file takes it, or none of the time limit."""
    if error.prompts == 1:
        return "--or-fastest runs it anyway"
    return f"--total-s {math.ceil(error.fastest_ms / 1000)} is about the least; --or-fastest runs it anyway"


def _after_engine_error(error: EngineError) -> str | None:
    from costroute_rt.error import Reason

    if error.reason is Reason.IMAGES_MISSING:
        return f"{build_engines(error.setup, error.bundle, error.engine)} --init-images"
    if error.reason in (Reason.MISSING, Reason.SIZE_MISSING, Reason.CANNOT_BUILD):
        return build_engines(error.setup, error.bundle, error.engine)
    if error.reason in (Reason.DAMAGED, Reason.QUARANTINED, Reason.CANNOT_OPEN, Reason.FAILED):
        return build_engines(error.setup, error.bundle, error.engine, force=True)
    if error.reason is Reason.NOT_MEASURED:
        return profile(error.setup, error.bundle, error.engine)
    return f"{PROGRAM} engines list" if error.reason is Reason.AMBIGUOUS else None


def build_engines(setup: Mapping[str, str] | None, bundle: str | None, engine: str | None = None, *, force: bool = False) -> str:
    """Builds engines of this setup and bundle, for the size in the name of `engine` if it has one."""
    target = (setup or {}).get("target")
    options = [
        *_setup_options(setup),
        *([format_option("target", target)] if target else []),
        *_bundle_options(bundle),
        *_size_options(engine),
    ]
    return " ".join([PROGRAM, "build-engines", *options, *(["--force"] if force else [])])


def quote(word: str) -> str:
    """One word of a command to paste; where it cannot be printed as it is, in bash's form $'...'."""
    if sys.platform == "win32":
        return subprocess.list2cmdline([word])
    if word.isprintable():
        return shlex.quote(word)
    escapes = {"\\": "\\\\", "'": "\\'"}
    return "$'" + "".join(escapes.get(c, c) if c.isprintable() else _escape(c) for c in word) + "'"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def format_option(name: str, value: str) -> str:
    """`--name value`, or `--name=value` for a value that could be taken for an option."""
    return f"--{name}{'=' if value.startswith('-') else ' '}{quote(value)}"


def profile(setup: Mapping[str, str] | None, bundle: str | None, engine: str | None = None) -> str:
    """Measures engines of this setup and bundle."""
    return " ".join([PROGRAM, "profile", *_setup_options(setup), *_bundle_options(bundle), *_size_options(engine)])


def remove_engine(digest: str) -> str:
    """Removes one engine from the store."""
    return f"{PROGRAM} engines rm {'-- ' if digest.startswith('-') else ''}{quote(digest[:12])}"


def repair_engine(digest: str, damage: EngineError) -> str:
    """Builds a damaged engine again, or removes it if it is unknown what engine it was."""
    return build_engines(damage.setup, damage.bundle, damage.engine) if damage.setup else remove_engine(digest)


def fix_command(fix: BackendError | Fix) -> str | None:
    """Installs what is missing, shows the state of the device, or asks for something else."""
    from costroute_rt.error import Reason

    parts = [pip_command(fix.install, fix.uninstall, again=fix.reason is Reason.DAMAGED)]
    parts += [f"{PROGRAM} doctor"] if fix.reason is Reason.DRIVER else []
    parts += [format_option(name, value) for name, value in fix.instead.items()]
    return "; ".join(filter(None, parts)) or None


def pip_command(install: Iterable[str], uninstall: Sequence[str] = (), *, again: bool = False) -> str:
    """`pip uninstall -y onnxruntime && pip install "costroute-rt[cuda]"`; empty if there is nothing to do.

    again: replace files of packages that are installed already.
    """
    parts = [f"pip uninstall -y {' '.join(map(quote, uninstall))}"] if uninstall else []
    requirements = [name if _PLAIN.fullmatch(name) else f'"{name}"' if _REQUIREMENT.fullmatch(name) else quote(name) for name in install]
    if requirements:
        parts.append(f"pip install {'--force-reinstall --no-deps ' if again else ''}{' '.join(requirements)}")
    return " && ".join(parts)


def _reinstall(error: BundleError) -> str | None:
    """The command that reinstalls the package, if the damaged file is in the shipped bundle; else None."""
    from costroute_rt import shipped_bundle

    is_shipped = error.path is not None and _real(error.path).is_relative_to(shipped_bundle())
    return pip_command([PROGRAM], again=True) if is_shipped else None


def _setup_options(setup: Mapping[str, str] | None) -> list[str]:
    """No options for the usual engines, where nothing else may be meant; for other backends all of them, as their usual values differ."""
    if setup is None:
        return []
    is_usual = setup["backend"] == "onnxruntime"
    asked = (("provider", "cpu"), ("precision", "float32"))
    options = [] if is_usual and _is_default() else [format_option("backend", setup["backend"])]
    options += [format_option(name, setup[name]) for name, usual in asked if not is_usual or setup[name] != usual]
    return options + ([format_option("threads", setup["threads"])] if "threads" in setup else [])


def _is_default() -> bool:
    """Whether ONNX Runtime is what `--backend auto` stands for on any account."""
    from costroute_rt.engines.backends.registry import find_version
    from costroute_rt.family.auto_backend import OTHER, USUAL, find_named

    return find_named() == USUAL or (find_named() == "auto" and find_version(OTHER) is None)


def _bundle_options(bundle: str | None) -> list[str]:
    """No options for the shipped bundle; bundle: may be a pool too."""
    from costroute_rt import shipped_bundle
    from costroute_rt.engines.bundle.pool_file import is_pool

    if bundle is None or _real(bundle) == shipped_bundle():
        return []
    return [format_option("pool" if is_pool(bundle) else "bundle", str(_real(bundle)))]


def _size_options(engine: str | None) -> list[str]:
    """The size in an engine's name, such as family/base/step@512x768."""
    sized = _SIZE.fullmatch(engine or "")
    return ["--height", sized[1], "--width", sized[2]] if sized else []


def _real(path: str) -> Path:
    """The path without links; as it is where that cannot be found out: loops of links, a working directory that was removed."""
    from pathlib import Path

    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(path)
