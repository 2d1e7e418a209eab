"""Scorers of `costroute-rt label`: how well an image shows its prompt."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BundleError, ConfigError, CostrouteError, LabelError
from costroute_rt.export.router.clip_scorer import FORMULAS, AestheticScorer, ClipScorer
from costroute_rt.export.router.csv_file import LARGEST_NUMBER
from costroute_rt.export.router.prompts import PromptRow

if TYPE_CHECKING:
    from costroute_rt.export.postcard.judge import Judge
    from costroute_rt.export.postcard.scene import Value

_log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
POSTCARD = {"postcard": "score", "recall": "recall", "cleanness": "cleanness"}
"""Scorers of the postcard family, and the property of `Finding` that each gives."""
CLEAN_SCORE = "postcard-clean"
"""Name of a score that counts cleanness, so that a table never mixes it with scores of bundles whose scorer does not judge it."""
FORMS = "postcard, recall, cleanness, clip:FOLDER, pickscore:FOLDER, hps:FOLDER, aesthetic:FOLDER,HEAD.safetensors or module:function"


class Scorer(Protocol):
    """Scores how well an image shows its prompt; higher is better."""

    name: str
    """Short name; the column of a further scorer is score_NAME."""

    def check(self, prompt: PromptRow) -> str | None:
        """Why this prompt cannot be scored, in words; None if it can."""
        ...

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """pixels: uint8[height, width, 3]"""
        ...

    def close(self) -> None:
        """Releases its resources."""
        ...


class PostcardScorer:
    """What the scorer in a bundle of the postcard family finds: `score`, `recall` of stated things, or `cleanness` of the image."""

    def __init__(self, judge: Judge, part: str) -> None:
        """part: name of the property of `Finding`."""
        self._judge, self._part = judge, part
        self.name = part if part != "score" else CLEAN_SCORE if judge.judges_cleanness else "postcard"

    @classmethod
    def open(cls, bundle: Bundle, home: Path | None, spec: str) -> PostcardScorer:
        """Builds its engine if it is missing; raises BundleError for a bundle without a scorer, or without `spec`, one of POSTCARD."""
        from costroute_rt.export.postcard.judge import Judge

        judge = Judge.open(bundle, home)
        if POSTCARD[spec] == "cleanness" and not judge.judges_cleanness:
            judge.close()
            raise BundleError(bundle.root, "its scorer does not judge cleanness", "use the scorer recall, or a newer bundle")
        return cls(judge, POSTCARD[spec])

    def check(self, prompt: PromptRow) -> str | None:
        """The prompt must state known values, except for cleanness alone."""
        from costroute_rt.export.postcard.scene import ATTRIBUTES

        if self._part == "cleanness":
            return None
        if not prompt.stated:
            return "it has no value in the column `stated`, which the postcard scorer needs"
        for name, value in prompt.stated.items():
            if value not in ATTRIBUTES.get(name, ()):
                known = ", ".join(map(str, ATTRIBUTES.get(name, tuple(ATTRIBUTES))))
                return f"it states {name} {value!r}, but the postcard scorer knows {known}"
        return None

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """From 0 to 1."""
        stated = cast("Mapping[str, Value]", prompt.stated or {})  # `check` was passed
        return float(getattr(self._judge.look(pixels, stated), self._part))

    def close(self) -> None:
        self._judge.close()


class FunctionScorer:
    """A function of the user: function(pixels uint8[height, width, 3], prompt) -> number."""

    def __init__(self, name: str, function: Callable[[Pixels, str], float]) -> None:
        self.name, self._function = name, function

    @classmethod
    def open(cls, spec: str) -> FunctionScorer:
        """`module:function`, imported from Python's search path or, after that, the working folder; raises ConfigError.

        Importing runs the module's code, so its file is logged.
        """
        module, _, name = spec.partition(":")
        folder = os.getcwd()
        sys.path.append(folder)  # last, so that nothing there takes the place of an installed module
        try:
            found = importlib.import_module(module)
            _log.warning("the scorer %s runs the code in %s", spec, getattr(found, "__file__", None) or "Python itself")
            function = getattr(found, name)
        except Exception as error:  # importing runs the user's code
            raise ConfigError("scorer", spec, f"{FORMS} ({type(error).__name__}: {error})") from error
        finally:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
        if not callable(function):
            raise ConfigError("scorer", spec, f"a function, not an object of type {type(function).__name__}")
        return cls(name, function)

    def check(self, prompt: PromptRow) -> None:
        """Every prompt can be scored."""

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """The function's value."""
        return float(self._function(pixels, prompt.prompt))

    def close(self) -> None:
        """Nothing to release."""


def open_scorers(specs: Sequence[str], bundle: Bundle, home: Path | None = None) -> list[Scorer]:
    """The scorers of these names; if one cannot be opened, the others are closed. Raises ConfigError, BundleError, BackendError."""
    found: list[Scorer] = []
    try:
        for spec in specs:
            found.append(_open_scorer(spec, bundle, home))
        names = [scorer.name for scorer in found]
        if len(set(names)) < len(names):
            raise ConfigError("scorer", ", ".join(specs), f"scorers with different names, not {', '.join(names)}")
    except BaseException:
        for scorer in found:
            scorer.close()
        raise
    return found


def score_image(scorer: Scorer, pixels: Pixels, prompt: PromptRow, *, table: Path, made_by: str) -> float:
    """A score; raises LabelError, naming the scorer, if it fails, or if its score is not finite or too large for a table.

    made_by: the candidate and seed, for the message.
    """
    try:
        value = float(scorer.score(pixels, prompt))
    except CostrouteError:
        raise
    except Exception as error:  # the user's code
        problem = f"scorer {scorer.name} failed for {prompt.prompt_id!r} ({made_by}): {type(error).__name__}: {error}"
        raise LabelError(table, problem, "correct the scorer; rows so far are kept") from error
    if not abs(value) <= LARGEST_NUMBER:
        wrong = f"which is larger than {LARGEST_NUMBER:g}" if np.isfinite(value) else "which is not finite"
        problem = f"scorer {scorer.name} returned {value} for {prompt.prompt_id!r} ({made_by}), {wrong}"
        raise LabelError(table, problem, "correct the scorer; rows so far are kept")
    return value


def _open_scorer(spec: str, bundle: Bundle, home: Path | None) -> Scorer:
    if spec in POSTCARD:
        return PostcardScorer.open(bundle, home, spec)
    kind, _, rest = spec.partition(":")
    if kind in FORMULAS:
        return ClipScorer.open(Path(rest).expanduser(), kind)
    if kind == "aesthetic":
        return AestheticScorer.open(rest)
    if all(part for part in spec.partition(":")):
        return FunctionScorer.open(spec)
    raise ConfigError("scorer", spec, FORMS)
