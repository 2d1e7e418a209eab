"""A sentence encoder of the user, exported as a network and a tokenizer for a router.

Read from a folder as transformers or sentence-transformers saves it: config.json, model.safetensors, tokenizer.json and, optionally,
modules.json, sentence_bert_config.json and the settings of pooling. The text side of CLIP is accepted as well.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import explain_import
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.error import BundleError, ConfigError, CostrouteError
from costroute_rt.export.checkpoint.component import export_graph, write_weights
from costroute_rt.export.checkpoint.weight_file import check_places
from costroute_rt.export.graph.compose import compose_embedding, keep_outputs, save_graph
from costroute_rt.regular_file import find_link_out, read_regular
from costroute_rt.routing.prompt_encoder import TOKENIZER
from costroute_rt.routing.router_network import encoder_network

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
_MOST_JSON_BYTES = 1 << 20
_CLIP_TYPES = ("clip", "clip_text_model")
_OFFSET_TYPES = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Models whose position numbers start after the padding token's number."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The settings in the folder's JSON files."""

    transformer: Path
    """The folder with the network and the tokenizer."""
    pooling: str
    is_normalised: bool
    max_length: int | None
    """Tokens it reads; None if only the network limits them."""
    is_lowered: bool
    """Whether text is lower-cased first."""


def export_sentence_encoder(source: Path, target: Path) -> dict[str, Any]:
    """Writes the network's two files and its tokenizer into `target`; returns the settings for `EngineEncoder.open`.

    The weights are rounded to float16, like all weights of a bundle. Raises ConfigError, with the reason, if `source` has no usable
    encoder, and BackendError if torch and transformers are not installed.
    """
    _import_transformers()
    layout = read_layout(source)
    try:
        check_places(source, source)
    except BundleError as error:
        refuse(source, f"{error.path}: {error.problem}")
    try:
        module, tokenizer = _load(layout.transformer)
    except CostrouteError:
        raise
    except Exception as error:  # transformers raises many types for damaged or unknown files
        refuse(source, " ".join(str(error).split())[:200])
    if not tokenizer.is_fast or tokenizer.pad_token is None:
        refuse(source, "its tokenizer has no tokenizer.json, or no padding token")
    config = module.config
    read = int(config.max_position_embeddings) - (tokenizer.pad_token_id + 1 if config.model_type in _OFFSET_TYPES else 0)
    max_length = min(read, int(tokenizer.model_max_length), layout.max_length or read)
    _write_tokenizer(tokenizer, target / TOKENIZER, is_lowered=layout.is_lowered)
    width = _write_network(source, layout, module, target, filler=tokenizer.eos_token_id or 0)
    return {"name": source.resolve().name, "embedding_width": width, "max_length": max_length, "pad": str(tokenizer.pad_token)}


def read_layout(source: Path) -> Layout:
    """The folder's modules: a transformer, pooling and, optionally, normalisation; raises ConfigError for others."""
    if not (source / "modules.json").is_file():
        _read_json(source, "config.json")
        return Layout(source, "mean", False, None, False)
    transformer, pooling, is_normalised = source, "mean", False
    settings: dict[str, Any] = {}
    for module in _read_json(source, "modules.json", list):
        if not isinstance(module, dict):
            refuse(source, "its modules.json is not a list of modules")
        kind, path = str(module.get("type")).rpartition(".")[2], str(module.get("path", ""))
        if "\0" in path or find_link_out(source / path, source) is not None:
            refuse(source, f"its modules.json leads out of the folder, to {path}")
        if kind in ("Transformer", "CLIPModel"):
            transformer = source / path
            name = f"{path}/sentence_bert_config.json".lstrip("/")
            settings = _read_json(source, name) if (source / name).is_file() else {}
        elif kind == "Pooling":
            pooling = _read_pooling(source, _read_json(source, f"{path}/config.json"))
        elif kind == "Normalize":
            is_normalised = True
        else:
            refuse(source, f"its modules.json has a {kind}: Transformer, CLIPModel, Pooling and Normalize are known")
    return Layout(transformer, pooling, is_normalised, settings.get("max_seq_length"), bool(settings.get("do_lower_case")))


