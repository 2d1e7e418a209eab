"""Names of repositories on the hub, told apart from paths."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from costroute_rt.error import BundleError, ConfigError, Reason
from costroute_rt.export.checkpoint.source.model_name import MODEL_FILES

_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}\w)?"
_ID = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_FILE = re.compile(r"[\w.+ ()-]+", re.ASCII)
_REVISION = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """What a user names on the hub: `OWNER/NAME`, or `OWNER/NAME/FILE.safetensors` for one file of it."""

    repo_id: str
    file: str | None = None
    """Inside the repository, with `/` between folders."""

    @property
    def short(self) -> str:
        """What to call the model: the last part, without the file's extension."""
        return PurePosixPath(self.file).stem if self.file is not None else self.repo_id.rpartition("/")[2]


def read_hub_name(text: str) -> HubName | None:
    """The repository, and maybe the file in it, that a text names; None if no repository can be called that."""
    owner, _, rest = text.partition("/")
    name, _, file = rest.partition("/")
    repo_id = f"{owner}/{name}"
    if not _ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id or name.endswith((".git", *MODEL_FILES)):
        return None
    if "/" not in rest:
        return HubName(repo_id=repo_id)
    return HubName(repo_id=repo_id, file=file) if _is_model_file(file) else None


def looks_like_hub_id(text: str) -> bool:
    """Whether a text names a repository, or a file of one, on the hub: nothing has that path here, and it has the form of an id."""
    return not os.path.lexists(text) and read_hub_name(text) is not None


def read_place(text: str) -> Path | HubName:
    """The path, or the repository on the hub, that a user means: a path that exists wins. Raises BundleError if it is neither."""
    if os.path.lexists(text):
        return Path(text)
    name = read_hub_name(text)
    if name is None:
        remedy = "give a folder, a file, or a repository of the Hugging Face hub as OWNER/NAME or OWNER/NAME/FILE.safetensors"
        if "://" in text:
            remedy = "give OWNER/NAME, as in the address, instead of the address"
        raise BundleError(text, "it does not exist", remedy, reason=Reason.MISSING)
    return name


def check_revision(revision: str) -> str:
    """The name of a branch, tag or commit, which becomes part of a path in the cache; raises ConfigError."""
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision or len(revision) > 200:
        raise ConfigError("revision", revision, "a branch, a tag or a commit of the repository")
    return revision


def _is_model_file(file: str) -> bool:
    parts = file.split("/")
    return file.endswith(MODEL_FILES) and all(_FILE.fullmatch(part) and part.strip(". ") for part in parts)
