"""Whether an installed library is complete, and what fixes it if not.

A library may be missing, damaged (two packages wrote the same files and one was uninstalled, a native library cannot be loaded), or hidden
by a file of the same name in the directory that Python looks in first. `pip install` answers "already satisfied" to most of these.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType

from costroute_rt.engines.machine.fix import Fix, find_fix
from costroute_rt.error import BackendError, Reason

_PACKAGES = {"PIL": "Pillow", "google": "protobuf", "costroute_rt": "costroute-rt", "cuda": "cuda-core", "pynvml": "nvidia-ml-py"}
"""Packages by the module that they install, where the names differ."""
_LONGEST_REASON = 300
_RELEASE = re.compile(r"\d+(?:\.\d+){0,2}")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*>=\s*([\d.]+)")


@dataclass(frozen=True)
class Library:
    """A module that others may have installed, and how a usable one is recognised."""

    module: str
    fix: Fix
    """Installs it."""
    title: str = ""
    names: tuple[str, ...] = ()
    """Attributes of a complete module."""
    packages: str = ""
    """Pattern for the packages that install this module, in their normal spelling; empty: the one of its name."""

    @classmethod
    def of(cls, module: str) -> Library:
        """A library that one package installs."""
        package = _PACKAGES.get(module, module)
        return cls(module, Fix(f"install {package}", (package,)), title=package, packages=re.escape(package.replace("_", "-").lower()))

    def load(self, load: Callable[[], ModuleType]) -> ModuleType:
        """The module that `load` imports; raises BackendError where it is not installed, damaged, hidden or installed twice.

        A module found usable is not examined again: that takes milliseconds where many packages are installed.
        """
        known = self.module, self.names, self.packages
        if known in _usable and sys.modules.get(self.module) is _usable[known]:
            return _usable[known]
        found = Installation(self)
        if len(found.packages) > 1:
            raise found.error()
        try:
            module = load()
        except (Exception, SystemExit) as error:  # a damaged or hidden library may run any code and raise anything
            raise found.error(error) from error
        if any(not hasattr(module, name) for name in self.names) or found.has_other_version(module):
            raise found.error()
        _usable[known] = module
        return module


_usable: dict[tuple[str, tuple[str, ...], str], ModuleType] = {}
"""The modules that were examined and found usable, by what was examined."""


class Installation:
    """What is installed under the name of a library, found without importing it."""

    def __init__(self, library: Library) -> None:
        self.library = library

    @cached_property
    def path(self) -> Path | None:
        """The file that Python imports; None where the module is missing, or only a directory without code."""
        try:
            spec = importlib.util.find_spec(self.library.module)
        except (ValueError, ImportError):  # a module object without a spec, such as a stub
            return None
        return None if spec is None or spec.origin in (None, "built-in", "frozen") else Path(spec.origin)

    @cached_property
    def site(self) -> Path | None:
        """The directory of packages that the module is in."""
        if self.path is None:
            return None
        return self.path.parent.parent if self.path.stem == "__init__" else self.path.parent

    @cached_property
    def packages(self) -> tuple[str, ...]:
        """The installed packages whose records list the module; those beside the module itself, if there is one."""
        if sys.modules.get(self.library.module, self) is None:  # None in sys.modules blocks the import
            return ()
        beside = self._packages_in([self.site]) if self.site else ()
        return beside or self._packages_in([Path(each) for each in sys.path])

    def has_other_version(self, module: ModuleType) -> bool:
        """Whether the files are of another release than any record of the package names; an update can leave an old record."""
        theirs = _numbers(str(getattr(module, "__version__", "")))
        ours = [_numbers(each) for each in self.versions()]
        return bool(theirs and ours) and all(any(a != b for a, b in zip(each, theirs, strict=False)) for each in ours)

    def versions(self) -> list[str]:
        """Versions in the records of the package, such as 1.30.0 of onnxruntime_gpu-1.30.0.dist-info."""
        names = [record.name.removesuffix(".dist-info") for record in self._records()]
        return [name.split("-")[1] for name in names if "-" in name]

    def _records(self) -> list[Path]:
        """The directories with the metadata of the packages that bring the module."""
        sites = [self.site] if self.site else [Path(each) for each in sys.path]
        return [path for site in sites if site.is_dir() for path in site.glob("*.dist-info") if _package_of(path) in self.packages]

    def error(self, cause: BaseException | None = None) -> BackendError:
        """Why the module cannot be used, with what fixes it; cause: what importing it raised."""
        found, fix = self._diagnose(cause)
        return fix.make_error(self.library.title, found)

    def _diagnose(self, cause: BaseException | None) -> tuple[str, Fix]:
        name, packages = self.library.module, self.packages
        if len(packages) > 1:
            remedy = "they overwrite each other's files: uninstall them, then install one of them"
            found = " and ".join(f"{each} {version_of(each) or ''}".strip() for each in packages)
            return found, Fix(remedy, (packages[-1],), packages)
        if self.is_hidden():
            return f"{self.path}, which Python imports in its place", self._fix_hidden()
        reason = f"no usable {name} module ({_describe(cause) if cause else self._describe_remains()})"
        missing = _missing_module(cause)
        if missing not in (None, name):
            is_part = (missing or "").startswith(name)  # such as tensorrt_rtx_libs, which the same extra installs
            return reason, self.library.fix if is_part else Library.of(missing or "").fix
        if packages:
            return reason, _fix_library(reason, name) or self._reinstall(packages[0])
        return reason, self.library.fix

    def _describe_remains(self) -> str:
        if self.path is None:
            return "only remains of it are installed"
        module = sys.modules.get(self.library.module)
        lacking = [each for each in self.library.names if not hasattr(module, each)]
        if lacking:
            return f"{self.path} has no {lacking[0]}"
        return f"{self.path} is version {getattr(module, '__version__', None)}, {self.packages[0]} is version {self.versions()[0]}"

    def is_hidden(self) -> bool:
        """Whether the module is a file, or a directory, that no package brought, in the working directory or beside the program."""
        if self.path is None or self.site is None or self._packages_in([self.site]):
            return False
        started_from = {Path(each or ".").resolve() for each in ("", sys.path[0] if sys.path else "")}
        return self.path.stem == self.library.module or self.site.resolve() in started_from

    def _fix_hidden(self) -> Fix:
        remedy = "rename it, or start the program from another directory"
        is_enough = self.packages or self.library.module in sys.stdlib_module_names
        return Fix(remedy) if is_enough else replace(self.library.fix, remedy=f"{remedy}; then {self.library.fix.remedy}")

    def _reinstall(self, package: str) -> Fix:
        records = [each for each in self._records() if not (each / "RECORD").exists()]
        first = f"delete {records[0]}, which lacks its list of files, then " if records else ""
        return Fix(f"{first}install {package} again", (package,), reason=Reason.DAMAGED)

    def _packages_in(self, sites: list[Path]) -> tuple[str, ...]:
        pattern, found = self.library.packages or re.escape(self.library.module), set()
        for record in (path for site in sites if site.is_dir() for path in site.glob("*.dist-info")):
            name = _package_of(record)
            if re.fullmatch(pattern, name) and _may_bring(record, self.library.module):
                found.add(name)
        return tuple(sorted(found))


def explain(error: BaseException) -> BackendError | None:
    """What is wrong with the installation, if that is why `error` was raised: a library that is missing, damaged, hidden or too old."""
    found = _failed_library(error)
    if found is None:
        return next((_outdated(name, least) for name, least in requirements().items() if _is_outdated(name, least)), None)
    if found in sys.stdlib_module_names:
        return _explain_standard(found, error)
    installation = Installation(Library.of(found))
    is_complete = installation.path is not None and installation.packages and not installation.is_hidden()
    return None if is_complete and isinstance(error, AttributeError) else installation.error(error)


def explain_import(error: ImportError, title: str, fix: Fix) -> BackendError:
    """The error about an optional library that cannot be imported; fix: installs it, where it is not installed yet."""
    damage = explain(error)
    if damage is not None and (damage.reason is Reason.DAMAGED or not damage.install):
        return damage
    return fix.make_error(title, f"none that works: {error}")


def _explain_standard(name: str, error: BaseException) -> BackendError | None:
    """The same for a module of Python itself, which a file in the program's directory may hide."""
    installation = Installation(Library(name, Fix("install a complete Python"), title=f"Python's module {name}", names=()))
    if installation.is_hidden():
        return installation.error(error)
    return installation.library.fix.make_error(installation.library.title, "none") if _missing_module(error) else None


