"""Who is let in: by which name, from which page, with which token."""

from __future__ import annotations

import base64

import pytest

from costroute_rt.cli.server.guard import is_loopback
from tests.cli.server.conftest import TOKEN, Running, Serve


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def test_without_a_token_nothing_is_served(server: Running) -> None:
    server.headers = {}
    for path in ("/", "/app.js", "/v1/pool", "/v1/jobs", "/metrics", "/t/wrong/v1/pool", "/t//v1/pool", "/?token=wrong", "/nowhere"):
        answer = server.get(path)
        assert (answer.status, answer.error["code"]) == (401, "invalid_token"), path
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_as_bearer(server: Running, scheme: str) -> None:
    assert server.get("/v1/pool", Authorization=f"{scheme} {TOKEN}").status == 200


def test_the_token_as_password_with_any_user(server: Running) -> None:
    assert server.ask("GET", "/v1/pool", headers=basic("anybody", TOKEN)).status == 200
    assert server.ask("GET", "/v1/pool", headers=basic(TOKEN, "")).status == 401


@pytest.mark.parametrize(
    "value", ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff\xfe", "Basic", "Basic ####", "Basic YQ=="]
)
def test_wrong_tokens(server: Running, value: str) -> None:
    assert server.get("/v1/pool", Authorization=value).status == 401


def test_the_token_as_first_part_of_the_path(server: Running) -> None:
    server.headers = {}
    assert server.get(f"/t/{TOKEN}/v1/pool").status == 200
    assert server.get(f"/t/{TOKEN}/").headers["content-type"].startswith("text/html")


def test_the_link_turns_the_token_into_a_cookie(server: Running) -> None:
    server.headers = {}
    answer = server.get(f"/?token={TOKEN}&a=b")
    assert (answer.status, answer.headers["location"]) == (303, "/?a=b")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert cookie.startswith(f"costroute-{server.port}={TOKEN};")
    mine = {"Cookie": cookie.partition(";")[0]}
    assert server.get("/v1/pool", **mine).status == 200
    assert server.get("/v1/pool", **mine, **{"Sec-Fetch-Site": "same-origin"}).status == 200
    assert server.get("/v1/pool", **mine, **{"Sec-Fetch-Site": "same-site"}).status == 401  # a page of another port
    assert server.get("/v1/pool", Cookie="costroute=x; ;;=").status == 401


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]", "localhost."])
def test_own_names(server: Running, host: str) -> None:
    assert server.get("/v1/pool", Host=f"{host}:{server.port}").status == 200
    assert server.get("/v1/pool", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "127.0.0.1.attacker.example",
        "localhost.attacker.example",
        "192.168.1.5",
        "localhost:80:80",
        "",
        "[::1",
        "a@localhost",
    ],
)
def test_foreign_names_are_refused_as_after_dns_rebinding(server: Running, host: str) -> None:
    for path in ("/v1/pool", "/healthz", f"/?token={TOKEN}", f"/t/{TOKEN}/v1/pool"):
        assert server.get(path, Host=host).error["code"] == "host_not_allowed", path


def test_a_named_host_and_addresses_where_others_may_come(serve: Serve) -> None:
    server = serve(allowed_hosts=("studio.local",), host="0.0.0.0")
    assert server.get("/v1/pool", Host="studio.local:7870").status == 200
    assert server.get("/v1/pool", Host="192.168.1.5:7870").status == 200
    assert server.get("/v1/pool", Host="other.local").status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://attacker.example",
        "http://localhost:1",
        "app://obsidian.md",
        "https://127.0.0.1",
        "http://127.0.0.1.attacker.example",
    ],
)
def test_foreign_origins_are_refused(server: Running, origin: str) -> None:
    for method, path in (("POST", "/v1/route"), ("GET", "/v1/pool"), ("OPTIONS", "/v1/jobs"), ("GET", "/healthz")):
        answer = server.ask(method, path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert answer.error["code"] == "origin_not_allowed"
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_own_origin_passes_without_cors(server: Running) -> None:
    answer = server.get("/v1/pool", Origin=server.url)
    assert answer.status == 200
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_an_allowed_origin_gets_cors(serve: Serve) -> None:
    server = serve(allowed_origins=("app://obsidian.md",))
    asked = {
        "Origin": "app://obsidian.md",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-os",
    }
    preflight = server.ask("OPTIONS", "/v1/jobs", headers={**asked, "Authorization": ""})
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "app://obsidian.md"
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "access-control-allow-credentials" not in preflight.headers
    answer = server.get("/v1/pool", Origin="app://obsidian.md")
    assert answer.headers["access-control-allow-origin"] == "app://obsidian.md"
    assert server.ask("GET", "/v1/pool", headers={"Origin": "app://obsidian.md", "Authorization": ""}).status == 401


def test_health_needs_no_token(server: Running) -> None:
    server.headers = {}
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").json() == {"status": "ready"}


def test_a_browser_without_the_token_is_told_what_to_do(server: Running) -> None:
    answer = server.ask("GET", "/", headers={"Authorization": "", "Accept": "text/html"})
    assert answer.status == 401
    assert b"link" in answer.body


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("studio.local", False)],
)
def test_loopback(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own
