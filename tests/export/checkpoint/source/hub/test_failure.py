"""Every way in which a hub fails becomes one line with a remedy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from costroute_rt.error import BundleError, ConfigError, CostrouteError, OutputError
from costroute_rt.export.checkpoint.source.hub.fetch import fetch_model
from tests.export.checkpoint.source.hub.small_repository import SHARD
from tests.hub_server import HubServer, needs_hub

pytestmark = needs_hub


def fail(repo_id: str, kind: type[CostrouteError] = BundleError, **arguments: str) -> str:
    with pytest.raises(kind) as caught:
        fetch_model(repo_id, **arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    return message


def test_unknown_repositories_revisions_and_files(server: HubServer) -> None:
    message = fail("someone/else")
    assert "has no such repository, or it is private, and no folder or file here is called that" in message
    assert message.endswith("check the name; if it is private, set HF_TOKEN or run `hf auth login`")
    message = fail("someone/sd", revision="v2")
    assert f"it has no revision v2; choose a branch, a tag or a commit of {server.address}/someone/sd" in message


def test_gated_repositories(server: HubServer) -> None:
    message = fail("someone/gated")
    assert "it is gated: its makers ask you to accept a licence first" in message
    assert message.endswith(f"accept it on {server.address}/someone/gated, then set HF_TOKEN or run `hf auth login`")
    assert fail("someone/gated", token="hf_other").endswith("with the account that your token belongs to")
    assert fetch_model("someone/gated", token="hf_secret").is_file()


def test_a_hub_that_fails(server: HubServer) -> None:
    server.broken["list"] = 500
    assert "failed with status 500; wait some minutes, then run it again" in fail("someone/sd")
    server.broken = {SHARD.format(2): 503}
    assert f"failed with status 503 at {SHARD.format(2)}; wait some minutes, then run it again" in fail("someone/sd")
    server.broken.clear()
    server.forget()
    fetch_model("someone/sd")
    assert SHARD.format(1) not in server.sent


@pytest.mark.parametrize(
    ("status", "problem"),
    [(401, "no such repository"), (403, "does not let your token"), (404, "not have it"), (429, "limits"), (418, "418")],
)
def test_other_refusals(server: HubServer, status: int, problem: str) -> None:
    server.broken["list"] = status
    assert problem in fail("someone/sd")


def test_a_server_that_is_no_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hub_server.json.dumps", lambda value: "<html>Log in to the network</html>")
    assert "does not answer as a hub does; check HF_ENDPOINT" in fail("someone/sd")
    monkeypatch.setattr("tests.hub_server.json.dumps", lambda value: "[1]")
    assert "does not answer as a hub does; check HF_ENDPOINT" in fail("someone/sd")


def test_a_proxy_that_does_not_work(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
    assert "hub.invalid" in (message := fail("someone/sd"))
    assert message.endswith("check the proxy's settings (http_proxy)")


def test_wrong_addresses(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "huggingface.co")
    assert "HF_ENDPOINT is 'huggingface.co': expected an address such as https://huggingface.co" in fail("someone/sd", ConfigError)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address.replace("http:", "https:"))
    assert "127.0.0.1" in fail("someone/sd")


def test_a_cache_that_cannot_be_written(server: HubServer, home: Path) -> None:
    home.mkdir()
    (home / "hub").write_text("a file")
    assert fail("someone/sd", OutputError).startswith(f"cannot write {home}")


def test_a_token_that_cannot_be_read(server: HubServer, home: Path) -> None:
    (home / "token").mkdir(parents=True)
    assert "token cannot be read: Is a directory; check who owns it, or set HF_HOME" in fail("someone/sd")


def test_a_disk_that_fills_up_during_the_download(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert "no room left for the download; free some space, or set HF_HOME to another disk" in fail("someone/sd", OutputError)
