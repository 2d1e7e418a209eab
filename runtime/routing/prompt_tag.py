"""Tags of a prompt: what it asks for, whatever the things are. Counts, colours, relations, negation, text to draw, style, length.

They carry over to kinds of prompts that no label has, where words do not (compare the tags of Q-Profile, arXiv 2608.24112). A router's file
names the tags that it reads, so a tag never changes its meaning: a better one gets another name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.routing.array import Float32Array

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:['’][^\W\d_]+)?|[^\w\s]")
"""A number, a word with its apostrophe, or one mark of punctuation."""
_QUOTED = re.compile(r"\"[^\"]+\"|“[^”]+”|«[^»]+»|(?<!\w)'[^']{2,}'(?!\w)|(?<!\w)‘[^’]+’(?!\w)")
_MOST_CHARACTERS = 20_000
"""Longer prompts are tagged by their beginning."""
_LARGEST_COUNT = 1000
"""Greater numbers are years or names, not counts."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TO_NINETEEN = _words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_NUMBERS = {word: value for value, word in enumerate(_TO_NINETEEN, 1)}
_NUMBERS |= {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100}
_NUMBERS |= {"dozen": 12, "couple": 2, "pair": 2, "twin": 2, "single": 1}
_UNITS = frozenset(_words("k d mm cm px p th st nd rd s % : / ° - am pm fps ad bc megapixel iso years year old o"))
"""What follows a number that is no count: 8k, 3d, 35 mm, 19th, 16:9."""
_NUMBERED = frozenset(_words(": / - # number no route highway page chapter room level apollo version mark"))
"""What a number that is no count follows: number 7, route 66, 1.5."""
_COLOURS = frozenset(
    _words(
        "red orange yellow green blue purple pink brown black white gray grey golden gold silver violet magenta cyan turquoise teal beige "
        "maroon crimson scarlet navy indigo ivory lavender tan bronze copper"
    )
)
_WORDS: dict[str, str] = {
    "amounts": "some many few several lots various multiple numerous crowd crowds group bunch pile stack hundreds thousands dozens no-one "
    "every each all",
    "comparisons": "more fewer less than most least twice same equal bigger smaller larger taller shorter longer different",
    "fractions": "half halves third thirds quarter quarters fifth fifths sixth eighth part parts piece pieces slice slices cut broken "
    "split divided portion",
    "places": "left right above below under underneath beneath behind front between beside near top bottom over across opposite inside "
    "outside around against next middle corner side",
    "prepositions": "in on at with of from into onto through by for to",
    "negations": "no not without never none nothing nobody empty missing lacking neither nor cannot",
    "lettering": "text word words letter letters says saying written writing sign reads reading labeled titled title caption font logo "
    "typography slogan alphabet",
    "people": "man men woman women person people girl girls boy boys child children kid kids baby lady guy guys he she his her player "
    "couple family soldier king queen princess warrior",
    "faces": "face faces portrait head eyes eye hair hand hands smile smiling expression selfie mouth nose skin",
    "materials": "wooden wood metal metallic glass plastic leather fabric rubber stone ceramic paper cotton fluffy marble brick concrete "
    "steel porcelain furry",
    "shapes": "round square circular triangular rectangular oval spherical cubic conical cylindrical pentagonal cube sphere circle "
    "triangle rectangle cylinder pyramid shape shaped",
    "sizes": "small big large tiny huge giant tall short long little enormous massive miniature",
    "media": "painting drawing sketch illustration watercolor oil cartoon anime manga render rendering art artwork poster sculpture pixel "
    "comic engraving digital abstract baroque style styled impressionism surrealism cubism graffiti collage",
    "photographs": "photo photograph photography picture image shot camera dslr lens bokeh realistic photorealistic closeup film polaroid",
    "polish": "detailed intricate detail details artstation trending cinematic sharp focus octane unreal engine hyper ultra hd uhd smooth "
    "beautiful masterpiece epic dramatic lighting wlop rutkowski concept",
    "scenes": "background landscape street room forest city sky sea ocean mountain mountains lake river beach field kitchen night sunset "
    "table building house garden snow rain space",
    "joins": "and or but while",
}  # fmt: skip
_MARKS = {",": "commas", ".": "sentences", "!": "sentences", "?": "sentences", ";": "sentences"}
_TAG_OF_TOKEN = {word: name for name, words in _WORDS.items() for word in _words(words)} | _MARKS
_LEVELS = (0.0, 0.5, math.log2(3) / 2)
"""log2(1 + n) / 2 of the numbers below 3, from which on it counts as 1."""

