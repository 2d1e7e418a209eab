"""diffusers' pipelines with our noise."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.parity.case import Case, draw_image, draw_mask
from benchmarks.parity.checkpoint import LORA_SCALE, WORD
from benchmarks.parity.formula import Ancestral2S, BrownianPath, FiniteUniPC, sde_third_order
from benchmarks.parity.model import Model, Settings
from benchmarks.parity.prompt_rule import encode_pair
from costroute_rt.sampling.noise import NoiseStream

Pixels = npt.NDArray[np.uint8]
_FACTOR = 8


class Peer:
    """One model in diffusers, float32."""

    def __init__(
        self, model: Model, checkpoint: Path, *, lora: Path | None = None, word: Path | None = None, tiny: Path | None = None
    ) -> None:
        import diffusers
        import torch
        import transformers

        diffusers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.set_verbosity_error()
        transformers.utils.logging.set_verbosity_error()
        torch.set_num_threads(1)  # networks this small are slower with more
        self._model = model
        pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        if lora is not None:
            _fuse(pipeline, lora)
        if word is not None:
            _load_word(pipeline, model, word)
        self._own, self._vae = pipeline, pipeline.vae
        self._plain = pipeline
        if isinstance(pipeline, diffusers.LatentConsistencyModelPipeline):  # which takes no other scheduler
            parts = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
            self._plain = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
            self._plain.set_progress_bar_config(disable=True)
        self._tiny = None if tiny is None else diffusers.AutoencoderTiny.from_pretrained(tiny)

    def run(self, case: Case, seed: int) -> Pixels:
        """uint8[height, width, 3]; raises what diffusers raises."""
        import torch

        pipeline = self._pipeline(case)
        pipeline.vae = self._tiny if case.is_tiny else self._vae
        noise = NoiseStream([seed], (4, case.size[0] // _FACTOR, case.size[1] // _FACTOR))
        start = torch.from_numpy(noise.draw())
        pipeline.scheduler = _make_scheduler(case)
        arguments = self._prompt(pipeline, case) | _steps(case, pipeline.scheduler)
        arguments |= _image(case) if case.has_image else {"latents": start}
        if not case.has_image or case.has_mask:
            arguments |= {"height": case.size[0], "width": case.size[1]}
        if self._model.guidance_rescale:
            arguments["guidance_rescale"] = self._model.guidance_rescale
        eta = case.scheduler.eta if case.scheduler.name else case.model.eta
        if eta is not None:
            arguments["eta"] = eta
        with _noise_of(pipeline, noise, start):
            images = pipeline(**arguments, guidance_scale=self._model.guidance_scale, output_type="np").images
        pixels = np.asarray(np.round(images[0] * 255), dtype=np.uint8)
        return np.where(draw_mask(case.size)[:, :, None], pixels, draw_image(case.size)) if case.has_mask else pixels

    def _pipeline(self, case: Case) -> Any:
        """The pipeline for the task, with the parts of the model's own."""
        import diffusers

        if not case.has_image:
            return self._plain if case.scheduler.name else self._own
        name = "StableDiffusionXL" if self._model.family == "sdxl" else "StableDiffusion"
        task = getattr(diffusers, f"{name}{'Inpaint' if case.has_mask else 'Img2Img'}Pipeline")
        own = {} if self._model.family == "sdxl" else {"requires_safety_checker": False}
        pipeline = task(**self._plain.components, **own)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _prompt(self, pipeline: Any, case: Case) -> Settings:
        """The texts as they are, or by AUTOMATIC1111's rule as embeddings; and what is left out of the last layers."""
        prompt, skip = case.prompt, self._model.clip_skip
        if prompt.pieces is None and not skip:
            return {"prompt": prompt.text} | ({} if prompt.negative is None else {"negative_prompt": prompt.negative})
        pieces = tuple((_converted(pipeline, text), weight) for text, weight in prompt.pieces or ((prompt.text, 1.0),))
        positive, negative = encode_pair(pipeline, pieces, prompt.negative_pieces, clip_skip=skip)
        found: Settings = {"prompt_embeds": positive.states}
        is_xl = self._model.family == "sdxl"
        found |= {"pooled_prompt_embeds": positive.pooled} if is_xl else {}
        if self._model.is_guided and not (is_xl and prompt.negative is None):  # where SDXL takes zeros
            found |= {"negative_prompt_embeds": negative.states} | ({"negative_pooled_prompt_embeds": negative.pooled} if is_xl else {})
        return found


def _converted(pipeline: Any, text: str) -> str:
    """The text with all tokens of a learned word."""
    return str(pipeline.maybe_convert_prompt(text, pipeline.tokenizer)) if hasattr(pipeline, "maybe_convert_prompt") else text


def _fuse(pipeline: Any, lora: Path) -> None:
    """Fuse a LoRA; raises ValueError if it leaves the denoiser or a text encoder as it was, which would prove nothing."""
    networks = [pipeline.unet, pipeline.text_encoder, *([pipeline.text_encoder_2] if hasattr(pipeline, "text_encoder_2") else [])]
    before = [_magnitude(network) for network in networks]
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    pipeline.fuse_lora(lora_scale=LORA_SCALE)
    pipeline.unload_lora_weights()
    if any(_magnitude(network) == former for network, former in zip(networks, before, strict=True)):
        raise ValueError(f"{lora.name} changes nothing")


def _magnitude(network: Any) -> float:
    return sum(float(parameter.detach().abs().sum()) for parameter in network.parameters())


