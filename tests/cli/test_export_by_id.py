"""A model of a hub on loopback, exported by its id: killed in the middle, continued, and there without the hub afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from tests.export.checkpoint.source.hub.small_repository import NOT_NEEDED, SHARD, make_pipeline
from tests.hub_server import HubServer, Repository, needs_continuing, needs_hub

pytestmark = needs_hub
VAE = "vae/diffusion_pytorch_model-00001-of-00002.safetensors"


@needs_continuing
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process as POSIX systems do")
def test_a_model_is_exported_by_id_killed_continued_and_kept_without_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exports a model: pip install costroute-rt[export]")
    home, target = tmp_path / "hf", tmp_path / "sd.bundle"

    def command(*options: str) -> list[str]:
        return [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "costroute_rt.cli",
            "export",
            "someone/sd",
            "-o",
            str(target),
            "--steps",
            "2",
            *options,
        ]

    with HubServer(sd=Repository(make_pipeline())) as server:
        environment = server.environment(home)
        server.hold[VAE] = len(make_pipeline()[VAE]) // 2
        process = subprocess.Popen(command(), env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            assert server.held.wait(60)
            deadline = time.monotonic() + 30
            while not list(home.glob("hub/*/blobs/*")) and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
        assert not target.exists()
        server.hold.clear()
        server.forget()
        done = subprocess.run(command(), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert server.sent.keys().isdisjoint({SHARD.format(1), *NOT_NEEDED}), "what was done is not fetched again, what is not needed never"
    opened = Bundle.open(target)
    assert [row["name"] for row in opened.pool] == ["sd@2"]
    assert (target / "LICENSE").read_bytes() == make_pipeline()["LICENSE"]
    for options in ((), ("--offline",)):  # the hub is gone
        again = subprocess.run(command(*options), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (again.returncode, again.stdout.startswith(f"{target} is up to date")) == (0, True), again.stderr
