"""The page: three files of the package, read once, that load nothing from anywhere else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
"""File and media type by path."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def serve_page(request: Request) -> Response:
    """One file of the page."""
    name, media_type = PAGE[request.scope["path"]]
    return Response(_read(name), media_type=media_type, headers={"content-security-policy": POLICY})


@cache
def _read(name: str) -> bytes:
    return (files(__package__ or "costroute_rt.cli.server") / "page" / name).read_bytes()
