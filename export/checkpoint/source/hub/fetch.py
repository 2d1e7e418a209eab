"""Brings a model of the hub onto this machine: from the cache of huggingface_hub, else by a download of the files that an export needs."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from costroute_rt.error import BundleError, CancelledError, ConfigError, OutputError, Reason
from costroute_rt.export.checkpoint.source.diffusers_folder import MODEL_INDEX, check_pipeline, check_settings
from costroute_rt.export.checkpoint.source.hub.client import Hub, HubFile, Listing
from costroute_rt.export.checkpoint.source.hub.failure import explain, is_unreachable
from costroute_rt.export.checkpoint.source.hub.repository import HubName, check_revision, read_hub_name
from costroute_rt.export.checkpoint.source.hub.selection import (
    Selection,
    SelectionError,
    all_weights,
    select_file,
    select_network,
    select_pipeline,
)
from costroute_rt.export.checkpoint.weight_file import read_config

_log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], "bool | None"]
"""Called with the bytes that are there, the bytes of all files, and the name of the current file; returning False cancels."""
_Locate = Callable[[str], Path]
"""Returns the path of a file of the repository."""


def fetch_model(
    repo_id: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    token: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Path:
    """A model of the hub as a folder, or as a file, in the cache of huggingface_hub.

    If the cache holds all that is needed of the revision, nothing is looked up, whatever the hub has by now. Else the missing files are
    downloaded; what an earlier run left is continued. Of each network one format and precision is taken: safetensors before torch's,
    plain weights before variants. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_TOKEN are respected.

    repo_id: OWNER/NAME: a diffusers pipeline, a folder of one network such as a VAE, or a single safetensors file; or
        OWNER/NAME/FILE.safetensors for one file of several.
    revision: branch, tag or commit; None means main. variant: weights to prefer, such as fp16. token: None means the user's own.
    offline: use the cache alone, as with HF_HUB_OFFLINE=1. cancel: an event that ends the download with CancelledError.
    Raises ConfigError, BackendError without huggingface_hub, OutputError where the cache cannot be written, and BundleError for the rest.
    """
    name = read_hub_name(repo_id)
    if name is None:
        raise ConfigError("repo_id", repo_id, "a repository of the hub as OWNER/NAME or OWNER/NAME/FILE.safetensors")
    if variant is not None and not (variant.isascii() and variant.isidentifier()):
        raise ConfigError("variant", variant, "a variant of weights, such as fp16")
    hub = Hub.open(name.repo_id, check_revision("main" if revision is None else revision), token)
    try:
        return _fetch(hub, name, variant, _Watch(progress, cancel), is_offline=offline or hub.is_offline)
    except SelectionError as error:
        raise BundleError(name.repo_id, error.problem, error.remedy) from error


def _fetch(hub: Hub, name: HubName, variant: str | None, watch: _Watch, *, is_offline: bool) -> Path:
    found = _find_cached(hub, name, variant, takes_any_file=is_offline)
    if found is not None:
        _log.info("%s is taken from the cache: %s", name.repo_id, found)
        return found
    if is_offline:
        problem = f"the cache of huggingface_hub ({hub.cache}) does not hold all of it, and the network may not be used"
        raise BundleError(
            name.repo_id, problem, "run it once with the network (HF_HUB_OFFLINE unset), or give a folder", reason=Reason.MISSING
        )
    try:
        listing = hub.list_files()
    except Exception as error:
        if is_unreachable(error) and (found := _find_cached(hub, name, variant, takes_any_file=True)) is not None:
            return found
        raise explain(error, hub.attempt()) from error
    return _Download(hub, listing, watch).run(name, variant)


def _find_cached(hub: Hub, name: HubName, variant: str | None, *, takes_any_file: bool) -> Path | None:
    """The folder or file in the cache, if nothing is missing.

    takes_any_file: also the only file that the cache has of a repository of single files, though the hub may have others.
    """
    folder = hub.cached_snapshot()
    if folder is None:
        return None
    names = _file_names(folder)
    try:
        selection = _select(names, name, variant, folder.joinpath)
        all_weights(selection, names, folder.joinpath)
    except (SelectionError, BundleError) as error:
        _log.debug("%s: the cache is not complete: %s", name.repo_id, error)
        return None
    if selection.file is None:
        return folder
    return folder / selection.file if name.file is not None or takes_any_file else None


def _select(names: frozenset[str], name: HubName, variant: str | None, locate: _Locate) -> Selection:
    """The files to have of a repository with files `names`; raises SelectionError."""
    if name.file is not None:
        return select_file(names, name.file, name.repo_id)
    if MODEL_INDEX in names:
        return select_pipeline(names, read_config(locate(MODEL_INDEX)), variant)
    return select_network(names, variant) or select_file(names, None, name.repo_id)


class _Watch:
    """Reports a download to a callback, and ends it if that, or an event, asks for it."""

    def __init__(self, progress: Progress | None, cancel: threading.Event | None) -> None:
        self._progress, self._cancel = progress, cancel

    def check(self, *_: object) -> None:
        """Raises CancelledError if the event is set."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError("the download was cancelled: what is complete is kept")

    def report(self, done: int, total: int, file: str) -> None:
        self.check()
        if self._progress is not None and self._progress(min(done, total), total, file) is False:
            raise CancelledError("the download was cancelled: what is complete is kept")

    def pause(self, seconds: float) -> None:
        """Waits, or until the event is set."""
        (self._cancel or threading.Event()).wait(seconds)
        self.check()


