"""The OpenAPI document: complete, and true for requests that nobody would write by hand."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from costroute_rt.cli.server.app import make_routes
from costroute_rt.cli.server.body import Intake
from costroute_rt.cli.server.page import PAGE
from tests.cli.server.conftest import TOKEN, Running

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
NEVER_ENDS = "/v1/events"
needs_schemathesis = pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is missing: pip install schemathesis")


def test_every_address_is_in_the_document(server: Running) -> None:
    document = server.get("/openapi.json").json()
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    service = server.service
    served = {
        (each.path, method)
        for each in make_routes(service, Intake(service.settings.limits))
        for method in (each.methods or ()) - {"HEAD"}
        if each.path not in PAGE
    }
    assert described == served


def test_every_reference_leads_somewhere(server: Running) -> None:
    document = server.get("/openapi.json")
    names = {part.partition('"')[0] for part in document.body.decode().split("#/components/schemas/")[1:]}
    assert names == set(document.json()["components"]["schemas"])


@needs_schemathesis
@pytest.mark.slow
def test_no_request_gets_an_answer_that_is_not_documented(server: Running, tmp_path: Path) -> None:
    done = ask_at_random(server, tmp_path, examples=12)
    assert done.returncode == 0, done.stdout[-6000:]


def ask_at_random(server: Running, folder: Path, *, examples: int) -> subprocess.CompletedProcess[str]:
    """Runs schemathesis; examples: of each address."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
    command += ["--checks", CHECKS, "--phases", "fuzzing", "--max-examples", str(examples), "--exclude-path", NEVER_ENDS]
    command += ["--seed", "1", "--request-timeout", "60", "--generation-database", "none", "--suppress-health-check", "all"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=900)
