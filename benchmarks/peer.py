"""Three programs that generate the same image from the same weights: costroute-rt, diffusers (torch) and optimum (ONNX Runtime)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scenario import log
from costroute_rt import Bundle, Runtime
from costroute_rt.engines.bundle.bundle import seal_bundle
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.sampling.noise import NoiseStream

Pixels = npt.NDArray[np.uint8]
NAME = "guided@{}"
"""Candidate names in a bundle made by `with_steps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The request that every program gets."""

    prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedImage:
    """One image and its time from the prompt to uint8 pixels in host memory."""

    pixels: Pixels
    """uint8[height, width, 3]"""
    total_ms: float
    stages: Mapping[str, float]
    """Milliseconds by stage; empty where the program does not report them."""


Peer = Callable[[Job], TimedImage]


def count_steps(count: int) -> str:
    """`1 step`, `4 steps`."""
    return f"{count} step" if count == 1 else f"{count} steps"


def psnr_db(image: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of two images in dB; 99 where they are equal."""
    error = float(np.mean((image.astype(np.float64) - other.astype(np.float64)) ** 2))
    return float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def open_ours(runtime: Runtime) -> Peer:
    """costroute-rt through its public interface."""

    def run(job: Job) -> TimedImage:
        started = time.perf_counter()
        result = runtime.generate(job.prompt, seed=job.seed, candidate=NAME.format(job.num_inference_steps))
        total_ms = (time.perf_counter() - started) * 1000
        spent = result.timings
        stages = {
            "tokenize": spent.tokenize_ms,
            "text": spent.text_ms,
            "denoise": sum(spent.denoise_ms),
            "decode": spent.decode_ms,
            "outside the stages": total_ms - spent.text_ms - sum(spent.denoise_ms) - spent.decode_ms - spent.swap_ms,
        }
        return TimedImage(pixels=result.pixels[0], total_ms=total_ms, stages=stages)

    return run


def open_diffusers(bundle: Bundle, threads: int) -> Peer:
    """The bundle's directory in diffusers' StableDiffusionPipeline, float32."""
    opt_out_hub()
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(
            bundle.root, torch_dtype=torch.float32, local_files_only=True, safety_checker=None, requires_safety_checker=False
        )
    return _from_pipeline(pipeline, bundle)


def open_optimum(bundle: Bundle, threads: int) -> Peer:
    """Optimum's export of the bundle's directory in its ORTStableDiffusionPipeline."""
    opt_out_hub()
    import onnxruntime
    from optimum.onnxruntime import ORTStableDiffusionPipeline

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = ORTStableDiffusionPipeline.from_pretrained(
            export_with_optimum(bundle), provider="CPUExecutionProvider", session_options=options, local_files_only=True
        )
    return _from_pipeline(pipeline, bundle)


def export_with_optimum(bundle: Bundle) -> Path:
    """The directory of optimum's export of this bundle, made once per bundle and version in the temporary directory."""
    from optimum.exporters.onnx import main_export

    inputs = f"{bundle.manifest_sha256} {version('optimum-onnx')} {version('diffusers')}"
    parent = Path(tempfile.gettempdir()) / "costroute-rt-benchmarks"
    target = parent / f"optimum-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"
    if target.is_dir():
        return target
    log(f"exporting with optimum to {target}")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main_export(
            str(link_diffusers_files(bundle, Path(folder) / "source")),
            Path(folder) / "export",
            task="text-to-image",
            library_name="diffusers",
            dtype="fp32",
            do_validation=False,
            local_files_only=True,
        )
        os.replace(Path(folder) / "export", target)
    return target


@contextmanager
def with_steps(bundle: Bundle, denoiser: str, steps: tuple[int, ...]) -> Iterator[Path]:
    """A temporary copy of the bundle whose pool is one guided denoiser with these numbers of steps; engines and costs are the same."""
    template = next((row for row in bundle.pool if row["denoiser"] == denoiser and row["guidance_scale"] > 1), None)
    if template is None:
        raise ValueError(f"no candidate of {bundle.family} runs {denoiser} with guidance")
    pool = [{**template, "name": NAME.format(count), "num_inference_steps": count} for count in steps]
    with tempfile.TemporaryDirectory(prefix="costroute-rt-", ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "bundle"
        for name in bundle.files:
            _link(bundle.path(name), root / name)
        quality = {"metric": "none", "candidates": {row["name"]: {"mean": 0.0, "standard_error": 0.0} for row in pool}}
        seal_bundle(root, {**_manifest(bundle), "pool": pool, "quality": quality, "router": None})
        yield root


def _manifest(bundle: Bundle) -> dict[str, Any]:
    sections = json.loads((bundle.root / "manifest.json").read_text(encoding="utf-8"))
    return {name: value for name, value in sections.items() if name not in ("format", "format_version", "files")}


def _from_pipeline(pipeline: Any, bundle: Bundle) -> Peer:
    """Times a diffusers-style pipeline up to uint8 pixels in host memory, from the same noise as ours."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    image = bundle.image
    shape = (image.latent_channels, image.height // image.vae_scale_factor, image.width // image.vae_scale_factor)

    def run(job: Job) -> TimedImage:
        noise = torch.from_numpy(NoiseStream([job.seed], shape).draw())
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = pipeline(
                job.prompt,
                num_inference_steps=job.num_inference_steps,
                guidance_scale=job.guidance_scale,
                height=image.height,
                width=image.width,
                latents=noise,
                output_type="np",
            ).images
        pixels = np.round(images[0] * 255).astype(np.uint8)
        return TimedImage(pixels=pixels, total_ms=(time.perf_counter() - started) * 1000, stages={})

    return run


def link_diffusers_files(bundle: Bundle, target: Path) -> Path:
    """Links the bundle's files, without ONNX graphs and scorer, into a plain diffusers directory."""
    for name in bundle.files:
        if not name.endswith(".onnx") and not name.startswith("scorer/"):
            _link(bundle.path(name), target / name)
    return target


def _link(source: Path, target: Path) -> None:
    """Makes a hard link, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