def refuse(source: Path, reason: str) -> NoReturn:
    """Raises ConfigError for a folder that is not usable."""
    raise ConfigError("encoder", str(source), f"states, hashed, or a folder with a sentence encoder as transformers saves it ({reason})")


def _read_pooling(source: Path, config: Mapping[str, Any]) -> str:
    chosen = [name for name, is_used in config.items() if name.startswith("pooling_mode_") and is_used is True]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        refuse(source, f"its pooling is {', '.join(chosen) or 'unknown'}: one of {', '.join(_POOLINGS)} is known")
    return _POOLINGS[chosen[0]]


def _read_json(source: Path, name: str, kind: type = dict) -> Any:
    try:
        value = json.loads(read_regular(source / name, _MOST_JSON_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        refuse(source, f"{name}: {getattr(error, 'strerror', None) or error}")
    if not isinstance(value, kind):
        refuse(source, f"{name} does not hold {'a list' if kind is list else 'an object'}")
    return value


def _import_transformers() -> None:
    opt_out_hub()
    try:
        import optimum.exporters.onnx  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise explain_import(error, "the torch side, for a sentence encoder", Fix.extra("export")) from error


def _load(folder: Path) -> tuple[Any, Any]:
    """The module in float32, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection

    how = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **how)
    kind = AutoModel
    if config.model_type in _CLIP_TYPES:
        kind = CLIPTextModel if config.architectures == ["CLIPTextModel"] else CLIPTextModelWithProjection
    module, found = kind.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **how)
    missing = [name for name in found["missing_keys"] if not name.startswith("pooler.")]
    if missing or getattr(module.config, "is_encoder_decoder", False):
        raise ValueError(f"it lacks {', '.join(sorted(missing)[:3])}" if missing else "it is an encoder and a decoder")
    if isinstance(getattr(module, "pooler", None), torch.nn.Module):
        module.pooler = None  # another head, which is not used
    return module.eval(), AutoTokenizer.from_pretrained(folder, **how)


def _write_tokenizer(tokenizer: Any, path: Path, *, is_lowered: bool) -> None:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Lowercase, Sequence

    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inner.no_truncation()
    inner.no_padding()
    if is_lowered:
        inner.normalizer = Sequence([Lowercase(), *([inner.normalizer] if inner.normalizer is not None else [])])
    inner.save(str(path))


def _write_network(source: Path, layout: Layout, module: Any, target: Path, *, filler: int) -> int:
    """Returns the width of the embedding."""
    is_clip = module.config.model_type in _CLIP_TYPES
    names = encoder_network(1)
    weights = target / names.weights
    write_weights(module, weights)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        try:
            model = export_graph(module, _onnx_config(module), weights, Path(scratch))
        except (KeyError, ValueError, NotImplementedError) as error:
            refuse(source, f"a {module.config.model_type} cannot be exported: {' '.join(str(error).split())[:200]}")
    outputs = graph_spec(model).outputs
    chosen = next(name for name in ("text_embeds", "pooler_output", "last_hidden_state") if name in outputs)
    keep_outputs(model, [chosen])
    composed = compose_embedding(model, pooling=None if is_clip else layout.pooling, is_normalised=layout.is_normalised, filler=filler)
    save_graph(composed, target / names.file)
    sizes = module.config
    return int(sizes.projection_dim if chosen == "text_embeds" else sizes.hidden_size)


def _onnx_config(module: Any) -> Any:
    """Optimum's description of the module's inputs and outputs."""
    import optimum.exporters.onnx.model_configs as configs
    from optimum.exporters.tasks import TasksManager

    if module.config.model_type in _CLIP_TYPES:
        has_projection = hasattr(module, "text_projection")
        kind = configs.CLIPTextWithProjectionOnnxConfig if has_projection else configs.CLIPTextOnnxConfig
        return kind(module.config, task="feature-extraction")
    make = TasksManager.get_exporter_config_constructor("onnx", module, task="feature-extraction", library_name="transformers")
    return make(module.config)