def _failed_library(error: BaseException) -> str | None:
    """The library whose import failed, or that lacks a name; None where the error has another origin."""
    if isinstance(error, ImportError) and error.name:
        return error.name.partition(".")[0]
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__.partition(".")[0]
        return None if name == "costroute_rt" else name
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and name not in ("costroute_rt", "__main__", ""):
            return name
        trace = trace.tb_next
    return None


def requirements() -> dict[str, str]:
    """The packages that this one always needs, each with its lowest version; empty where run from a source tree."""
    try:
        from importlib import metadata

        lines = metadata.requires("costroute-rt") or []
    except Exception:  # not installed, or a damaged record
        return {}
    return {match[1]: match[2] for line in lines if "extra ==" not in line and (match := _REQUIREMENT.match(line))}


def _is_outdated(name: str, least: str) -> bool:
    found = version_of(name)
    return found is not None and _numbers(found) < _numbers(least)


def _outdated(name: str, least: str) -> BackendError:
    requirement = f"{name}>={least}"
    return Fix(f"install {requirement}", (requirement,)).make_error(requirement, f"{name} {version_of(name)}")


def check_library(name: str, least: str | None = None) -> tuple[str | None, BackendError | None]:
    """The version of a package that this one always needs, and what is wrong with it."""
    module = next((module for module, package in _PACKAGES.items() if package.lower() == name.lower()), name)
    library, found = Library.of(module), Installation(Library.of(module))
    try:
        library.load(lambda: importlib.import_module(module))
    except BackendError as error:
        return version_of(name), error
    if found.is_hidden():
        return version_of(name), found.error()
    return version_of(name), _outdated(name, least) if least and _is_outdated(name, least) else None


