"""Scorers by CLIP models in local folders: CLIPScore, PickScore, HPSv2, and a head that rates how an image looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import explain_import
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.router.prompts import PromptRow

Pixels = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
FORMULAS: Mapping[str, Callable[[float, float], float]] = {
    "clip": lambda cosine, scale: 2.5 * max(cosine, 0.0),
    "pickscore": lambda cosine, scale: scale * cosine,
    "hps": lambda cosine, scale: cosine,
}
"""Scores from the cosine of image and text embedding, and the model's logit scale.

clip: CLIPScore without its prompt prefix (Hessel et al. 2021, equation 1). pickscore: Kirstain et al. 2023, section 3. hps: HPSv2 (Wu et
al. 2023), as its package computes it.
"""
_HEAD_LAYERS = "a linear layer, or linear layers one after the other, with one number at the end"
_MOST_HEAD_BYTES = 64 << 20


class ClipModel:
    """A CLIP model with its processor, loaded from a folder as transformers saves it."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        self._text: tuple[str, Any] = ("", None)

    @classmethod
    def open(cls, folder: Path, spec: str) -> ClipModel:
        """Raises BackendError without transformers, and ConfigError, naming the scorer `spec`, for other folders."""
        opt_out_hub()
        try:
            from transformers import CLIPModel, CLIPProcessor
        except ImportError as error:
            raise explain_import(error, "the torch side, for the CLIP scorer", Fix.extra("export")) from error
        if not (folder / "config.json").is_file():
            raise ConfigError("scorer", spec, "a folder with a CLIP model as transformers saves it")
        try:
            is_safe = any(folder.glob("*.safetensors"))  # safetensors first; torch's files hold code, which weights_only refuses
            model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=is_safe, weights_only=True).eval()
            processor = CLIPProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
        except Exception as error:  # transformers raises many types for damaged files
            reason = " ".join(str(error).split())[:200]
            raise ConfigError("scorer", spec, f"a folder with a CLIP model as transformers saves it ({reason})") from error
        return cls(model, processor)

    @property
    def width(self) -> int:
        """Length of its embeddings."""
        return int(self._model.config.projection_dim)

    @property
    def logit_scale(self) -> float:
        """What it multiplies cosines with."""
        return math.exp(self._model.logit_scale.item())

    def embed_image(self, pixels: Pixels) -> FloatArray:
        """float32[width], of length 1."""
        import torch

        with torch.inference_mode():
            inputs = self._processor(images=np.ascontiguousarray(pixels), return_tensors="pt", input_data_format="channels_last")
            return _unit(self._model.get_image_features(**inputs))

    def embed_text(self, text: str) -> FloatArray:
        """float32[width], of length 1; kept for the next images of the same prompt."""
        import torch

        if self._text[0] != text or self._text[1] is None:
            with torch.inference_mode():
                inputs = self._processor(text=[text], return_tensors="pt", padding=True, truncation=True)
                self._text = text, _unit(self._model.get_text_features(**inputs))
        return self._text[1]


class ClipScorer:
    """A score from the cosine of the image's and the prompt's embedding, by one of `FORMULAS`; higher is better."""

    def __init__(self, name: str, model: ClipModel, kind: str = "clip") -> None:
        self.name, self._model, self._formula = name, model, FORMULAS[kind]
        self._scale = model.logit_scale

    @classmethod
    def open(cls, folder: Path, kind: str = "clip") -> ClipScorer:
        """kind: one of `FORMULAS`. Raises as `ClipModel.open`."""
        return cls(f"{kind}_{folder.resolve().name}", ClipModel.open(folder, f"{kind}:{folder}"), kind)

    def check(self, prompt: PromptRow) -> None:
        """Every prompt can be scored; long ones are truncated."""

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """The formula's value: clip 0 to 2.5, pickscore about 20, hps about 0.25."""
        return self._formula(float(self._model.embed_text(prompt.prompt) @ self._model.embed_image(pixels)), self._scale)

    def close(self) -> None:
        self._model = None  # type: ignore[assignment]


