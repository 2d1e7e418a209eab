"""The programs that make the same images, their settings, and what each needs before it can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.process import run_process
from benchmarks.scenario import log

_FILES = Path(__file__).parent / "programs"
_GENAI_PACKAGES = ("openvino-genai", "openvino-tokenizers", "optimum-intel[openvino]", "diffusers", "accelerate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One way to make images."""

    file: str
    """In programs/, without its suffix."""
    precision: str
    """What it computes in: only programs of equal precision are compared."""
    settings: Mapping[str, Any]

    @property
    def is_ours(self) -> bool:
        return self.file == "ours"


def _ours(backend: str, precision: str) -> Program:
    return Program(file="ours", precision=precision, settings={"backend": backend, "precision": precision})


def _diffusers(precision: str, *, compiled: bool = False) -> Program:
    return Program(file="with_diffusers", precision=precision, settings={"dtype": precision, "compile": compiled})


def _genai(precision: str, hint: str) -> Program:
    return Program(file="with_openvino_genai", precision=precision, settings={"precision": hint})


PROGRAMS: Mapping[str, Program] = {
    "onnxruntime float32": _ours("onnxruntime", "float32"),
    "openvino float32": _ours("openvino", "float32"),
    "openvino bfloat16": _ours("openvino", "bfloat16"),
    "diffusers float32": _diffusers("float32"),
    "diffusers float32 compiled": _diffusers("float32", compiled=True),
    "diffusers bfloat16": _diffusers("bfloat16"),
    "diffusers bfloat16 compiled": _diffusers("bfloat16", compiled=True),
    "OpenVINO GenAI float32": _genai("float32", "f32"),
    "OpenVINO GenAI bfloat16": _genai("bfloat16", "bf16"),
}
"""The first three are costroute-rt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that ended well."""

    output: str
    seconds: float
    cpu_s: float
    peak_bytes: int
    """Largest resident memory."""


def run_watched(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
    """Waits for the end of a process; raises RuntimeError with its exit code and the last line of its stderr where it fails."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=None if environment is None else dict(environment))
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        output.seek(0)
        errors.seek(0)
        if child.returncode:
            said = errors.read().strip() or "nothing on stderr"
            raise RuntimeError(f"exit code {child.returncode}: {said.splitlines()[-1]}")
        unit = 1 if sys.platform == "darwin" else 1024
        cpu_s = usage.ru_utime + usage.ru_stime
        return Finished(output=output.read(), seconds=seconds, cpu_s=cpu_s, peak_bytes=usage.ru_maxrss * unit)


def run_program(python: str, program: Program, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Finished]:
    """What a program prints after its images, and its process."""
    asked = {**program.settings, **settings, "started": time.time()}
    done = run_watched([python, str(_FILES / f"{program.file}.py"), json.dumps(asked)])
    return json.loads(done.output.splitlines()[-1]), done


def make_genai_environment(folder: Path) -> str:
    """The Python interpreter of an environment with OpenVINO GenAI and optimum-intel, made once."""
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        log(f"installing OpenVINO GenAI into {folder}")
        run_process([sys.executable, "-m", "venv", "--clear", str(folder)])
        torch = next(line for line in _installed() if line.startswith("torch=="))
        run_process([str(python), "-m", "pip", "install", "--quiet", torch, *_GENAI_PACKAGES])
        finished.touch()
    return str(python)


def export_for_genai(python: str, model: Path, target: Path) -> Path:
    """OpenVINO's form of a diffusers folder, made once; weights in float16, as stored."""
    if not (target / "model_index.json").exists():
        log("exporting with optimum-intel")
        command = [str(Path(python).with_name("optimum-cli")), "export", "openvino", "--model", str(model), "--task", "text-to-image"]
        run_process([*command, "--weight-format", "fp16", str(target)], {**os.environ, "HF_HUB_OFFLINE": "1"})
    return target


def _installed() -> list[str]:
    return run_process([sys.executable, "-m", "pip", "freeze"]).stdout.splitlines()
