"""One repository of the hub through huggingface_hub: its cache, the list of its files, and their download."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.engines.machine.durable import write_file
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.error import BackendError, BundleError, CancelledError, ConfigError
from costroute_rt.export.checkpoint.source.hub.failure import Attempt, explain, is_broken_connection
from costroute_rt.regular_file import open_regular, read_regular

_CHUNK_BYTES = 1 << 20
"""Downloads are written, counted and can be cancelled after this many bytes; huggingface_hub's own chunks have 10 MB."""
_MOST_FRUITLESS_TRIES = 2
"""Tries of a file in a row that bring no new byte; huggingface_hub itself tries several times in each."""
_PAUSE_S = 1.0
"""Between two tries of a file."""
_HASH_BYTES = 4 << 20
_PATCHING = threading.Lock()
Count = Callable[[int], None]
"""Called with the bytes of the current file that are there; what it raises ends the download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file as the hub lists it; None where it does not say."""

    name: str
    size: int
    """In bytes; 0 if the hub does not say."""
    sha256: str | None = None
    """Of the content, for large files."""
    git_sha1: str | None = None
    """Git's hash of the content, for the others."""

    @property
    def blob(self) -> str | None:
        """Name of its content in the cache."""
        return self.sha256 or self.git_sha1


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a repository at one commit."""

    commit: str
    files: Mapping[str, HubFile]


class Hub:
    """One repository at one revision."""

    def __init__(self, library: Any, repo_id: str, revision: str, token: str | None) -> None:
        """library: the module huggingface_hub."""
        self._library, self._repo_id, self._revision, self._token = library, repo_id, revision, token
        self._endpoint, self._cache = str(library.constants.ENDPOINT), Path(library.constants.HF_HUB_CACHE)
        self._storage = self._cache / f"models--{repo_id.replace('/', '--')}"

    @classmethod
    def open(cls, repo_id: str, revision: str, token: str | None) -> Hub:
        """The repository; nothing is read or looked up yet. Raises BackendError without huggingface_hub, ConfigError for a bad token."""
        if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
            raise ConfigError("token", "not a token", "one of the hub's access tokens, such as hf_...")
        opt_out_hub()
        try:
            import huggingface_hub
            import huggingface_hub.constants
            import huggingface_hub.file_download
        except ImportError as error:
            raise BackendError("a model of the hub", f"no {error.name}", "install the export extra", ["costroute-rt[export]"]) from error
        return cls(huggingface_hub, repo_id, revision, token)

    @property
    def is_offline(self) -> bool:
        """Whether the user forbids the network: HF_HUB_OFFLINE."""
        return bool(self._library.constants.HF_HUB_OFFLINE)

    @property
    def cache(self) -> Path:
        return self._cache

    def attempt(self, file: str | None = None) -> Attempt:
        return Attempt(
            repo_id=self._repo_id,
            revision=self._revision,
            endpoint=self._endpoint,
            cache=str(self._cache),
            has_token=self._has_token(),
            file=file,
        )

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit in the cache; it need not exist."""
        return self._storage / "snapshots" / commit

    def cached_snapshot(self) -> Path | None:
        """The folder of the revision in the cache, complete or not; None if the cache does not know the revision."""
        try:
            commit = read_regular(self._storage / "refs" / self._revision, 200).decode("ascii").strip()
        except (OSError, ValueError):
            commit = self._revision
        found = self.snapshot(commit)
        return found if "/" not in commit and ".." not in commit and found.is_dir() else None

    def note_revision(self, commit: str) -> None:
        """Notes in the cache which commit the revision is, as huggingface_hub does; called when its files are complete."""
        if self._revision != commit:
            path = self._storage / "refs" / self._revision
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, commit.encode("ascii"))

    def list_files(self) -> Listing:
        """Asks the hub; raises what huggingface_hub raises."""
        api = self._library.HfApi(endpoint=self._endpoint, token=self._token)
        info = api.model_info(self._repo_id, revision=self._revision, files_metadata=True, timeout=self._timeout_s())
        files = [_read_file(sibling) for sibling in info.siblings or ()]
        if not isinstance(info.sha, str) or not (info.sha.isascii() and info.sha.isalnum()):
            raise TypeError("the hub names no commit")
        return Listing(commit=info.sha, files={file.name: file for file in files if _is_plain(file.name)})

    def missing_bytes(self, file: HubFile, commit: str) -> int:
        """Bytes of a file that have to be downloaded."""
        if (self.snapshot(commit) / file.name).is_file():
            return 0
        if file.blob is None:
            return file.size
        blob = self._storage / "blobs" / file.blob
        return 0 if blob.is_file() else file.size - min(_size(self._part(blob)), file.size)

    def download(self, file: HubFile, commit: str, count: Count, pause: Callable[[float], None] = time.sleep) -> Path:
        """The file in the cache, downloaded if it is not there, and compared with the hash that the hub lists.

        What was downloaded stays if this fails, and the next call continues there. pause: waits for so many seconds, between tries.
        Raises BundleError, OutputError, or what `count` raises.
        """
        path = self._fetch(file, commit, count, pause)
        expected = file.blob
        if expected is not None and (found := _hash(path, file, count)) != expected:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            problem = f"its file {file.name} has the hash {found[:12]} instead of {expected[:12]}, and was removed again"
            raise BundleError(self._repo_id, problem, "run it again; if that does not help, a mirror or proxy on the way changes files")
        return path

    def _fetch(self, file: HubFile, commit: str, count: Count, pause: Callable[[float], None]) -> Path:
        counter, fruitless = _Counter(count), 0
        self._drop_wrong_part(file)
        while True:
            before = counter.most_bytes
            try:
                with _patched(self._library, counter):
                    path = self._library.hf_hub_download(
                        self._repo_id,
                        file.name,
                        revision=commit,
                        cache_dir=str(self._cache),
                        endpoint=self._endpoint,
                        token=self._token,
                    )
                return Path(path)
            except CancelledError:
                raise
            except Exception as error:
                fruitless = 0 if counter.most_bytes > before else fruitless + 1
                if counter.failure is not None or not is_broken_connection(error) or fruitless >= _MOST_FRUITLESS_TRIES:
                    raise counter.failure or explain(error, self.attempt(file.name)) from error
            pause(_PAUSE_S)

    def _drop_wrong_part(self, file: HubFile) -> None:
        """Removes what an earlier run left of a file, if that is longer than the file: no server could continue there."""
        if file.blob is not None and _size(part := self._part(self._storage / "blobs" / file.blob)) > file.size > 0:
            part.unlink(missing_ok=True)

    @staticmethod
    def _part(blob: Path) -> Path:
        """Where huggingface_hub keeps what it has of a file."""
        return blob.with_name(f"{blob.name}.incomplete")

    def _has_token(self) -> bool:
        try:
            return self._token is not None or self._library.get_token() is not None
        except (OSError, ValueError):  # its file cannot be read
            return False

    def _timeout_s(self) -> float:
        return float(self._library.constants.HF_HUB_ETAG_TIMEOUT)


