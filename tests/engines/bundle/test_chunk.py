"""Chunks: where a long prompt is divided."""

from __future__ import annotations

import functools
import operator

import pytest

from costroute_rt.engines.bundle.chunk import Chunks

COMMA, LENGTH = 0, 75


def fill(*sections: list[int], most: int = 8, length: int = LENGTH) -> tuple[list[list[int]], bool]:
    """The tokens of each chunk, and whether some were left out."""
    chunks, is_truncated = Chunks(length, COMMA, most).fill([[(section, 1.0)] for section in sections])
    return [[token for token, _ in chunk] for chunk in chunks], is_truncated


def words(count: int, comma_at: int | None = None) -> list[int]:
    found = list(range(1, count + 1))
    if comma_at is not None:
        found[comma_at] = COMMA
    return found


@pytest.mark.parametrize(("tokens", "lengths"), [(0, [0]), (1, [1]), (75, [75]), (76, [75, 1]), (225, [75, 75, 75])])
def test_a_chunk_takes_as_much_as_fits(tokens: int, lengths: list[int]) -> None:
    chunks, is_truncated = fill(words(tokens))
    assert [len(chunk) for chunk in chunks] == lengths
    assert functools.reduce(operator.iadd, chunks, []) == words(tokens)
    assert not is_truncated


@pytest.mark.parametrize(("comma_at", "first"), [(74, 75), (70, 71), (55, 56), (54, 75), (0, 75)])
def test_a_chunk_ends_at_a_comma_among_its_last_twenty_tokens(comma_at: int, first: int) -> None:
    chunks, _ = fill(words(80, comma_at))
    assert [len(chunk) for chunk in chunks] == [first, 80 - first]
    assert functools.reduce(operator.iadd, chunks, []) == words(80, comma_at)


def test_no_token_moves_if_the_next_chunk_begins_with_a_comma() -> None:
    tokens = words(80, 70)
    tokens[75] = COMMA
    assert [len(chunk) for chunk in fill(tokens)[0]] == [75, 5]


def test_a_break_closes_a_chunk_and_the_comma_before_it_is_forgotten() -> None:
    assert fill([1, COMMA, 2], [3])[0] == [[1, COMMA, 2], [3]]
    assert fill([], [3], [], [4], [])[0] == [[], [3], [], [4]]
    chunks, _ = fill(words(60, 58), words(76))
    assert [len(chunk) for chunk in chunks] == [60, 75, 1]
    assert fill(words(75), [1])[0] == [words(75), [1]]


def test_chunks_beyond_the_limit_are_left_out() -> None:
    chunks, is_truncated = fill(words(151), most=2)
    assert ([len(chunk) for chunk in chunks], is_truncated) == ([75, 75], True)
    assert fill([1], [2], [], most=2) == ([[1], [2]], False)


def test_a_single_chunk_is_filled_to_its_end_whatever_breaks_and_commas_say() -> None:
    assert fill([1, 2], [3], most=1) == ([[1, 2, 3]], False)
    chunks, is_truncated = fill(words(80, 70), most=1)
    assert (chunks, is_truncated) == ([words(80, 70)[:75]], True)


def test_weights_stay_with_their_tokens() -> None:
    chunks, _ = Chunks(3, COMMA, 8).fill([[([1, COMMA, 2], 1.5), ([3], 0.5)]])
    assert chunks == [[(1, 1.5), (COMMA, 1.5)], [(2, 1.5), (3, 0.5)]]