def _load_word(pipeline: Any, model: Model, path: Path) -> None:
    from safetensors.torch import load_file

    vectors = load_file(path)
    if model.family != "sdxl":
        pipeline.load_textual_inversion(vectors, token=WORD)
        return
    for name, tail in (("clip_l", ""), ("clip_g", "_2")):
        encoder, tokenizer = getattr(pipeline, f"text_encoder{tail}"), getattr(pipeline, f"tokenizer{tail}")
        pipeline.load_textual_inversion(vectors[name], token=WORD, text_encoder=encoder, tokenizer=tokenizer)


def _settings(case: Case) -> Settings:
    """Of the scheduler in diffusers."""
    model, scheduler = case.model, case.scheduler
    own = scheduler.theirs if scheduler.name else model.own
    spacing = {"timestep_spacing": "trailing"} if case.begins_at_the_top else {}
    return {"timestep_spacing": "linspace" if scheduler.levels else model.spacing} | own | spacing | model.training


def _make_scheduler(case: Case) -> Any:
    import diffusers

    settings = _settings(case)
    if case.scheduler.name.startswith("DPM++ 2S a"):
        base = diffusers.EulerDiscreteScheduler(**{key: value for key, value in settings.items() if key != "_class_name"})
        return Ancestral2S(base)
    if settings["_class_name"] == "DPMSolverSDEScheduler":
        sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
        from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

        return DPMSolverSDEScheduler(**{key: value for key, value in settings.items() if key != "_class_name"})
    scheduler_class = getattr(diffusers, settings.pop("_class_name"))
    if settings.get("solver_order") == 3 and settings.get("algorithm_type") == "sde-dpmsolver++":
        corrected = {"multistep_dpm_solver_third_order_update": sde_third_order}
        scheduler_class = type(scheduler_class.__name__, (scheduler_class,), corrected)
    if settings.get("solver_type") == "bh1":
        scheduler_class = type(scheduler_class.__name__, (FiniteUniPC, scheduler_class), {})
    return scheduler_class.from_config(settings)


def explain_refusal(case: Case) -> str | None:
    """Why diffusers cannot run this case, if a class of it ignores a setting of the model; None if it can."""
    import diffusers

    settings = _settings(case)
    if not case.model.scheduler.get("rescale_betas_zero_snr"):
        return None
    if case.has_image and case.model.guidance_rescale:
        return "diffusers' pipelines for images and masks have no guidance_rescale"
    if "_class_name" not in settings:
        return "diffusers has no such scheduler"
    name = settings["_class_name"]
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return None if "rescale_betas_zero_snr" in parameters else f"diffusers' {name} ignores zero terminal SNR"


def _steps(case: Case, scheduler: Any) -> Settings:
    """The number of steps, or noise levels or timesteps where diffusers takes these instead."""
    if not case.scheduler.name and case.model.timesteps:
        return {"timesteps": list(case.model.timesteps[case.steps])}
    if case.scheduler.levels is None:
        return {"num_inference_steps": case.steps}
    signal = scheduler.alphas_cumprod.double().numpy()
    return {"sigmas": list(case.scheduler.levels(np.sqrt((1 - signal) / signal), case.steps))}


def _image(case: Case) -> Settings:
    """The image that the run begins at, and the mask, where the pipeline takes them."""
    from PIL import Image

    found: Settings = {"image": Image.fromarray(draw_image(case.size)), "strength": case.strength}
    return found | ({"mask_image": Image.fromarray(draw_mask(case.size))} if case.has_mask else {})


@contextmanager
def _noise_of(pipeline: Any, noise: NoiseStream, start: Any) -> Iterator[None]:
    """While the block runs, pipelines start from `start`, schedulers draw the stream's next noise, and VAE encoders return their mean."""
    import torch
    from diffusers.models.autoencoders import vae

    def draw(*_: Any, **__: Any) -> Any:
        return torch.from_numpy(noise.draw())

    scheduler = pipeline.scheduler
    if isinstance(scheduler, Ancestral2S):
        scheduler.draw = draw
    if type(scheduler).__name__ == "DPMSolverSDEScheduler":
        _follow(scheduler, BrownianPath(draw))
    with ExitStack() as stack:
        stack.enter_context(_replaced(_module_of(scheduler), draw))
        stack.enter_context(_replaced(sys.modules[type(pipeline).__module__], lambda *_, **__: start))
        stack.enter_context(_replaced(vae, lambda shape, **__: torch.zeros(shape)))
        yield


def _follow(scheduler: Any, path: BrownianPath) -> None:
    """Give the scheduler a path in place of the tree that it makes when its timesteps are set.

    Images that are put back between the two calls of a step get the noise of the latent there, not that of the next step.
    """
    set_original, add_original = scheduler.set_timesteps, scheduler.add_noise

    def set_timesteps(*args: Any, **settings: Any) -> None:
        set_original(*args, **settings)
        scheduler.noise_sampler = path

    def add_noise(image: Any, noise: Any, timesteps: Any) -> Any:
        middle = scheduler.mid_point_sigma
        return add_original(image, noise, timesteps) if middle is None else image + noise * middle

    scheduler.set_timesteps, scheduler.add_noise = set_timesteps, add_noise


@contextmanager
def _replaced(module: Any, draw: Callable[..., Any]) -> Iterator[None]:
    former: Callable[..., Any] | None = getattr(module, "randn_tensor", None)
    module.randn_tensor = draw
    try:
        yield
    finally:
        if former is not None:
            module.randn_tensor = former


def _module_of(scheduler: Any) -> Any:
    names = [each.__module__ for each in type(scheduler).__mro__ if each.__module__.startswith("diffusers.schedulers.")]
    return sys.modules[names[0]] if names else types.SimpleNamespace()
