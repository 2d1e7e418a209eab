"""Opens a model in whatever form it has: a diffusers folder or a single file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.diffusers_folder import MODEL_INDEX, open_folder
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.export.checkpoint.source.prediction import check_prediction, with_prediction

_FORMS = "give a folder as diffusers' save_pretrained writes it, or a single .safetensors file"


def open_source(path: Path, *, allow_pickle: bool = False, prediction_type: str | None = None, variant: str | None = None) -> Source:
    """The model at `path`, identified and checked without loading weights and without torch.

    path: a folder as diffusers saves it.
    allow_pickle: also reads single files in torch's format (.ckpt); no code in them runs in either case.
    prediction_type: epsilon or v_prediction, where the files do not tell or are wrong.
    variant: of a folder's weight files, such as `fp16`; it is taken where it exists.
    Raises BundleError for what cannot be exported, with what to use instead, and ConfigError for a wrong argument.
    """
    check_prediction(prediction_type)
    if not path.exists():
        raise BundleError(path, "it does not exist", _FORMS)
    if not (path / MODEL_INDEX).exists():
        raise BundleError(path, f"it has no {MODEL_INDEX}", _FORMS)
    found = open_folder(path, variant=variant)
    return replace(found, scheduler=with_prediction(found.scheduler, prediction_type))
