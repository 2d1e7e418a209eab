"""What a server was started with: where it listens, whom it lets in, and how much it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much clients may send and keep."""

    body_bytes: int = 48 * MIB
    """Of one request, images included."""
    reading_bytes: int = 192 * MIB
    """Of all requests that are being read or decoded at once."""
    source_bytes: int = 1 << 30
    """Of the decoded images that requests begin with, all that run or wait together."""
    prompt_characters: int = 32_000
    """Of the prompt and of the negative prompt; OpenAI's limit."""
    count: int = 10
    """Images of one request; OpenAI's limit."""
    waiting: int = 32
    """Requests that may wait while another one runs."""
    connections: int = 256
    kept_bytes: int = 256 * MIB
    """Of finished images, until they are fetched or expire."""
    kept_jobs: int = 256
    """Finished jobs that can still be asked for."""
    keep_s: float = 600.0
    """How long images and finished jobs are kept."""
    header_s: float = 10.0
    """Time for a client to send the head of a request."""
    body_s: float = 30.0
    """Time for a client to send the body of a request."""
    send_s: float = 60.0
    """Time for a client to take the next part of an answer."""
    head_bytes: int = 32 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The options of `serve`."""

    token: str
    """What every client has to know."""
    host: str = "127.0.0.1"
    port: int = 7870
    """0 means any free port."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of this machine, besides its addresses and localhost, by which clients may call it."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages and applications, such as app://obsidian.md, that may use the server from within a browser."""
    max_ms: float | None = None
    """Budget of requests that bring none."""
    is_warm: bool = False
    """Whether every engine is loaded before the server is ready."""
    unload_after_s: float | None = None
    """Engines are closed when no image was made for so long; None means never."""
    drain_s: float = 30.0
    """How long accepted requests may go on after the server was told to end."""
    save_to: Path | None = None
    """Folder for a copy of every image; None means that images are kept in memory alone."""
    limits: Limits = Limits()
