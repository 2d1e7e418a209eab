from __future__ import annotations

import pytest

from costroute_rt.cli.table import format_bytes, format_table


def test_numbers_stand_right_and_text_left() -> None:
    rows = [("base@8", 412.25, True), ("turbo@1", 31.0, False), ("x", None, None)]
    assert format_table(("candidate", "ms", "loaded"), rows) == [
        "candidate     ms  loaded",
        "base@8     412.2  yes",
        "turbo@1     31.0  no",
        "x              -  -",
    ]


def test_table_without_rows_is_its_header() -> None:
    assert format_table(("a", "b"), []) == ["a  b"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (25_300_000, "25.3 MB"), (4e9, "4.0 GB"), (5e12, "5000.0 GB")])
def test_bytes_read_as_sizes(count: float, text: str) -> None:
    assert format_bytes(count) == text
