"""The graphs of a bundle for one network of a model, made without loading its weights."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from costroute_rt.engines.bundle.manifest import IMAGE_SIZE, GraphSpec
from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.latent import latent_scaling
from costroute_rt.export.checkpoint.source.network import Network, Source

if TYPE_CHECKING:
    from onnx import ModelProto

_log = logging.getLogger(__name__)

_JOINT = "text_encoder_2"


def make_graphs(
    source: Source,
    name: str,
    uses: Iterable[str],
    *,
    has_memory: bool = False,
    rescales: bool = False,
    clip_skip: int = 0,
    checks: bool = True,
) -> dict[str, ModelProto]:
    """The graphs of one network, by use: encode (text encoder or VAE), condition, step, guided_step, decode.

    Its weight files lie in the folder in which the graphs will be saved, and in no other: the graphs refer to them by their names.
    source: the model. name: the network's folder. uses: which graphs; `condition` is left out if nothing depends on the text alone.
    has_memory: whether the steps carry one more latent. rescales: whether `guided_step` takes `guidance_rescale`.
    clip_skip: last layers of the text encoders that are left out.
    checks: compare each network's graph with torch (takes seconds, and ten for a full-size SDXL denoiser).
    Raises BundleError for a network that cannot be exported, and for weights that give other values than finite ones.
    """
    network = source.networks[name]
    if network.class_name == "UNet2DConditionModel":
        return _denoiser(source, network, set(uses), has_memory=has_memory, rescales=rescales, checks=checks)
    if network.class_name in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        return _text_encoder(source, network, clip_skip, checks=checks)
    if network.class_name in ("AutoencoderKL", "AutoencoderTiny"):
        return _autoencoder(network, set(uses), checks=checks)
    raise BundleError(source.path, f"its {name} is a {network.class_name}", "use a Stable Diffusion 1.x, 2.x or XL model")


def text_outputs(source: Source, name: str) -> tuple[str, ...]:
    """The outputs of a text encoder's graph: those that the model's denoiser takes."""
    if _JOINT not in source.networks:
        return ("last_hidden_state",)
    return ("penultimate", "pooled") if name == _JOINT else ("penultimate",)


def conditioning_sources(source: Source) -> dict[str, str]:
    """For each conditioning input of the denoiser's graph, its name in the runtime."""
    if _JOINT not in source.networks:
        return {"encoder_hidden_states": "text_encoder.last_hidden_state"}
    return {
        "encoder_hidden_states": "text_encoder.penultimate",
        "encoder_hidden_states_2": f"{_JOINT}.penultimate",
        "text_embeds": f"{_JOINT}.pooled",
        IMAGE_SIZE: IMAGE_SIZE,
    }


def _denoiser(source: Source, network: Network, uses: set[str], *, has_memory: bool, rescales: bool, checks: bool) -> dict[str, ModelProto]:
    from diffusers import UNet2DConditionModel

    from costroute_rt.export.families import unet
    from costroute_rt.export.graph.compose import compose_condition, compose_guided_step, compose_step
    from costroute_rt.export.graph.condition import find_crossing

    config = _full_config(UNet2DConditionModel, network)
    encoders = [name for name in ("text_encoder", _JOINT) if name in source.networks]
    spec = unet.make_spec(config, [int(source.networks[name].config["hidden_size"]) for name in encoders])
    make = _maker(UNet2DConditionModel.from_config, network, dict(network.config))
    model = _export(network, spec, make, lambda module: unet.Denoiser(module, tuple(spec.inputs)), unet.run_network, checks=checks)
    names, crossing = conditioning_sources(source), find_crossing(model)
    graphs = {}
    if "condition" in uses and crossing:
        graphs["condition"] = compose_condition(model, crossing, names)
    guided = partial(compose_guided_step, rescale=rescales)
    for use, compose in (("step", compose_step), ("guided_step", guided)):
        if use in uses:
            graphs[use] = compose(model, names, crossing if "condition" in graphs else {}, memory=has_memory)
    return graphs


def _text_encoder(source: Source, network: Network, clip_skip: int, *, checks: bool) -> dict[str, ModelProto]:
    import transformers

    from costroute_rt.export.families import clip_text

    settings = transformers.CLIPTextConfig(**network.config)
    outputs = text_outputs(source, network.name)
    if not 0 <= clip_skip <= settings.num_hidden_layers - 2:
        problem = f"{network.name} has {settings.num_hidden_layers} layers, of which clip skip {clip_skip} leaves too few"
        raise BundleError(source.path, problem, "use a smaller clip skip")
    spec = clip_text.make_spec(settings.to_dict(), outputs)

    make = _maker(getattr(transformers, network.class_name), network, settings)
    model = _export(
        network,
        spec,
        make,
        lambda module: clip_text.TextEncoder(module, outputs, clip_skip),
        lambda module, given: clip_text.run_network(module, given, outputs, clip_skip),
        checks=checks,
    )
    return {"encode": model}


def _autoencoder(network: Network, uses: set[str], *, checks: bool) -> dict[str, ModelProto]:
    import diffusers

    from costroute_rt.export.families import autoencoder
    from costroute_rt.export.graph.compose import compose_decode, compose_encode

    kind = getattr(diffusers, network.class_name)
    config, make = _full_config(kind, network), _maker(kind.from_config, network, dict(network.config))
    scale, shift = latent_scaling(config)
    graphs = {}
    if "decode" in uses:
        spec = autoencoder.decoder_spec(config)
        model = _export(network, spec, make, autoencoder.Decoder, autoencoder.run_decoder, checks=checks)
        graphs["decode"] = compose_decode(model, scale=scale, shift=shift)
    if "encode" in uses:
        spec = autoencoder.encoder_spec(config)
        model = _export(network, spec, make, autoencoder.Encoder, autoencoder.run_encoder, checks=checks)
        graphs["encode"] = compose_encode(model, scale=scale, shift=shift)
    return graphs


def _export(
    network: Network,
    spec: GraphSpec,
    make: Callable[[], Any],
    wrap: Callable[[Any], Any],
    run: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]],
    *,
    checks: bool,
) -> ModelProto:
    """One graph, with its weights pointed at; make: builds the network; wrap: prepares it for the export; run: runs it unprepared."""
    from costroute_rt.export.graph.weightless import export_weightless
    from costroute_rt.export.network.parity import check_parity
    from costroute_rt.export.network.region import point_weights

    model = export_weightless(lambda: wrap(make()), spec)
    point_weights(model, network, {file: file.name for file in network.files()})
    if checks:
        parity = check_parity(model, spec, network, make, run)
        _log.info("%s: the graph's %s is within %.1g standard deviations of torch's", network.name, parity.output, parity.error)
    return model


def _full_config(kind: Any, network: Network) -> dict[str, Any]:
    """The settings of a network of diffusers, with the class's own for what is not given."""
    own = {name: each.default for name, each in inspect.signature(kind.__init__).parameters.items() if each.default is not each.empty}
    return {**own, **network.config}


def _maker(make: Callable[[Any], Any], network: Network, settings: Any) -> Callable[[], Any]:
    """Builds the network from its settings; raises BundleError for settings that its class refuses."""

    def build() -> Any:
        try:
            return make(settings)
        except Exception as error:  # of any class, from deep inside diffusers and transformers
            problem = f"{network.name} cannot be built from its settings: {type(error).__name__}: {shorten(str(error))}"
            raise BundleError(next(iter(network.files())), problem, "correct its config.json") from error

    return build
