"""Backends by name, and what doctor finds out about each."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from costroute_rt.engines.backends import registry
from costroute_rt.engines.backends.onnxruntime import providers
from costroute_rt.engines.backends.onnxruntime.providers import ProviderCheck
from costroute_rt.engines.backends.openvino import backend as openvino_backend
from costroute_rt.engines.backends.registry import check_backends
from costroute_rt.engines.machine.diagnosis import Finding
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.error import BackendError


def find(findings: Iterable[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def fake_backend(monkeypatch: pytest.MonkeyPatch, obstacle: BackendError | None = None) -> None:
    """OpenVINO 9.9 is installed, and nothing else beside ONNX Runtime; its GPU does not work."""
    problems = {"cpu": None, "gpu": "libOpenCL.so.1: cannot open shared object file", "npu": None}
    monkeypatch.setattr(openvino_backend, "check_devices", lambda: problems)
    monkeypatch.setattr(registry, "_is_installed", lambda module: module == "openvino")
    monkeypatch.setattr(registry, "get_backend", lambda name: SimpleNamespace(version="9.9", obstacle=lambda: obstacle))


def test_other_backends_are_opened_or_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backend(monkeypatch)
    assert [(each.name, each.value, each.problem, each.fix and each.fix.install) for each in check_backends()] == [
        ("backend openvino", "9.9, works on cpu, npu", None, None),
        ("openvino gpu", "listed, does not work", "libOpenCL.so.1: cannot open shared object file", ()),
        ("backend tensorrt", "not installed", None, ("costroute-rt[tensorrt]",)),
        ("backend tensorrt-rtx", "not installed", None, ("costroute-rt[tensorrt-rtx]",)),
    ]


def test_a_backend_that_builds_and_cannot_run_is_a_fact_not_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backend(monkeypatch, BackendError("an NVIDIA GPU", "no NVIDIA driver", "install one"))
    found = find(check_backends(), "backend openvino")
    assert (found.value, found.problem) == ("9.9, builds engines, cannot run them: no NVIDIA driver; install one", None)


def test_a_backend_that_cannot_be_opened_is_a_problem_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise BackendError("openvino", "version 9.9", "install an older one", ["openvino<9"])

    fake_backend(monkeypatch)
    monkeypatch.setattr(registry, "get_backend", fail)
    found = find(check_backends(), "backend openvino")
    assert (found.value, found.problem) == ("does not work", "version 9.9")
    assert found.fix == Fix("install an older one", install=("openvino<9",))


@pytest.mark.parametrize(
    ("problem", "fix"),
    [
        ("libcudnn.so.9: cannot open", Fix("install nvidia-cudnn-cu12", install=("nvidia-cudnn-cu12",))),
        ("CPUExecutionProvider runs instead", Fix("install what cuda needs, or use another provider")),
    ],
)
def test_a_provider_that_does_not_work_is_a_problem_with_its_fix(monkeypatch: pytest.MonkeyPatch, problem: str, fix: Fix) -> None:
    monkeypatch.setattr("costroute_rt.engines.machine.fix.find_driver", lambda: None)
    monkeypatch.setattr(providers, "check_providers", lambda: [ProviderCheck("cuda", False, problem)])
    finding = find(providers.diagnose(), "provider cuda")
    assert (finding.value, finding.problem, finding.fix) == ("listed, does not work", problem, fix)
