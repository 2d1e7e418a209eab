"""Clients for Node, which ask the server as their users' programs do: tests in JavaScript, in the folder `node`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from costroute_rt.cli.server.settings import Limits
from costroute_rt.engines.bundle.bundle import Bundle
from tests.cli.server.conftest import PATIENCE_S, TOKEN, Gate, Running, Serve
from tests.node_tests import needs_node, run_node_tests
from tests.runtime.fakes import FakeDevice, open_fake_runtime

FOLDER = Path(__file__).parent / "node"

pytestmark = [
    pytest.mark.slow,
    needs_node,
    pytest.mark.skipif(not (FOLDER / "node_modules").is_dir(), reason="asks by clients for Node: npm ci --prefix tests/cli/server/node"),
]


def run_with(server: Running, name: str) -> None:
    run_node_tests(FOLDER, f"{name}.test.mjs", COSTROUTE_URL=server.url, COSTROUTE_TOKEN=TOKEN)


@pytest.mark.parametrize("name", ["openai", "ai_sdk"])
def test_client(name: str, serve: Serve, bundle: Bundle) -> None:
    device = open_fake_runtime(bundle, image_encoders=["tiny/vae/encode"])
    run_with(serve(device.runtime), name)
    device.runtime.close()


def test_a_full_queue(serve: Serve, device: FakeDevice) -> None:
    server = serve(limits=Limits(waiting=0))
    gate = Gate(device, "turbo/step")
    server.post("/v1/jobs", prompt="a lake", candidate="turbo@2")
    assert gate.reached.wait(PATIENCE_S)
    run_with(server, "full_queue")
    gate.open()


def test_mcp(tiny_bundle: Path, built: Path) -> None:
    command = [sys.executable, "-m", "costroute_rt.cli", "serve", "--stdio", "--bundle", str(tiny_bundle)]
    run_node_tests(FOLDER, "mcp.test.mjs", COSTROUTE_COMMAND=json.dumps(command))