@dataclass(frozen=True, slots=True)
class _Download:
    """The download of one repository at one commit."""

    hub: Hub
    listing: Listing
    watch: _Watch

    def run(self, name: HubName, variant: str | None) -> Path:
        """Small files come first: they say whether the model can be exported, and which weights it needs."""
        names = frozenset(self.listing.files)
        if name.file is None and MODEL_INDEX in names:
            check_pipeline(read_config(self._get(MODEL_INDEX)), name.repo_id)
        selection = _select(names, name, variant, self._get)
        for file in selection.first:
            self._get(file)
        folder = self.hub.snapshot(self.listing.commit)
        if MODEL_INDEX in selection.first:
            check_settings(folder)
        files = [*selection.first, *all_weights(selection, names, self._get)]
        self._get_all([self.listing.files[file] for file in dict.fromkeys(files)])
        try:
            self.hub.note_revision(self.listing.commit)
        except OSError as error:
            raise explain(error, self.hub.attempt()) from error
        return folder if selection.file is None else folder / selection.file

    def _get(self, file: str) -> Path:
        return self.hub.download(self.listing.files[file], self.listing.commit, self.watch.check, self.watch.pause)

    def _get_all(self, files: list[HubFile]) -> None:
        total, done = sum(file.size for file in files), 0
        self._check_room(sum(self.hub.missing_bytes(file, self.listing.commit) for file in files))
        for file in files:
            self.watch.report(done, total, file.name)
            self.hub.download(file, self.listing.commit, _count_from(self.watch, done, total, file.name), self.watch.pause)
            done += file.size
            self.watch.report(done, total, file.name)

    def _check_room(self, needed_bytes: int) -> None:
        """Raises OutputError if the cache's disk has no room for so much more."""
        cache = self.hub.cache
        free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
        if free < needed_bytes:
            problem = f"the download needs {_megabytes(needed_bytes)}, and {_megabytes(free)} are free"
            raise OutputError(cache, f"{problem}; free some space, or set HF_HOME to another disk", reason=Reason.FULL)


def _count_from(watch: _Watch, done: int, total: int, file: str) -> Callable[[int], None]:
    """Reports the bytes of one file as bytes of all. done: bytes of the files before it."""
    return lambda count: watch.report(done + count, total, file)


def _file_names(folder: Path) -> frozenset[str]:
    """Names of the files in a snapshot, without links that lead nowhere."""
    found = []
    for parent, _, files in os.walk(folder):
        found += [Path(parent, file) for file in files]
    return frozenset(path.relative_to(folder).as_posix() for path in found if path.is_file())


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2g} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"
