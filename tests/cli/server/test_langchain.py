"""LangChain's image tool, `DallEAPIWrapper` of langchain-community, which needs addresses of images in the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.cli.server.conftest import PATIENCE_S, TOKEN, Serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("langchain_community") is None, reason="asks by LangChain's tool: pip install langchain-community"),
]
SCRIPT = """
import json, sys, urllib.request
from langchain_community.tools.openai_dalle_image_generation import OpenAIDALLEImageGenerationTool
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

base_url, key = sys.argv[1:]
wrapper = DallEAPIWrapper(base_url=base_url, api_key=key, n=2)
tool = OpenAIDALLEImageGenerationTool(api_wrapper=wrapper)
found = tool.invoke({"query": "a red house by a lake"}).split(chr(10))
kinds = [urllib.request.urlopen(each).headers["content-type"] for each in found]
print(json.dumps([tool.name, kinds]))
"""


def test_tool(serve: Serve) -> None:
    server = serve(max_ms=60_000.0)  # it has no field for a budget
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, f"{server.url}/v1", TOKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["openai_dalle", ["image/png", "image/png"]]
    (line,) = [line for line in server.get("/metrics").body.decode().splitlines() if "generations" in line and "requests_total" in line]
    assert line.endswith(" 1")
