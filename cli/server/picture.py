"""Finished images as files in memory, under names that cannot be guessed, until they expire."""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""Media types by format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image file in memory."""

    data: bytes
    format: str
    """png, jpeg or webp."""
    width: int
    height: int
    settings: Mapping[str, Any]
    """What made it, as the file holds them too."""

    @property
    def media_type(self) -> str:
        return TYPES[self.format]

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")


def encode_image(image: Image, format: str, *, quality: int = 90) -> str:
    """An image as a file in base64."""
    buffer = io.BytesIO()
    how: dict[str, Any] = {"compress_level": 1} if format == "png" else {"quality": quality}
    image.convert("RGB").save(buffer, format.upper(), **how)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


class Gallery:
    """Pictures by name. When there is no room for one more, the oldest leave."""

    def __init__(self, clock: Callable[[], float], *, most_bytes: int, keep_s: float) -> None:
        self._clock, self._most_bytes, self._keep_s = clock, most_bytes, keep_s
        self._pictures: dict[str, tuple[float, Picture]] = {}
        self.bytes = 0
        """Held now."""

    def add(self, picture: Picture) -> str:
        """Its name, which ends with the format."""
        self.expire()
        name = f"{secrets.token_urlsafe(24)}.{picture.format}"
        self._pictures[name] = (self._clock() + self._keep_s, picture)
        self.bytes += len(picture.data)
        while self.bytes > self._most_bytes and len(self._pictures) > 1:
            self._remove(next(iter(self._pictures)))
        return name

    def find(self, name: str) -> Picture | None:
        self.expire()
        found = self._pictures.get(name)
        return None if found is None else found[1]

    def discard(self, name: str) -> None:
        if name in self._pictures:
            self._remove(name)

    def expire(self) -> None:
        """Remove what was kept long enough; the oldest comes first."""
        now = self._clock()
        while self._pictures:
            name, (until, _) = next(iter(self._pictures.items()))
            if until > now:
                return
            self._remove(name)

    def _remove(self, name: str) -> None:
        _, picture = self._pictures.pop(name)
        self.bytes -= len(picture.data)

    def __len__(self) -> int:
        return len(self._pictures)
