"""The page: a few files of the package, read once, that load nothing from anywhere else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_MODULES = (
    "app", "compare", "dom", "drop", "form", "format", "gallery", "jobs", "picture", "routing", "server", "stage", "store", "time", "votes",
)  # fmt: skip
PAGE = {"/": "index.html", **{f"/{name}": name for name in ("style.css", "icon.svg", *(f"{module}.js" for module in _MODULES))}}
"""File by path."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def serve_page(request: Request) -> Response:
    """One file of the page."""
    name = PAGE[request.scope["path"]]
    media_type = _TYPES[name.rpartition(".")[2]]
    return Response(_read(name), media_type=f"{media_type}; charset=utf-8", headers={"content-security-policy": POLICY})


@cache
def _read(name: str) -> bytes:
    return (files(__package__ or "costroute_rt.cli.server") / "page" / name).read_bytes()
