"""Requests that are meant to harm: too large, too slow, too many, and half of what they should be."""

from __future__ import annotations

import base64
import io
import socket
import struct
import threading
import zlib

import pytest

from costroute_rt.cli.server.settings import Limits
from tests.cli.server.conftest import TOKEN, Running, Serve
from tests.cli.server.test_own import collect

HEAD = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"


def send(server: Running, data: bytes, *, ends: bool = False) -> bytes:
    """All that comes back for these bytes until the server closes the connection; ends: close our side after them."""
    with server.open_socket() as connection:
        try:
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except (ConnectionResetError, BrokenPipeError):
            return b""


def is_well(server: Running) -> bool:
    """Whether others are served."""
    return collect(server, server.post("/v1/jobs", prompt="a lake", candidate="turbo@1").json()["id"])[-1][0] == "done"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(20_000)),
        b"GET /" + b"a" * 400_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n",
        b"\0" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\n\r\n",
        HEAD.encode() + b"Content-Length: 5\r\nContent-Length: 500\r\n\r\n",
        HEAD.encode() + b"Content-Length: -5\r\n\r\n",
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=["long header", "many headers", "long path", "TLS", "zeros", "two hosts", "two lengths", "negative length", "no chunk"],
)
def test_what_is_no_request(serve: Serve, data: bytes) -> None:
    server = serve(limits=Limits(header_s=1.0))
    assert send(server, data)[:12] in (b"", b"HTTP/1.1 400")
    assert is_well(server)


def test_a_body_that_is_too_large_is_not_read(serve: Serve) -> None:
    server = serve(limits=Limits(body_bytes=10_000))
    answer = send(server, HEAD.encode() + b"Content-Length: 10001\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    assert send(server, HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + 4 * chunk).startswith(b"HTTP/1.1 413")
    form = HEAD.replace("application/json", "multipart/form-data; boundary=X").replace("/v1/jobs", "/v1/images/edits")
    part = b'--X\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"a" * 20_000
    assert send(server, form.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(part) + part).startswith(b"HTTP/1.1 413")
    assert is_well(server)


def test_all_bodies_together_are_limited(serve: Serve) -> None:
    server = serve(limits=Limits(body_bytes=10_000, reading_bytes=25_000))
    waiting = [server.open_socket() for _ in range(2)]
    for connection in waiting:
        connection.sendall(HEAD.encode() + b"Content-Length: 10000\r\n\r\n{")
    large = HEAD.encode() + b"Content-Length: 9000\r\nConnection: close\r\n\r\n" + b" " * 9000
    server.wait_for(lambda: send(server, large).startswith(b"HTTP/1.1 503"), "the refusal")
    for connection in waiting:
        connection.close()
    body = b'{"prompt": "a lake"}' + b" " * 9000
    server.wait_for(lambda: server.ask("POST", "/v1/jobs", body, {"Content-Type": "application/json"}).status == 202, "room for others")


def test_slow_writers(serve: Serve) -> None:
    server = serve(limits=Limits(header_s=0.3, body_s=0.3))
    assert send(server, b"") == b""
    assert send(server, HEAD.encode()) == b""
    slow = send(server, HEAD.encode() + b"Content-Length: 100\r\n\r\n{")
    assert slow.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in slow
    with server.open_socket() as connection:  # the first request is answered, the second never comes
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal")
        assert b"".join(iter(lambda: connection.recv(1 << 16), b"")).count(b"HTTP/1.1 200") == 1
    assert is_well(server)


def test_a_request_that_takes_long_is_not_slow(serve: Serve) -> None:
    server = serve(limits=Limits(header_s=0.2, body_s=0.2, keep_s=60))
    stream = server.events("/v1/events?client=a")
    threading.Event().wait(0.5)
    server.post("/v1/jobs", prompt="a lake", client="a", candidate="turbo@1")
    assert next(stream)[0] == "queued"
    stream.close()  # type: ignore[attr-defined]


def test_many_connections(serve: Serve) -> None:
    server = serve(limits=Limits(connections=8, header_s=30.0))
    idle = [server.open_socket() for _ in range(60)]
    server.wait_for(lambda: 8 < len(server.server.server_state.connections) <= 41, "the limit")
    for connection in idle:
        connection.close()
    server.wait_for(lambda: not server.server.server_state.connections, "their end")
    assert is_well(server)


@pytest.mark.parametrize(
    "data", [b"", b"GET", HEAD.encode(), HEAD.encode() + b"Content-Length: 100\r\n\r\n{"], ids=["none", "word", "head", "body"]
)
def test_half_of_a_request(server: Running, data: bytes) -> None:
    assert send(server, data, ends=True)[:12] in (b"", b"HTTP/1.1 400")
    server.wait_for(lambda: not server.server.server_state.connections, "the end of the connection")
    assert server.service.board.active() == []


def bomb(width: int, height: int) -> str:
    """A PNG that says it is large, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000)) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 2**31 - 1), (0, 5)])
def test_images_that_unfold(server: Running, size: tuple[int, int]) -> None:
    for path, fields in (("/v1/jobs", {"init_image": bomb(*size)}), ("/sdapi/v1/img2img", {"init_images": [bomb(*size)]})):
        assert server.ask("POST", path, {"prompt": "a lake", **fields}).status == 400
    assert is_well(server)


def test_text_chunks_that_unfold(server: Running) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    buffer, chunks = io.BytesIO(), PngInfo()
    chunks.add_text("parameters", "x" * 30_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
    answer = server.post("/sdapi/v1/png-info", image=base64.b64encode(buffer.getvalue()).decode())
    assert answer.status in (200, 400)
    assert len(answer.body) < 5_000_000


def test_compressed_bodies_are_not_unfolded(server: Running) -> None:
    data = zlib.compress(b" " * 50_000_000)
    assert server.ask("POST", "/v1/jobs", data, {"Content-Type": "application/json", "Content-Encoding": "deflate"}).status == 400


def test_a_websocket_is_not_opened(server: Running) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    assert server.ask("GET", "/v1/events", headers={**upgrade, "Origin": "https://attacker.example"}).status == 403
    assert server.ask("GET", "/v1/pool", headers=upgrade).status == 200
