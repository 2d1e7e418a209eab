"""The programs that make the same images, and their settings."""

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

_ROOT = Path(__file__).parents[2]
_MODULES = "benchmarks.peers.programs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One way to make images."""

    file: str
    """In programs/, without its suffix."""
    precision: str
    """What it computes in: only programs of equal precision are compared. `auto` is compared with all."""
    settings: Mapping[str, Any]
    environment: str = ""
    """Name of the environment it runs in; empty: this one."""
    tiny: bool = False
    """Whether the tiny decoder makes the image."""

    @property
    def is_ours(self) -> bool:
        return not self.environment


def _ours(backend: str, precision: str, *, tiny: bool = False) -> Program:
    return Program(file="ours", precision=precision, settings={"backend": backend, "precision": precision}, tiny=tiny)


def _diffusers(precision: str, *, compiled: bool = False) -> Program:
    settings = {"dtype": precision, "compile": compiled}
    return Program(file="with_diffusers", environment="diffusers", precision=precision, settings=settings)


def _genai(precision: str, hint: str) -> Program:
    return Program(file="with_openvino_genai", environment="genai", precision=precision, settings={"precision": hint})


PROGRAMS: Mapping[str, Program] = {
    "onnxruntime float32": _ours("onnxruntime", "float32"),
    "openvino float32": _ours("openvino", "float32"),
    "openvino bfloat16": _ours("openvino", "bfloat16"),
    "auto": _ours("auto", "auto"),
    "auto with the tiny decoder": _ours("auto", "auto", tiny=True),
    "diffusers float32": _diffusers("float32"),
    "diffusers float32 compiled": _diffusers("float32", compiled=True),
    "diffusers bfloat16": _diffusers("bfloat16"),
    "diffusers bfloat16 compiled": _diffusers("bfloat16", compiled=True),
    "optimum-onnx float32": Program(file="with_optimum", environment="optimum", precision="float32", settings={}),
    "OpenVINO GenAI float32": _genai("float32", "f32"),
    "OpenVINO GenAI bfloat16": _genai("bfloat16", "bf16"),
    "stable-diffusion.cpp float16": Program(
        file="with_stable_diffusion_cpp", environment="stable-diffusion.cpp", precision="float16", settings={}
    ),
}
"""The first five are costroute-rt."""


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


def run_program(python: str, file: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Finished]:
    """What a program of that file prints on its last line, and its process."""
    asked = {**settings, "started": time.time()}
    environment = None if python == sys.executable else {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = run_watched([python, "-m", f"{_MODULES}.{file}", json.dumps(asked)], environment)
    return json.loads(done.output.splitlines()[-1]), done
