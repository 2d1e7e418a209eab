"""Environments of Python in which the other programs run, and their own forms of a model, each made once."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.process import run_process
from benchmarks.scenario import log

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "diffusers": ("torch", "diffusers", "transformers", "accelerate"),
    "optimum": ("torch", "optimum-onnx[onnxruntime]", "transformers<5", "diffusers", "accelerate"),
    "genai": ("torch", "openvino-genai", "openvino-tokenizers", "optimum-intel[openvino]", "diffusers", "accelerate"),
    "stable-diffusion.cpp": ("stable-diffusion-cpp-python",),
}
"""What each environment has, in the newest versions that go together; torch is taken in the version that is installed here. The last is
compiled, which needs CMake and a C++ compiler."""
_EXPORTS: Mapping[str, tuple[str, ...]] = {"optimum": ("onnx",), "genai": ("openvino", "--weight-format", "fp16")}
"""Words after `optimum-cli export`; diffusers reads the folder itself."""
_EULER: Mapping[str, object] = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon"}
_OF_EULER = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "steps_offset")


def make_environment(name: str, work: Path) -> str:
    """The Python interpreter of an environment in `work`."""
    folder = work / "environments" / name
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        log(f"installing {', '.join(PACKAGES[name])} into {folder}")
        run_process([sys.executable, "-m", "venv", "--clear", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet"]
        if "torch" in PACKAGES[name]:
            run_process([*install, _torch()])  # first: other versions may be builds for another device
        run_process([*install, *PACKAGES[name]])
        if "torch" in PACKAGES[name]:
            _remove_broken(python)
        finished.touch()
    return str(python)


def _remove_broken(python: Path) -> None:
    """Remove torchvision, which nothing here uses, where it was built for another torch: transformers fails with it, not without."""
    try:
        run_process([str(python), "-c", "import torchvision"])
    except RuntimeError:
        run_process([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"])


def _torch() -> str:
    try:
        return f"torch=={version('torch').partition('+')[0]}"
    except PackageNotFoundError:
        return "torch"


def make_form(name: str, python: str, model: Path, work: Path) -> Path:
    """The model as the programs of an environment read it. Exports have weights as stored, in float16, where the program takes them so.

    python: of that environment.
    """
    if name not in _EXPORTS:
        return model
    target = work / f"{model.name}-{name}"
    if not (target / "model_index.json").exists():
        log(f"exporting {model.name} for {name}")
        shutil.rmtree(target, ignore_errors=True)
        part = target.with_suffix(".part")
        kind, *options = _EXPORTS[name]
        command = [str(Path(python).with_name("optimum-cli")), "export", kind, "--model", str(model), "--task", "text-to-image"]
        run_process([*command, *options, str(part)], {**os.environ, "HF_HUB_OFFLINE": "1"})
        if name == "genai":
            _use_euler(part / "scheduler" / "scheduler_config.json")
        part.rename(target)
    return target


def _use_euler(config: Path) -> None:
    """Change the scheduler to Euler's: OpenVINO GenAI has no DPM-Solver, and cannot read a file with `Infinity`.

    As many steps take as long; the images of a model that predicts something else than the noise are wrong.
    """
    known = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**{name: known[name] for name in _OF_EULER if name in known}, **_EULER}), encoding="utf-8")


def versions(python: str) -> dict[str, str]:
    """Versions of what the environment has, by package."""
    lines = run_process([python, "-m", "pip", "freeze"]).stdout.splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)
