"""Finds text in the metadata of PNG, JPEG and WebP files, without decoding the image.

Pillow reads a whole WebP, and prepares to decode it, before it gives access to the metadata; the readers here read little more than the
text. They raise ValueError, zlib.error or struct.error if the file is damaged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

MOST_BYTES = 1 << 22
"""Longer texts are refused."""
_MOST_READ, _MOST_READS = 1 << 26, 1 << 20
"""Bytes and reads of one file, after which its text is not looked for any further."""
_PIECE = 1 << 16
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_IMAGE_DESCRIPTION = 270


class Readable(Protocol):
    """A binary file or buffer; `seek` is used if `seekable` is true."""

    def read(self, size: int, /) -> bytes: ...


def find_text(file: Readable, key: str) -> str | None:
    """The text called `key` of a PNG, or the image description in the EXIF data of a JPEG or WebP; None if there is none.

    file: read from its position. Raises ValueError for other kinds of files.
    """
    source = _Source(file)
    start = source.take(2)
    if start == _JPEG:
        exif = _find_jpeg_exif(source)
    else:
        start += source.take(6)
        if start == _PNG:
            return _find_png_text(source, key)
        if not (start.startswith(b"RIFF") and source.take(4) == b"WEBP"):
            raise ValueError("it is another kind of file")
        exif = _find_webp_exif(source, int.from_bytes(start[4:8], "little") - 4)
    return None if exif is None else _image_description(exif.removeprefix(b"Exif\0\0"))


def can_seek(file: object) -> bool:
    """Whether the position of an open file can be changed."""
    return hasattr(file, "seek") and hasattr(file, "seekable") and bool(file.seekable())


class _Source:
    """Reads a file from start to end, in exact amounts."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._seek: Callable[[int, int], object] | None = getattr(file, "seek", None) if can_seek(file) else None
        self._left_bytes, self._left_reads = _MOST_READ, _MOST_READS

    def take(self, count: int) -> bytes:
        """The next `count` bytes; raises ValueError if the file ends before."""
        self._left_bytes, self._left_reads = self._left_bytes - count, self._left_reads - 1
        if count > MOST_BYTES or self._left_bytes < 0 or self._left_reads < 0:
            raise ValueError("its metadata is too long")
        data = b""
        while len(data) < count:
            data += self._read(count - len(data))
        return data

    def _read(self, count: int) -> bytes:
        """Up to `count` bytes, at least one."""
        piece = self._file.read(count)
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise ValueError("it is not open in binary mode")
        if not piece:
            raise ValueError("it ends early")
        return bytes(piece)

    def skip(self, count: int) -> None:
        """Leave out `count` bytes."""
        if self._seek is not None:
            self._seek(count, os.SEEK_CUR)
            return
        while count > 0:
            count -= len(self._read(min(count, _PIECE)))

    def number(self, size: int, order: str = ">") -> int:
        return int.from_bytes(self.take(size), "big" if order == ">" else "little")


def _find_png_text(source: _Source, key: str) -> str | None:
    """The content of the first text chunk with this keyword, of any of the three kinds."""
    while True:
        length, kind = source.number(4), source.take(4)
        if kind == b"IEND":
            return None
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            source.skip(length + 4)
            continue
        data = source.take(length)
        if zlib.crc32(kind + data) != source.number(4):
            raise ValueError("a checksum in it is wrong")
        keyword, _, content = data.partition(b"\0")
        if keyword == key.encode("latin-1"):
            return _png_text(kind, content)


def _png_text(kind: bytes, content: bytes) -> str:
    if kind == b"tEXt":
        return content.decode("latin-1")
    if kind == b"zTXt":
        return _inflate(content[1:]).decode("latin-1")
    _language, _, rest = content[2:].partition(b"\0")
    _translated_keyword, _, text = rest.partition(b"\0")
    return (_inflate(text) if content[:1] == b"\1" else text).decode()


def _inflate(data: bytes) -> bytes:
    text = zlib.decompressobj().decompress(data, MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError("its metadata is too long")
    return text


def _find_jpeg_exif(source: _Source) -> bytes | None:
    """The EXIF segment; None if the image data starts before one is found."""
    while True:
        marker = source.take(2)
        while marker == b"\xff\xff":  # fill bytes may precede a marker
            marker = marker[:1] + source.take(1)
        if marker[0] != 0xFF:
            raise ValueError("its segments are damaged")
        if marker[1] in (0xD9, 0xDA):  # end of image, start of scan
            return None
        if marker[1] == 0x01 or 0xD0 <= marker[1] <= 0xD8:  # markers without content
            continue
        length = source.number(2) - 2
        if length < 0:
            raise ValueError("its segments are damaged")
        if marker[1] != 0xE1:
            source.skip(length)
            continue
        data = source.take(length)
        if data.startswith(b"Exif\0\0"):
            return data


def _find_webp_exif(source: _Source, left: int) -> bytes | None:
    """The EXIF chunk. left: size of all chunks."""
    while left >= 8:
        kind, length = source.take(4), source.number(4, "<")
        if kind == b"EXIF":
            return source.take(length)
        left -= 8 + length + length % 2
        source.skip(length + length % 2 if left > 0 else 0)
    return None


def _image_description(exif: bytes) -> str | None:
    """The text of EXIF tag 270, ASCII or UTF-8."""
    order = {b"MM\0*": ">", b"II*\0": "<"}.get(exif[:4])
    if order is None:
        raise ValueError("its EXIF data is damaged")
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for index in range(count):
        tag, _kind, size, offset = struct.unpack_from(f"{order}HHII", exif, start + 2 + 12 * index)
        if tag == _IMAGE_DESCRIPTION and size > 4:  # shorter values are stored in place of the offset; ours are never so short
            if offset + size > len(exif):
                raise ValueError("its EXIF data is damaged")
            return exif[offset : offset + size].rstrip(b"\0").decode()
    return None
