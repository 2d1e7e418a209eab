"""`costroute-rt serve`: the runtime for other applications and for a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice
from costroute_rt.cli.number import Number, WholeNumber
from costroute_rt.cli.progress import OpeningLine
from costroute_rt.cli.table import show, show_json

if TYPE_CHECKING:
    from costroute_rt.cli.server.listen import Address
    from costroute_rt.cli.server.service import OpenRuntime
    from costroute_rt.cli.server.settings import ServerSettings
    from costroute_rt.engines.building.progress import OnOpen, OpenEvent
    from costroute_rt.runtime import Runtime

_LEAST_TOKEN, _MOST_TOKEN = 16, 256
_LIBRARIES = ("starlette", "uvicorn", "python_multipart")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; all but loopback ones need --token-file.")
@click.option("--port", type=WholeNumber(0, 65535), default=7870, show_default=True, help="Port to listen on; 0: any free one, see --json.")
@click.option("--token-file", type=click.Path(), metavar="FILE", help="File with the token.  [default: a new token, printed once]")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Name by which clients call this machine; may be repeated.")
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web page or application that may use the server from a browser, such as app://obsidian.md; may be repeated.",
)
@click.option("--max-ms", type=Number(min=0, min_open=True), help="Budget of requests without one.  [default: none, the best candidate]")
@click.option("--max-waiting", type=WholeNumber(0, 10_000), default=32, show_default=True, help="Requests that may wait; more are refused.")
@click.option("--warm", is_flag=True, help="Load every engine before the server is ready, so that no request spends time on it.")
@click.option("--unload-after", type=Number(min=0, min_open=True), metavar="SECONDS", help="Close engines if no image is made for so long.")
@click.option("--drain", type=Number(min=0), default=30, show_default=True, metavar="SECONDS", help="Time to finish requests at the end.")
@click.option("--save-to", type=click.Path(), metavar="FOLDER", help="Write a copy of every image.  [default: images stay in memory]")
@click.option("--init-images", is_flag=True, help="Also build the engines that begin with an image.")
@click.option("--no-build", is_flag=True, help="Fail if engines are missing instead of building them.")
@click.option("--stdio", is_flag=True, help="Serve the program that starts this one, by lines of JSON-RPC (also MCP), instead of HTTP.")
@click.option("--parent-pid", type=WholeNumber(1, 2**31 - 1), metavar="PID", help="End when this process has ended.")
@option.allowed
@option.memory
@option.engine
@option.as_json("Print one line of JSON with address and token instead of text; always with --port 0.")
def serve(
    host: str,
    port: int,
    token_file: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    max_ms: float | None,
    max_waiting: int,
    warm: bool,
    unload_after: float | None,
    drain: float,
    save_to: str | None,
    init_images: bool,
    no_build: bool,
    stdio: bool,
    parent_pid: int | None,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Serve images to other applications and to a browser, each within its time budget.

    Prints a link that opens the page. Clients of OpenAI's images API use http://HOST:PORT/v1 with the token as key; those
    of AUTOMATIC1111's use http://HOST:PORT/t/TOKEN, or the token as password. Both may send max_ms, which counts from
    the arrival of the request. docs/server.md has every address.

    Ctrl-C or SIGTERM ends the server when the requests that it accepted are done; a second one ends it at once.

    \b
    costroute-rt serve --warm
    costroute-rt serve --port 0 --parent-pid 4711
    costroute-rt serve --stdio
    costroute-rt serve --host 0.0.0.0 --token-file token.txt --allow-host studio.local
    """
    if not stdio:
        _check_libraries()
    from costroute_rt.cli.server.settings import Limits, ServerSettings

    settings = ServerSettings(
        token=_token(token_file, host),
        host=host,
        port=port,
        allowed_hosts=hosts,
        allowed_origins=tuple(map(_check_origin, origins)),
        max_ms=max_ms,
        is_warm=warm,
        unload_after_s=unload_after,
        drain_s=drain,
        save_to=None if save_to is None else _check_folder(save_to),
        limits=Limits(waiting=max_waiting),
    )
    open_runtime = _opener(engine, settings, build=not no_build, init_images=init_images)
    if stdio:
        _run_lines(settings, open_runtime)
    else:
        _run(settings, open_runtime, parent_pid, as_json=as_json or port == 0)