class AestheticScorer:
    """How an image looks, whatever its prompt, by a head on CLIP's image embedding (LAION's aesthetic predictors); about 1 to 10."""

    def __init__(self, name: str, model: ClipModel, head: list[tuple[FloatArray, FloatArray]]) -> None:
        """head: weight float32[out, in] and bias float32[out] of each layer, in order."""
        self.name, self._model, self._head = name, model, head

    @classmethod
    def open(cls, spec: str) -> AestheticScorer:
        """spec: FOLDER,HEAD.safetensors; a head alone stands in the folder as aesthetic.safetensors. Raises as `ClipModel.open`."""
        folder, _, file = spec.rpartition(",") if spec.endswith(".safetensors") else (spec, "", "")
        root = Path(folder).expanduser()
        path = Path(file).expanduser() if file else root / "aesthetic.safetensors"
        head = _read_head(path)
        model = ClipModel.open(root, f"aesthetic:{spec}")
        if head[0][0].shape[1] != model.width:
            found = f"its first layer takes {head[0][0].shape[1]} numbers, the model in {root} gives {model.width}"
            raise ConfigError("scorer", f"aesthetic:{spec}", f"a head for this CLIP model ({found})")
        return cls(f"aesthetic_{path.stem}", model, head)

    def check(self, prompt: PromptRow) -> None:
        """Every prompt can be scored."""

    def score(self, pixels: Pixels, prompt: PromptRow) -> float:
        """The head's value."""
        values = self._model.embed_image(pixels)
        for weight, bias in self._head:
            values = weight @ values + bias
        return float(values[0])

    def close(self) -> None:
        self._model = None  # type: ignore[assignment]


def _read_head(path: Path) -> list[tuple[FloatArray, FloatArray]]:
    """The layers of a head, by the numbers in their names (`layers.0.weight`); between them there is only dropout.

    Raises ConfigError for other files.
    """
    from safetensors import safe_open

    try:
        stored = read_stored_tensors(path)
        if sum(tensor.length for tensor in stored.values()) > _MOST_HEAD_BYTES:
            raise ConfigError("scorer", str(path), f"{_HEAD_LAYERS}, of {_MOST_HEAD_BYTES >> 20} MiB at most")
        with safe_open(path, framework="numpy") as file:
            values = {name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in stored}
    except (BundleError, OSError, TypeError, ValueError) as error:
        raise ConfigError("scorer", str(path), f"a safetensors file with {_HEAD_LAYERS} ({error})") from error
    names = sorted((name.removesuffix("weight") for name in values if name.endswith("weight")), key=_layer_number)
    layers = [(values[f"{name}weight"], values.get(f"{name}bias", np.zeros(len(values[f"{name}weight"]), np.float32))) for name in names]
    if not layers or not _is_chain(layers) or not all(np.isfinite(array).all() for layer in layers for array in layer):
        raise ConfigError("scorer", str(path), f"a safetensors file with {_HEAD_LAYERS}")
    return layers


def _layer_number(name: str) -> int:
    numbers = [int(part) for part in name.split(".") if part.isascii() and part.isdigit() and len(part) < 6]
    return numbers[-1] if numbers else 0


def _is_chain(layers: list[tuple[FloatArray, FloatArray]]) -> bool:
    """Whether each layer takes what the one before gives, and the last gives one number."""
    fits = all(weight.ndim == 2 and bias.shape == weight.shape[:1] for weight, bias in layers)
    return fits and all(after[0].shape[1] == len(before[0]) for before, after in pairwise(layers)) and len(layers[-1][0]) == 1


def _unit(embedding: Any) -> FloatArray:
    values = np.asarray(embedding[0].float().numpy(), dtype=np.float32)
    return values / max(float(np.linalg.norm(values)), 1e-12)