def version_of(distribution: str) -> str | None:
    """Installed version of a package; None if it is not installed, or its record is damaged."""
    try:  # loaded here, because a file such as random.py beside the program breaks it, which has to be explained too
        from importlib import metadata

        return str(metadata.version(distribution) or "") or None
    except Exception:  # PackageNotFoundError; several others for a record without a version
        return None


def _numbers(version: str) -> tuple[int, ...]:
    found = _RELEASE.match(version)
    return tuple(int(each) for each in found[0].split(".")) if found else ()


def _missing_module(error: BaseException | None) -> str | None:
    """Top level of the module that an import did not find."""
    return error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else None


def _fix_library(reason: str, module: str) -> Fix | None:
    """What brings a native library that another package contains."""
    fix = find_fix(reason)
    return None if fix is None or re.search(rf"\b(lib)?{re.escape(module)}", fix.remedy) else fix


def _package_of(record: Path) -> str:
    """The package of a directory such as onnxruntime_gpu-1.30.0.dist-info, in its normal spelling."""
    return re.sub(r"[-_.]+", "-", record.name.split("-")[0]).lower()


def _may_bring(record: Path, module: str) -> bool:
    """Whether a package's list of files has the module; also where the list is missing."""
    try:
        files = (record / "RECORD").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return re.search(rf"^{re.escape(module)}(/__init__)?\.py", files, re.MULTILINE) is not None


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())[:_LONGEST_REASON]
    return text if isinstance(error, ImportError) and text else f"{type(error).__name__}: {text}" if text else type(error).__name__
