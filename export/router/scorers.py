"""What a picture is worth for its prompt: the scorers that `costroute-rt label` knows."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BackendError, ConfigError, CostrouteError, LabelError
from costroute_rt.export.router.prompts import PromptRow

Pixels = npt.NDArray[np.uint8]
FORMS = "postcard, clip:FOLDER or module:function"


class Scorer(Protocol):
    """Tells how well a picture shows its prompt; higher is better."""

    name: str
    """Short; further scorers' columns are called score_NAME."""

    def check(self, prompt: PromptRow) -> str | None:
        """What this prompt lacks, in words; None where it can be scored."""
        ...

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """pixels: uint8[height, width, 3]"""
        ...

    def close(self) -> None:
        """Releases what it holds."""
        ...


class PostcardScorer:
    """Mean probability of the stated values, by the scorer in the bundle of the postcard family."""

    name = "postcard"

    def __init__(self, judge: Any) -> None:
        self._judge = judge

    @classmethod
    def open(cls, bundle: Bundle, home: Path | None) -> PostcardScorer:
        """Builds its engine where it is missing; raises BundleError for a bundle without that scorer."""
        from costroute_rt.export.postcard.judge import Judge

        return cls(Judge.open(bundle, home))

    def check(self, prompt: PromptRow) -> str | None:
        """The prompt must state known values."""
        from costroute_rt.export.postcard.scene import ATTRIBUTES

        if not prompt.stated:
            return "it states nothing, and the postcard scorer needs the column `stated`"
        for name, value in prompt.stated.items():
            if value not in ATTRIBUTES.get(name, ()):
                known = ", ".join(map(str, ATTRIBUTES.get(name, tuple(ATTRIBUTES))))
                return f"it states {name} {value!r}, and the postcard scorer knows {known}"
        return None

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """From 0 to 1."""
        return float(np.mean(list(self._judge.probabilities(pixels, prompt.stated).values())))

    def close(self) -> None:
        self._judge.close()


class ClipScorer:
    """CLIPScore without its prefix: 2.5 * max(cos, 0) of image and text embedding (Hessel et al. 2021, equation 1)."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self.name, self._model, self._processor = name, model, processor
        self._text: tuple[str, Any] = ("", None)

    @classmethod
    def open(cls, folder: Path) -> ClipScorer:
        """A model in a local folder, as transformers saves it; raises BackendError without transformers, ConfigError for no such model."""
        try:
            from transformers import CLIPModel, CLIPProcessor
        except ImportError as error:
            raise BackendError(
                "the CLIP scorer", f"no torch side: {error}", "install the export extra", ["costroute-rt[export]"]
            ) from error
        if not (folder / "config.json").is_file():
            raise ConfigError("scorer", f"clip:{folder}", "a folder with a CLIP model as transformers saves it")
        try:
            model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
            processor = CLIPProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
        except Exception as error:  # whatever transformers makes of damaged files
            reason = " ".join(str(error).split())[:200]
            raise ConfigError("scorer", f"clip:{folder}", f"a folder with a CLIP model as transformers saves it ({reason})") from error
        return cls(f"clip_{folder.resolve().name}", model, processor)

    def check(self, prompt: PromptRow) -> None:
        """Every prompt will do; what its text encoder cannot read is cut off."""

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """From 0 to 2.5."""
        import torch

        with torch.inference_mode():
            text = self._embed_text(prompt.prompt)
            inputs = self._processor(images=np.ascontiguousarray(pixels), return_tensors="pt", input_data_format="channels_last")
            image = self._model.get_image_features(**inputs)
            return 2.5 * max(float(torch.nn.functional.cosine_similarity(text, image).item()), 0.0)

    def _embed_text(self, text: str) -> Any:
        """Embedding of the text; kept, as one prompt comes several times in a row."""
        if self._text[0] != text or self._text[1] is None:
            inputs = self._processor(text=[text], return_tensors="pt", padding=True, truncation=True)
            self._text = text, self._model.get_text_features(**inputs)
        return self._text[1]

    def close(self) -> None:
        self._model = self._text = None  # type: ignore[assignment]


class FunctionScorer:
    """A function of the user's: function(pixels uint8[height, width, 3], prompt) -> number."""

    def __init__(self, name: str, function: Callable[[Pixels, str], float]) -> None:
        self.name, self._function = name, function

    @classmethod
    def open(cls, spec: str) -> FunctionScorer:
        """`module:function`, found as Python finds modules, the working folder first; raises ConfigError."""
        module, _, name = spec.partition(":")
        folder = os.getcwd()
        sys.path.insert(0, folder)
        try:
            function = getattr(importlib.import_module(module), name)
        except Exception as error:  # importing runs the user's code
            raise ConfigError("scorer", spec, f"{FORMS} ({type(error).__name__}: {error})") from error
        finally:
            sys.path.remove(folder)
        if not callable(function):
            raise ConfigError("scorer", spec, f"a function, and it is of type {type(function).__name__}")
        return cls(name, function)

    def check(self, prompt: PromptRow) -> None:
        """Every prompt will do."""

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """Whatever the function says."""
        return float(self._function(pixels, prompt.prompt))

    def close(self) -> None:
        """Nothing to release."""


def open_scorers(specs: Sequence[str], bundle: Bundle, home: Path | None = None) -> list[Scorer]:
    """The scorers of these names; what was opened is closed again where one cannot be. Raises ConfigError, BundleError, BackendError."""
    found: list[Scorer] = []
    try:
        for spec in specs:
            found.append(_open_scorer(spec, bundle, home))
        names = [scorer.name for scorer in found]
        if len(set(names)) < len(names):
            raise ConfigError("scorer", ", ".join(specs), f"names that differ, and these are {', '.join(names)}")
    except BaseException:
        for scorer in found:
            scorer.close()
        raise
    return found


def score_picture(scorer: Scorer, pixels: Pixels, prompt: PromptRow, *, table: Path, made_by: str) -> float:
    """A finite score; raises LabelError that names the scorer where it fails or gives none.

    made_by: the candidate and seed, for the message.
    """
    try:
        value = float(scorer.score(pixels, prompt))
    except CostrouteError:
        raise
    except Exception as error:  # the user's code
        problem = f"scorer {scorer.name} failed for {prompt.prompt_id!r} ({made_by}): {type(error).__name__}: {error}"
        raise LabelError(table, problem, "correct the scorer; rows so far are kept") from error
    if not np.isfinite(value):
        problem = f"scorer {scorer.name} gave {value} for {prompt.prompt_id!r} ({made_by}), which is no finite number"
        raise LabelError(table, problem, "correct the scorer; rows so far are kept")
    return value


def _open_scorer(spec: str, bundle: Bundle, home: Path | None) -> Scorer:
    if spec == "postcard":
        return PostcardScorer.open(bundle, home)
    if spec.startswith("clip:"):
        return ClipScorer.open(Path(spec.removeprefix("clip:")).expanduser())
    if all(part for part in spec.partition(":")):
        return FunctionScorer.open(spec)
    raise ConfigError("scorer", spec, FORMS)
