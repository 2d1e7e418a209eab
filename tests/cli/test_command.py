"""Errors carry data; the command line names the command that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt import shipped_bundle
from costroute_rt.cli.command import command_for, pip_command, repair_engine
from costroute_rt.cli.failure import with_command
from costroute_rt.error import (
    BackendError,
    BundleError,
    ConfigError,
    CostrouteError,
    EngineError,
    LabelError,
    OutputError,
    PromptError,
    Reason,
)

USUAL = {"backend": "onnxruntime", "provider": "cpu", "precision": "float32", "target": ""}
BUNDLE = str(Path("my bundle").resolve())


@pytest.mark.parametrize(
    ("setup", "options"),
    [
        ({}, ""),
        ({"provider": "cuda"}, " --provider cuda"),
        ({"provider": "cuda", "precision": "float16"}, " --provider cuda --precision float16"),
        ({"backend": "openvino"}, " --backend openvino --provider cpu --precision float32"),
        ({"threads": "3"}, " --threads 3"),
        ({"backend": "openvino", "threads": "3"}, " --backend openvino --provider cpu --precision float32 --threads 3"),
        (
            {"backend": "tensorrt-rtx", "provider": "cuda", "precision": "float16", "target": "ampere+"},
            " --backend tensorrt-rtx --provider cuda --precision float16 --target ampere+",
        ),
    ],
)
@pytest.mark.parametrize("bundle", [None, str(shipped_bundle()), "my bundle"])
@pytest.mark.parametrize(("engine", "size"), [("postcard/base/step", ""), ("x/base/step@64x96", " --height 64 --width 96"), (None, "")])
def test_engines_are_built_and_measured_as_those_that_are_missing(
    setup: dict[str, str], options: str, bundle: str | None, engine: str | None, size: str
) -> None:
    own = f" --bundle '{BUNDLE}'" if bundle == "my bundle" else ""

    def command(reason: Reason) -> str | None:
        return command_for(EngineError("odd", reason=reason, engine=engine, setup=USUAL | setup, bundle=bundle))

    build = f"costroute-rt build-engines{options}{own}{size}"
    assert {command(each) for each in (Reason.MISSING, Reason.SIZE_MISSING, Reason.CANNOT_BUILD)} == {build}
    again = (Reason.DAMAGED, Reason.QUARANTINED, Reason.CANNOT_OPEN, Reason.FAILED)
    assert {command(each) for each in again} == {f"{build} --force"}
    if "target" not in setup:
        assert command(Reason.NOT_MEASURED) == f"costroute-rt profile{options}{own}{size}"


CASES: list[tuple[CostrouteError, str | None]] = [
    (EngineError("odd", reason=Reason.DAMAGED), "costroute-rt build-engines --force"),
    (EngineError("none", reason=Reason.AMBIGUOUS), "costroute-rt engines list"),
    (EngineError("full", reason=Reason.FULL), None),
    (EngineError("closed", reason=Reason.CLOSED), None),
    (BundleError(shipped_bundle() / "manifest.json", "odd", "get it again"), "pip install --force-reinstall --no-deps costroute-rt"),
    (BundleError("/other", "odd", "get it again"), None),
    (BundleError(None, "odd", "export it again"), None),
    (BundleError("/other", "no router", "fit one", reason=Reason.ROUTER), "costroute-rt fit-router"),
    (LabelError("/l.csv", "none", "label some", reason=Reason.LABELS), "costroute-rt label"),
    (ConfigError("labels", "none of a", "some of each", reason=Reason.LABELS), "costroute-rt label"),
    (ConfigError("latent", "width 7", "6", reason=Reason.SIZE_MISSING), "costroute-rt build-engines --height H --width W"),
    (ConfigError("threads", 0, "1 or more"), None),
    (OutputError("/o", "it exists already", reason=Reason.EXISTS), "--force replaces it"),
    (OutputError("/o", "the disk is full"), None),
    (PromptError("the prompt is empty"), None),
    (BackendError("OpenVINO", "none", "install it", ["costroute-rt[openvino]"]), 'pip install "costroute-rt[openvino]"'),
    (BackendError("onnx", "none", "install it", ["onnx"]), "pip install onnx"),
    (BackendError("OpenVINO", "odd", "again", ["openvino"], reason=Reason.DAMAGED), "pip install --force-reinstall --no-deps openvino"),
    (BackendError("cuda", "no driver", "install it", reason=Reason.DRIVER), "costroute-rt doctor"),
    (
        BackendError("cuda", "only cpu", "install it", ["costroute-rt[cuda]"], uninstall=["onnxruntime"], reason=Reason.DRIVER),
        'pip uninstall -y onnxruntime && pip install "costroute-rt[cuda]"; costroute-rt doctor',
    ),
    (BackendError("provider gpu", "only cpu", "use cpu", instead={"provider": "cpu"}), "--provider cpu"),
]


@pytest.mark.parametrize(("error", "command"), CASES, ids=[f"{type(error).__name__}-{command}" for error, command in CASES])
def test_the_command_follows_from_the_data(error: CostrouteError, command: str | None) -> None:
    assert command_for(error) == command
    assert with_command(error) == (f"{error} ({command})" if command else str(error))


def test_versions_are_quoted_for_the_shell() -> None:
    assert pip_command(["cuda-bindings<13", "onnx"]) == 'pip install "cuda-bindings<13" onnx'


def test_an_engine_of_which_nothing_is_known_is_removed() -> None:
    assert repair_engine("0123456789abcdef", EngineError("odd", reason=Reason.DAMAGED)) == "costroute-rt engines rm 0123456789ab"
    known = EngineError("odd", reason=Reason.DAMAGED, setup=USUAL, bundle=BUNDLE)
    assert repair_engine("0123456789abcdef", known) == f"costroute-rt build-engines --bundle '{BUNDLE}'"
