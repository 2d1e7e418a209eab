"""Who may use the server: the name it is called by, the page that a request comes from, and the token."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from costroute_rt.cli.server.answer import add_headers, answer_problem
from costroute_rt.cli.server.problem import Problem
from costroute_rt.cli.server.settings import ServerSettings

PREFIX = "/t/"
"""Before the token in the path, for clients that cannot send one otherwise."""
OPEN_PATHS = ("/healthz", "/readyz")
PICTURES = "/pictures/"
"""Their names cannot be guessed, so they need no token: clients fetch them by programs that know none."""
_HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{1,1000}")
_COOKIE_S = 30 * 24 * 3600


def make_token() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, as far as clients of one token can be told apart."""

    address: str
    user: str
    """User name of the Basic authorization; clients choose it freely."""
    agent: str


def caller_of(request: Request) -> Caller | None:
    """Who sent a request."""
    found = getattr(request.state, "caller", None)
    return found if isinstance(found, Caller) else None


class Guard:
    """Middleware that lets requests through whose host, origin and token are right; no other part of the server sees the others."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings
        self._token = settings.token.encode()
        self._hosts = {"localhost", *(name.lower() for name in settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = _read_headers(scope)
        try:
            origin = self._check_origin(headers, scope)
        except Problem as problem:
            await answer_problem(problem)(scope, receive, send)
            return
        if origin is not None and origin in self._settings.allowed_origins:
            send = _with_cors(send, origin, headers.get("access-control-request-headers", ""))
        await (self._admit(scope, headers) or self._app)(scope, receive, send)

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """What to answer instead of going on; None if the request may go on."""
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return Response(status_code=204)
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(PICTURES):
            return None
        link = self._follow_link(scope, headers)
        if link is not None:
            return link
        user = self._identify(scope, headers)
        if user is None:
            return self._ask_for_token(headers)
        client = scope.get("client")
        scope.setdefault("state", {})["caller"] = Caller(client[0] if client else "", user, headers.get("user-agent", "")[:200])
        return None

    def _check_origin(self, headers: Mapping[str, str], scope: Scope) -> str | None:
        """The origin of the page that sends the request; raises Problem if it may not, or if the server is called by a foreign name."""
        host = headers.get("host")
        if host is None or not self._is_own(host):
            shown = "none" if host is None else host[:80]
            raise Problem(403, "host_not_allowed", f"this server does not answer to the name {shown}; --allow-host adds a name")
        origin = headers.get("origin")
        if origin is None or origin in self._settings.allowed_origins or origin.lower() == f"{scope['scheme']}://{host}".lower():
            return origin
        raise Problem(403, "origin_not_allowed", f"pages of {origin[:80]} may not use this server; --allow-origin adds one")

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names this server: by address, which no name server can redirect, or by one of its names."""
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if port and not (port.isascii() and port.isdecimal()):
            return False
        if name.lower().rstrip(".") in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name[1:-1] if name.startswith("[") else name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self._settings.host)

    def _identify(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        """The user's name, empty without one; None if the token is missing or wrong. Takes the token out of the path."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(value.strip()):
            return ""
        if kind.lower() == "basic":
            user, _, password = _decode_basic(value).partition(":")
            if self._is_token(password):
                return user[:64]
        path = scope["path"]
        if path.startswith(PREFIX):
            token, _, rest = path[len(PREFIX) :].partition("/")
            if self._is_token(token):
                scope["path"], scope["raw_path"] = f"/{rest}", f"/{rest}".encode()
                return ""
        is_same_site = headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        return "" if is_same_site and self._is_token(_read_cookie(headers, self._cookie(headers))) else None

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode("utf-8", "replace"), self._token)

    @staticmethod
    def _cookie(headers: Mapping[str, str]) -> str:
        """Its name has the port, because browsers send cookies to every port of a host."""
        port = headers.get("host", "").rpartition(":")[2]
        return f"costroute-{port if port.isdecimal() else 80}"

    def _follow_link(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """The answer to the link that `serve` prints: it turns the token into a cookie, and leaves it out of the address."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if scope["path"] != "/" or given is None or not self._is_token(given):
            return None
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        found = RedirectResponse(f"/?{rest}" if rest else "/", 303)
        found.set_cookie(self._cookie(headers), self._settings.token, max_age=_COOKIE_S, httponly=True, samesite="strict")
        return found

    @staticmethod
    def _ask_for_token(headers: Mapping[str, str]) -> Response:
        if "text/html" in headers.get("accept", ""):
            return PlainTextResponse("Open the link that costroute-rt serve printed: it carries the token.\n", 401)
        problem = Problem(401, "invalid_token", "the token is missing or wrong", headers={"www-authenticate": "Bearer"})
        return answer_problem(problem)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _read_headers(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name; of a name that comes twice the first."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def _decode_basic(value: str) -> str:
    try:
        return base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _read_cookie(headers: Mapping[str, str], name: str) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _with_cors(send: Send, origin: str, wanted: str) -> Send:
    """Lets the page of an allowed origin read the answer; wanted: names of the headers that it asks to send."""

    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            add_headers(
                message,
                {
                    "access-control-allow-origin": origin,
                    "access-control-allow-headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "authorization, content-type",
                    "access-control-allow-methods": "GET, POST, DELETE",
                    "access-control-expose-headers": "retry-after-ms, x-should-retry",
                    "access-control-max-age": "600",
                    "vary": "origin",
                    "cross-origin-resource-policy": "cross-origin",
                },
            )
        await send(message)

    return send_with_cors
