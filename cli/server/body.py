"""The body of a request: read within limits of size and time, all of it in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from costroute_rt.cli.server.field import Fields, check_object
from costroute_rt.cli.server.problem import FAILED, Problem
from costroute_rt.cli.server.settings import Limits

_MOST_FILES, _MOST_FIELDS, _FIELD_BYTES = 17, 100, 1 << 20


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form."""

    fields: Fields
    files: dict[str, list[bytes]] = field(default_factory=dict)


class Intake:
    """Reads bodies; the bytes of all that are being read together are limited."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._held_bytes = limits, 0

    @contextmanager
    def holding(self, request: Request) -> Iterator[None]:
        """Until the block ends, the largest body that this request may have counts as held."""
        expected = self._expected_bytes(request)
        if self._held_bytes + expected > self._limits.reading_bytes:
            raise Problem(503, "busy_reading", "too many large requests arrive at once", type=FAILED, retry_after_ms=1000)
        self._held_bytes += expected
        try:
            yield
        finally:
            self._held_bytes -= expected

    async def read_json(self, request: Request) -> Fields:
        """The JSON object of the body; an empty body is an empty object."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", ""):
            raise Problem(415, "unsupported_media_type", "the body must be application/json")
        data = b"".join([part async for part in self._parts(request)])
        if not data:
            return Fields({})
        try:
            return Fields(check_object(json.loads(data, parse_constant=_refuse_constant)))
        except (ValueError, RecursionError) as error:
            raise Problem(400, "invalid_json", f"the body is not JSON: {error}"[:200]) from error

    async def read_form(self, request: Request) -> Form:
        """The fields and files of a multipart body; nothing is written to files."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise Problem(415, "unsupported_media_type", "the body must be multipart/form-data")
        parser = MultiPartParser(
            request.headers, self._parts(request), max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES
        )
        parser.spool_max_size = self._limits.body_bytes + 1  # more would go to a temporary file
        try:
            data = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:
            raise Problem(400, "invalid_form", f"the body is no usable form: {getattr(error, 'message', error)}"[:200]) from error
        fields, files = dict[str, Any](), dict[str, list[bytes]]()
        for name, value in data.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(await value.read())
                await value.close()
            else:
                fields[name] = value
        return Form(Fields(fields, has_texts=True), files)

    def _expected_bytes(self, request: Request) -> int:
        length = request.headers.get("content-length")
        if length is None:
            return self._limits.body_bytes if request.method not in ("GET", "DELETE", "HEAD") else 0
        size = int(length) if length.isascii() and length.isdecimal() else 0
        if size > self._limits.body_bytes:
            raise self._too_large()
        return size

    async def _parts(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; raises Problem if it is too large or too slow."""
        size, stream, until_s = 0, aiter(request.stream()), asyncio.get_running_loop().time() + self._limits.body_s
        while True:
            try:
                async with asyncio.timeout_at(until_s):
                    part = await anext(stream, None)
            except TimeoutError as error:
                problem = f"the body did not arrive within {self._limits.body_s:g} s"
                raise Problem(408, "body_too_slow", problem, headers={"connection": "close"}) from error
            if part is None:
                return
            size += len(part)
            if size > self._limits.body_bytes:
                raise self._too_large()
            if part:
                yield part

    def _too_large(self) -> Problem:
        most = self._limits.body_bytes >> 20
        return Problem(413, "body_too_large", f"the body is larger than {most} MiB", headers={"connection": "close"})


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")