TAGS = (
    "counted",
    "count_over_1",
    "count_over_2",
    "count_over_3",
    "count_over_5",
    "count_over_10",
    "total_count",
    "colours",
    "several_colours",
    *_WORDS,
    "actions",
    "plurals",
    "quoted",
    "names",
    "commas",
    "sentences",
    "length",
    "long_words",
    "other_scripts",
)
"""All tags, in the order in which a new router reads them. Numbers of words are log2(1 + n) / 2, at most 1."""
_PLACE = {name: index for index, name in enumerate(TAGS)}


def check_tags(names: Sequence[str]) -> tuple[str, ...]:
    """The names, which must be of tags, each once; raises ConfigError."""
    unknown = [name for name in names if name not in _PLACE]
    if unknown or not names or len(set(names)) != len(names):
        raise ConfigError(
            "tags",
            ", ".join(map(str, unknown or names)) or "none",
            "tags of this version, each once (a newer router needs a newer costroute-rt)",
        )
    return tuple(names)


def tag_prompts(prompts: Sequence[str], names: Sequence[str] = TAGS) -> Float32Array:
    """float32[prompts, names], 0 to 1: how much of each tag a prompt has."""
    rows = np.array([_tag(prompt[:_MOST_CHARACTERS]) for prompt in prompts], dtype=np.float32).reshape(len(prompts), len(TAGS))
    return rows if tuple(names) == TAGS else rows[:, [_PLACE[name] for name in names]]


@lru_cache(maxsize=8)
def _tag(prompt: str) -> tuple[float, ...]:
    """The value of each of TAGS. Kept for the last prompts: a router may need it twice, for its features and for familiarity."""
    written = split_tokens(prompt)
    tokens = [token.lower() for token in written]
    number = _tag_words(tokens)
    colours = [token for token in tokens if token in _COLOURS]
    if colours:
        number["colours"], number["several_colours"] = len(colours), len(set(colours)) - 1
    number["quoted"] = len(_QUOTED.findall(prompt))
    number["names"] = 0 if prompt.islower() else sum(map(_is_name, written[1:], written))
    values = {name: _LEVELS[count] if count < len(_LEVELS) else 1.0 for name, count in number.items() if count}
    values |= _tag_counts(find_counts(tokens))
    values["length"] = min(1.0, math.log2(1 + len(tokens)) / 8)
    if not prompt.isascii():
        values["other_scripts"] = sum(character > "\u024f" and character.isalpha() for character in prompt) / len(prompt)
    row = [0.0] * len(TAGS)
    for name, value in values.items():
        row[_PLACE[name]] = value
    return tuple(row)


def _tag_words(tokens: Sequence[str]) -> dict[str, int]:
    """How many tokens have a tag by their own or by how they end; tokens: in lower case."""
    number = dict.fromkeys(TAGS, 0)
    tag_of_token = _TAG_OF_TOKEN
    for token in tokens:
        if token in tag_of_token:
            number[tag_of_token[token]] += 1
        length = len(token)
        if length > 3:
            last = token[-1]
            if last == "s":
                number["plurals"] += token[-2] != "s"
            elif length > 4 and last == "g":
                number["actions"] += token.endswith("ing")
            elif length > 4 and last == "t":
                number["negations"] += token.endswith(("n't", "n’t"))
            if length > 8:
                number["long_words"] += 1
    return number


def split_tokens(prompt: str) -> list[str]:
    """Numbers, words and marks of punctuation."""
    return _TOKEN.findall(prompt)


def find_counts(tokens: Sequence[str]) -> list[int]:
    """Numbers of things that are stated, in words or digits; tokens: in lower case."""
    counts = []
    for index in [place for place, token in enumerate(tokens) if token in _NUMBERS or token.isdecimal()]:
        token, after = tokens[index], tokens[index + 1] if index + 1 < len(tokens) else ""
        if token in _NUMBERS:
            counts.append(_NUMBERS[token])
        elif len(token) < 5 and after not in _UNITS and not after.isdecimal():
            is_part = index > 0 and (tokens[index - 1].isdecimal() or tokens[index - 1] in _NUMBERED)
            if not is_part and 0 < int(token) <= _LARGEST_COUNT:
                counts.append(int(token))
    return counts


def _tag_counts(counts: Sequence[int]) -> dict[str, float]:
    if not counts:
        return {}
    largest = max(counts)
    above = {f"count_over_{limit}": float(largest > limit) for limit in (1, 2, 3, 5, 10)}
    return {"counted": min(1.0, math.log2(1 + len(counts)) / 2), **above, "total_count": min(1.0, math.log2(1 + sum(counts)) / 5)}


def _is_name(word: str, before: str) -> bool:
    """Whether a word is written like a name: with a capital, in the middle of a sentence, not all in capitals."""
    return word[0].isupper() and len(word) > 1 and not word.isupper() and before not in '.!?:"“'