class _Counter:
    """Stands in for a progress bar of huggingface_hub: counts the bytes of the file that is being downloaded."""

    def __init__(self, count: Count) -> None:
        self._count, self._bytes = count, 0
        self.most_bytes = 0
        self.failure: Exception | None = None
        """What `count` raised, which huggingface_hub might take for an error of its own."""

    def begin(self, initial: int) -> None:
        self._bytes = 0
        self.update(initial)

    def update(self, more: float | None = 1) -> None:
        self._bytes += int(more or 0)
        self.most_bytes = max(self.most_bytes, self._bytes)
        try:
            self._count(self._bytes)
        except Exception as error:
            self.failure = error
            raise


@contextmanager
def _patched(library: Any, counter: _Counter) -> Iterator[None]:
    """huggingface_hub as we need it, for one download: it counts into `counter`, prints nothing, writes often, and uses plain HTTP.

    Its downloads by Xet start over after an interruption and do not go through mirrors; HF_HUB_DISABLE_XET=0 allows them all the same.
    Nothing of this can be passed as an argument in the versions before 1.0. A name that another version lacks is left out.
    """

    def bar(*_: Any, initial: int = 0, _tqdm_bar: Any = None, **__: Any) -> Any:
        if _tqdm_bar is None:
            counter.begin(initial)
        return nullcontext(_tqdm_bar or counter)

    constants, downloads = library.constants, library.file_download
    values = [(downloads, "_get_progress_bar_context", bar), (constants, "DOWNLOAD_CHUNK_SIZE", _CHUNK_BYTES)]
    if not os.environ.get("HF_HUB_DISABLE_XET"):
        values.append((constants, "HF_HUB_DISABLE_XET", True))
    with _PATCHING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [(place, name, getattr(place, name)) for place, name, _ in values if hasattr(place, name)]
        verbosity = library.logging.get_verbosity()
        library.logging.set_verbosity_error()
        try:
            for place, name, value in values:
                if hasattr(place, name):
                    setattr(place, name, value)
            yield
        finally:
            for place, name, value in before:
                setattr(place, name, value)
            library.logging.set_verbosity(verbosity)


def _read_file(sibling: Any) -> HubFile:
    """Raises TypeError for what is not an entry of a hub's list."""
    size, lfs, git_sha1 = sibling.size, sibling.lfs, sibling.blob_id
    sha256 = None if lfs is None else lfs.sha256
    for text in (sibling.rfilename, sha256 or "0", git_sha1 or "0"):
        if not isinstance(text, str):
            raise TypeError("an entry is no text")
    for text in (sha256, git_sha1):
        if text and not (text.isascii() and text.isalnum()):
            raise TypeError("a hash is none")
    return HubFile(name=sibling.rfilename, size=max(size, 0) if isinstance(size, int) else 0, sha256=sha256, git_sha1=git_sha1)


def _is_plain(name: str) -> bool:
    """Whether a name leads into the snapshot on every system."""
    parts = name.split("/")
    return name.isprintable() and not set(name) & {"\\", ":"} and not any(part in ("", ".", "..") for part in parts)


def _hash(path: Path, file: HubFile, count: Count) -> str:
    """SHA-256 of a file's content, or Git's hash of it: whichever the hub lists."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256() if file.sha256 is not None else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while block := stream.read(_HASH_BYTES):
            digest.update(block)
            count(size)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
