"""W10: tables of labels are of bounded size, also when they are decompressed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from costroute_rt.error import LabelError, OutputError
from costroute_rt.export.router import csv_file
from costroute_rt.export.router.label_file import open_label_file
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import read_prompts

HEADER = "prompt,candidate,score\n"


def write_gzip(path: Path, *pieces: bytes, times: int = 1) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(HEADER.encode())
        for _ in range(times):
            for piece in pieces:
                file.write(piece)
    return path


def test_a_table_that_unpacks_to_one_endless_line_is_refused(tmp_path: Path) -> None:
    path = write_gzip(tmp_path / "labels.csv.gz", b"a" * (1 << 20), times=400)
    with pytest.raises(LabelError, match="line 2: it has more than 1,048,576 characters"):
        LabelTable.open(path)


@pytest.mark.parametrize(("name", "limit"), [("MOST_CHARACTERS", 3 << 20), ("MOST_LINES", 1000)])
def test_a_table_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
    monkeypatch.setattr(csv_file, name, limit)
    path = write_gzip(tmp_path / "labels.csv.gz", *[b"a,b,%d\n" % number for number in range(1000)], times=1000)
    with pytest.raises(LabelError, match="split it into several tables"):
        LabelTable.open(path)


def test_the_limits_keep_memory_below_half_a_gigabyte() -> None:
    assert csv_file.MOST_CHARACTERS <= 256 << 20
    assert csv_file.MOST_LINES * 100 <= 300_000_000  # about 100 bytes are kept of each


def test_an_endless_field_in_quotes_is_refused(tmp_path: Path) -> None:
    path = write_gzip(tmp_path / "labels.csv.gz", b'"', *[b"a\n" * 1000] * 100)
    with pytest.raises(LabelError, match="not CSV"):
        LabelTable.open(path)


def damage(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize("place", [*range(10), 10, 11, 12, 20, -8, -4, -1])
def test_a_damaged_gzip_file_is_a_label_error(tmp_path: Path, place: int) -> None:
    path = write_gzip(tmp_path / "labels.csv.gz", b"a,b,0.5\n" * 50)
    path.write_bytes(damage(path.read_bytes(), place % path.stat().st_size))
    try:
        LabelTable.open(path)
    except LabelError:
        return
    assert place in (4, 5, 6, 7, 8, 9, 1, 2, 3)  # time, level and system, which mean nothing


def test_a_deflate_block_of_an_invalid_type_is_a_label_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\x07" * 20)
    with pytest.raises(LabelError, match=r"not a complete \.gz file"):
        read_prompts(path)
    with pytest.raises(zlib.error):
        gzip.decompress(path.read_bytes())


def test_labels_are_not_written_to_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    os = pytest.importorskip("posix", reason="makes a pipe as POSIX has them")
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(OutputError, match="not a regular file"), open_label_file(tmp_path / "labels.csv"):
        pass
