"""A message that names a missing library leads to the package that contains it."""

from __future__ import annotations

import pytest

from costroute_rt.engines.machine import fix
from costroute_rt.engines.machine.fix import Fix, find_fix


@pytest.mark.parametrize(
    ("problem", "requirement", "remedy"),
    [
        ("libcudnn.so.9: cannot open shared object file", "nvidia-cudnn-cu12", "install nvidia-cudnn-cu12"),
        ("libcublasLt.so.12: cannot open shared object file", "nvidia-cublas-cu12", "install nvidia-cublas-cu12"),
        ("libcublasLt.so.13: cannot open shared object file", "nvidia-cublas", "install nvidia-cublas"),
        ("libcudart.so.13: cannot open shared object file", "nvidia-cuda-runtime", "install nvidia-cuda-runtime"),
        ('"cublas64_12.dll" which is missing', "nvidia-cublas-cu12", "install nvidia-cublas-cu12"),
        ("libnvinfer.so.10: cannot open shared object file", "tensorrt-cu12", "install tensorrt-cu12"),
        (
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.12: cannot open shared object file",
            "nvidia-cublas-cu12",
            "install nvidia-cublas-cu12",
        ),
        (
            'Error loading "C:\\x\\onnxruntime_providers_cuda.dll" which depends on "cudnn64_9.dll"',
            "nvidia-cudnn-cu12",
            "install nvidia-cudnn-cu12",
        ),
        ("libcuda.so.1: cannot open shared object file", None, "install the NVIDIA driver"),
        ("libodd.so.3: cannot open shared object file", None, "install the package that contains libodd.so.3"),
    ],
)
def test_a_missing_library_is_fixed_by_the_package_that_contains_it(
    monkeypatch: pytest.MonkeyPatch, problem: str, requirement: str | None, remedy: str
) -> None:
    monkeypatch.setattr(fix, "find_driver", lambda: None)
    assert find_fix(problem) == Fix(remedy, install=() if requirement is None else (requirement,))


def test_a_message_without_a_library_has_no_fix() -> None:
    assert find_fix("CPUExecutionProvider runs instead") is None
