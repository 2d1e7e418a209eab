"""The prompt syntax: the examples that the web UI documents, its corner cases, and any text whatever."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costroute_rt.error import PromptError
from costroute_rt.family.prompt_syntax import LARGEST_WEIGHT, parse_prompt, strip_syntax

MARKS = ["(", ")", "[", "]", ":", "|", "\\", "BREAK", " ", "1.2", "-", ".", "9", "house", ",", "ß", "\n"]
SYNTAX = st.lists(st.sampled_from(MARKS)).map("".join)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [("a ", 1.0), ("house", 1.3 * 1.1 * 1.1), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
             ("sky", 1.1**4), (".", 1.1)],
        ),
        ("[quiet] ((loud))", [("quiet", 1 / 1.1), (" ", 1.0), ("loud", 1.21)]),
        ("(a:-1.5) (b: .5 ) (c:+2.)", [("a", -1.5), (" ", 1.0), ("b", 0.5), (" ", 1.0), ("c", 2.0)]),
        ("never opened) or] 12:30", [("never opened) or] 12:30", 1.0)]),
        ("(no number:x) (nor:1.2.3)", [("no number:x", 1.1), (" ", 1.0), ("nor:1.2.3", 1.1)]),
        ("[a (b:2)", [("a ", 1 / 1.1), ("b", 2 / 1.1)]),
        ("([crossed)]", [("crossed", 1.0)]),
        ("back\\slash \\\\ end\\", [("backslash \\ end", 1.0)]),
        ("a (b|c) [\\|] d", None),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("()", []),
    ],
)  # fmt: skip
def test_brackets_give_weights(text: str, pieces: list[tuple[str, float]] | None) -> None:
    if pieces is None:
        with pytest.raises(PromptError, match="alternation"):
            parse_prompt(text)
        return
    (section,) = parse_prompt(text)
    assert [piece for piece, _ in section] == [piece for piece, _ in pieces]
    assert [weight for _, weight in section] == pytest.approx([weight for _, weight in pieces])


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("a lake BREAK a hill", [[("a lake", 1.0)], [("a hill", 1.0)]]),
        ("BREAK a BREAK BREAK b BREAK", [[], [("a", 1.0)], [], [("b", 1.0)], []]),
        ("(a BREAK b:1.2)", [[("a", 1.2)], [("b", 1.2)]]),
        ("a\nBREAK, b", [[("a", 1.0)], [(", b", 1.0)]]),
    ],
)
def test_a_break_divides_sections(text: str, sections: list[list[tuple[str, float]]]) -> None:
    assert [list(section) for section in parse_prompt(text)] == sections


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a [cat:dog:0.5] here", r"prompt editing, \[cat:dog:0.5\], which is not supported: write one of the texts"),
        ("[dog:10]", "prompt editing"),
        ("[dog::0.3 ]", "prompt editing"),
        ("[a|b]", "alternation"),
        ("[(a) | b]", "alternation"),
        ("(a:10.5)", r"gives 'a' the weight 10.5: use weights from -10 to 10"),
        ("(a:-11)", "the weight -11"),
        ("(a:" + 400 * "9" + ")", "the weight inf"),
        (25 * "(" + "a", "the weight 10.83"),
        (10_000 * "(" + "a" + 10_000 * ")", "more than 100 brackets"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_remedy(text: str, problem: str) -> None:
    with pytest.raises(PromptError, match=f"{problem}.*taken literally"):
        parse_prompt(text)


@pytest.mark.parametrize("text", ["(x|y)", "[a|b", "[cat:dog]", r"\[a|b\]", r"\[dog:0.5\]", "(dog:0.5)", "[(dog:0.5)]"])
def test_what_looks_like_it_but_is_not_is_accepted(text: str) -> None:
    assert parse_prompt(text)


@pytest.mark.parametrize(
    "text",
    [10_000 * "()", 10_000 * "[]", 99 * "(" + 10_000 * "a:1)", ":" + 20_000 * "1", 20_000 * " " + "BREAK", 20_000 * "(a:1" + 90 * "("],
)
def test_the_time_grows_with_the_length_alone(text: str) -> None:
    started = time.process_time()
    with suppress(PromptError):
        parse_prompt(text)
    assert time.process_time() - started < 1


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), SYNTAX))
def test_any_text_has_finite_weights_or_is_refused(text: str) -> None:
    try:
        sections = parse_prompt(text)
    except PromptError:
        return
    assert all(piece and abs(weight) <= LARGEST_WEIGHT for section in sections for piece, weight in section)
    assert all(one[1] != other[1] for section in sections for one, other in itertools.pairwise(section))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(blacklist_characters="()[]\\")).filter(lambda text: "BREAK" not in text))
def test_text_without_syntax_is_one_piece(text: str) -> None:
    assert parse_prompt(text) == ((((text, 1.0),) if text else ()),)
    assert strip_syntax(text) == text.strip()


def test_the_words_alone() -> None:
    assert strip_syntax("a (red:1.3) [fox], BREAK in \\(deep\\) snow") == "a red fox, in (deep) snow"
