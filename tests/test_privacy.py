"""Nothing leaves the machine, and no file is written but in the store, the temporary directory and where the result goes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.export.small_checkpoint import needs_export, write_checkpoint
from tests.trace import Place, can_trace, trace

OPEN = """
import sys
from costroute_rt import Runtime
with Runtime.open(sys.argv[1], backend=sys.argv[2], build=True) as runtime:
    runtime.generate("a red house by a lake").save("image.png")
"""
BACKGROUND = """
import sys, time
from costroute_rt import Runtime
Runtime.open(sys.argv[1], build=True).close()
with Runtime.open(sys.argv[1], backend=sys.argv[2], background_build=True) as runtime:
    runtime.generate("a red house by a lake")
    while not runtime.building.is_over:
        time.sleep(0.05)
    runtime.generate("a red house by a lake")
"""
EXPORT = """
from pathlib import Path
from costroute_rt.export.checkpoint.checkpoint import export_bundle
from tests.export.small_checkpoint import make_recipe
export_bundle(Path("checkpoint"), Path("bundle"), make_recipe())
"""
SERVE = """
import json, subprocess, sys
command = [sys.executable, "-m", "costroute_rt.cli", "serve", "--stdio", "--bundle", sys.argv[1]]
server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
call = {"jsonrpc": "2.0", "id": 1, "method": "generate", "params": {"prompt": "a red house by a lake", "preview": True, "events": True}}
server.stdin.write(json.dumps(call) + "\\n")
server.stdin.flush()
while "id" not in (answer := json.loads(server.stdout.readline())):
    pass
assert answer["result"]["images"][0]["base64"]
server.communicate()
"""
ROOT = Path(__file__).parent.parent
LOOK_UP = "import ctypes; ctypes.CDLL(None).getaddrinfo(b'example.invalid', None, None, ctypes.byref(ctypes.c_void_p()))"

needs_strace = pytest.mark.skipif(not can_trace(), reason="sees what native code does by strace, which is missing or forbidden here")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="opens engines by OpenVINO: pip install costroute-rt[openvino]")
needs_tensorrt_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="builds engines by TensorRT for RTX: pip install costroute-rt[tensorrt-rtx]"
)


def has_ort_telemetry() -> bool:
    """Whether the installed ONNX Runtime reports its use unless it is told not to: since 1.32, in its native library."""
    spec = find_spec("onnxruntime")
    folder = Path(spec.origin).parent / "capi" if spec is not None and spec.origin else Path()
    return any(b"ORT_DISABLE_TELEMETRY" in path.read_bytes() for path in folder.glob("*pybind11_state*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def commands(bundle: Path) -> dict[str, list[str]]:
    python, name = sys.executable, str(bundle)
    return {
        "onnxruntime": [python, "-c", OPEN, name, "onnxruntime"],
        "gen": [python, "-m", "costroute_rt.cli", "gen", "a lake", "--bundle", name, "-o", "image.png"],
        "serve": [python, "-c", SERVE, name],
        "doctor": [python, "-m", "costroute_rt.cli", "doctor"],
        "tensorrt-rtx": [python, "-m", "costroute_rt.cli", "build-engines", "--bundle", name, "--backend", "tensorrt-rtx"],
        "openvino": [python, "-c", OPEN, name, "openvino"],
        "background": [python, "-c", BACKGROUND, name, "openvino"],
    }


NAMES: list[Any] = ["onnxruntime", "gen", "serve", "doctor"]
NAMES += [pytest.param(name, marks=needs_openvino) for name in ("openvino", "background")]
NAMES += [pytest.param("tensorrt-rtx", marks=needs_tensorrt_rtx)]


@needs_strace
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_sent_and_nothing_written_elsewhere(name: str, tiny_bundle: Path, place: Place) -> None:
    assert trace(commands(tiny_bundle)[name], place) == ([], [])
    assert list(place.home.iterdir()) == []


@needs_strace
@pytest.mark.parametrize("script", [pytest.param(EXPORT, marks=needs_export)], ids=["export"])
def test_an_export_looks_nothing_up_on_the_hub(script: str, place: Place) -> None:
    write_checkpoint(place.work / "checkpoint")
    command, path = [sys.executable, "-W", "ignore", "-c", script], [*sys.path, str(ROOT)]
    assert trace(command, place, PYTHONPATH=os.pathsep.join(path)) == ([], [])
    assert list(place.home.iterdir()) == []


@pytest.mark.skipif(can_trace(), reason="the test above sees this too")
@pytest.mark.parametrize("name", NAMES)
def test_the_home_directory_stays_empty(name: str, tiny_bundle: Path, place: Place) -> None:
    """The most that can be seen without a trace: what is reported later is first written to the user's home."""
    subprocess.run(commands(tiny_bundle)[name], check=True, cwd=place.work, env=place.environment(), stdout=subprocess.DEVNULL)
    assert list(place.home.iterdir()) == []


@needs_strace
@pytest.mark.skipif(not has_ort_telemetry(), reason="this ONNX Runtime reports nothing: it is older than 1.32, or built without")
def test_the_trace_finds_onnx_runtime_s_reports_where_the_user_wants_them(tiny_bundle: Path, place: Place) -> None:
    writes, _ = trace(commands(tiny_bundle)["onnxruntime"], place, ORT_DISABLE_TELEMETRY="0")
    assert any(".onnxruntime" in line for line in writes)
    assert list(place.home.iterdir()) != []


@needs_strace
@needs_openvino
@pytest.mark.skipif(find_spec("openvino_telemetry") is None, reason="this OpenVINO reports nothing: it came without openvino-telemetry")
def test_the_trace_finds_openvino_s_reports_where_the_user_agreed_to_them(tiny_bundle: Path, place: Place) -> None:
    (place.home / "intel").mkdir()
    (place.home / "intel/openvino_telemetry").write_text("1")
    writes, network = trace(commands(tiny_bundle)["openvino"], place)
    assert any("openvino_ga_cid" in line for line in writes)
    assert network


@needs_strace
def test_the_trace_sees_what_native_code_looks_up(place: Place) -> None:
    writes, network = trace([sys.executable, "-c", LOOK_UP], place)
    assert network
    assert writes == []