class ServingLine(OpeningLine):
    """Shows the opening on stderr, and tells the server how far it is."""

    def __init__(self, note: Callable[[OpenEvent], Any]) -> None:
        super().__init__("first use: building")
        self._note = note

    def __call__(self, event: OpenEvent) -> None:
        super().__call__(event)
        self._note(event)


def _opener(engine: EngineChoice, settings: ServerSettings, *, build: bool, init_images: bool) -> OpenRuntime:
    """What opens the runtime as the options say."""

    def open_runtime(note: OnOpen, cancel: threading.Event) -> Runtime:
        return engine.open_runtime(
            ServingLine(note),
            build=build,
            preload=settings.is_warm,
            init_images=init_images,
            max_waiting=settings.limits.waiting,
            cancel=cancel,
        )

    return open_runtime


def _run(settings: ServerSettings, open_runtime: OpenRuntime, parent_pid: int | None, *, as_json: bool) -> None:
    """Listen until told to end; raises what opening the runtime raised."""
    from costroute_rt.cli.server.listen import Address, bind, serve_until_told
    from costroute_rt.cli.server.service import Service

    listener = bind(settings)
    with listener:
        address = Address(settings.host, listener.getsockname()[1], settings.token)
        service = Service(open_runtime, settings)
        _announce(address, as_json=as_json)
        serve_until_told(service, listener, parent_pid)
    failure = service.failure
    if failure is not None:
        raise failure


def _run_lines(settings: ServerSettings, open_runtime: OpenRuntime) -> None:
    """Serve standard input until it ends; raises what opening the runtime raised."""
    from costroute_rt.cli.server.service import Service
    from costroute_rt.cli.server.stdio import serve_lines, take_streams

    service = Service(open_runtime, settings)
    with suppress(KeyboardInterrupt):
        serve_lines(service, *take_streams())
    failure = service.failure
    if failure is not None:
        raise failure


def _announce(address: Address, *, as_json: bool) -> None:
    """Print where the server is, at once: a parent process waits for this line."""
    import os
    import sys

    if as_json:
        show_json({"url": address.url, "port": address.port, "token": address.token, "link": address.link, "pid": os.getpid()}, indent=None)
    else:
        show(f"page:           {address.link}")
        show(f"OpenAI clients: base URL {address.url}/v1, key {address.token}")
        show(f"A1111 clients:  {address.url}/t/{address.token}")
    with suppress(OSError):
        sys.stdout.flush()


def _token(file: str | None, host: str) -> str:
    from costroute_rt.cli.server.guard import is_loopback, make_token

    if file is not None:
        return _read_token(file)
    if not is_loopback(host):
        problem = f"{host} can be reached by other machines: choose a token yourself, with --token-file"
        raise click.UsageError(problem, click.get_current_context())
    return make_token()


def _read_token(file: str) -> str:
    """The token in a file; raises ConfigError unless it is long enough and can be a part of an address."""
    import re

    from costroute_rt.error import ConfigError
    from costroute_rt.regular_file import read_regular

    expected = f"a file with a token of {_LEAST_TOKEN} to {_MOST_TOKEN} letters, digits, - or _"
    try:
        token = read_regular(file, _MOST_TOKEN + 2).decode("ascii").strip()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError("--token-file", file, f"{expected} ({reason})") from error
    if not re.fullmatch(r"[A-Za-z0-9_-]+", token) or not _LEAST_TOKEN <= len(token) <= _MOST_TOKEN:
        raise ConfigError("--token-file", file, expected)
    return token


def _check_origin(origin: str) -> str:
    import re

    from costroute_rt.error import ConfigError

    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@,]+", origin):
        raise ConfigError("--allow-origin", origin, "an origin without a path, such as https://example.org or app://obsidian.md")
    return origin


def _check_folder(folder: str) -> Path:
    from costroute_rt.error import OutputError

    path = Path(folder)
    if not path.is_dir():
        raise OutputError(path, "it is no folder")
    return path.absolute()


def _check_libraries() -> None:
    """Raises BackendError if a library of the server is missing."""
    from importlib.util import find_spec

    from costroute_rt.error import BackendError

    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        found = f"no {', '.join(missing)}"
        raise BackendError("the server", found, "install the libraries of the server", ["costroute-rt[serve]"])
