"""A hub on loopback with small models, and an empty cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.checkpoint.source.hub.small_repository import CHUNK, make_pipeline
from tests.hub_server import HubServer, Repository


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """HF_HOME of the test."""
    return tmp_path / "hf"


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub that huggingface_hub of this process uses, with an empty cache and no token."""
    from huggingface_hub import constants, file_download

    from costroute_rt.export.checkpoint.source.hub import client

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    files = {"one.safetensors": bytes(1000), "README.md": b"One file."}
    repositories = {"sd": Repository(make_pipeline()), "file": Repository(files), "gated": Repository(files, token="hf_secret")}
    with HubServer(**repositories) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(client, "_CHUNK_BYTES", CHUNK)
        monkeypatch.setattr(client, "_PAUSE_S", 0.0)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its own tries
        yield server
