"""Habits of writing that do not change what a caption states: chatter, separators, abbreviations, typos."""

import random
from collections.abc import Sequence

from costroute_rt.export.postcard import words as w

TYPO_SHARE, NEXT_TYPO_SHARE = 0.2, 0.5
"""How often a text has a typo, and a text with typos one more."""
SEPARATORS: tuple[tuple[str, ...], tuple[int, ...]] = (
    (", ", " ", " + ", "; ", " / ", " & ", " and ", "\n", "\n- ", ". ", ",", " | ", " - ", "... "),
    (50, 20, 5, 3, 3, 3, 5, 3, 3, 3, 2, 1, 2, 1),
)
"""What stands between keywords, and how often."""
OPENERS = ("a ", "an ", "the ", "one ", "two ", "three ", "four ", "1 ", "2 ", "3 ", "4 ", "some ", "just ", "only ")
"""Beginnings of phrases that can follow 'draw me' or 'a picture of'."""
GREETINGS = (
    *("hi! ", "hello, ", "hey, ", "dear mom, ", "ok so ", "hmm, ", "idk, ", "please: ", "for my sister: ", "my dream: ", "well, "),
    *("christmas card vibes: ", "birthday card: ", "postcard from the alps: ", "greetings from italy: ", "holiday memories, ", "yes, "),
    *("something peaceful, ", "something like ", "i dreamt of ", "i remember ", "my grandma's ", "our ", "title: ", "scene: ", "view: "),
    *("remember ", "picture this: ", "once upon a time, ", "prompt: ", "in my mind: ", "postcard motif: ", "what about ", "wish: "),
)
THANKS = (
    *(" please", " pls", " thanks", ", thank you!", " :)", ", why not", " maybe", "?", "!", "...", " if possible", ", you know", " <3"),
    *(", would be nice", " or so", " plz", ", thx", " please!", ", that's all", ", ok?", " - that would be lovely", ", i think", "!!"),
)
FILLER_SHARE, CHATTER_SHARE = 0.2, 0.07
"""How often a text has words that say nothing between its own, and whole sentences that say nothing."""
SHORT_FORMS = ((" with ", " w/ "), (" and ", " & "), (" and ", " + "), (" with ", " + "), ("the ", "teh "), ("there is ", "theres "))
NEIGHBOURS = {"a": "s", "e": "r", "i": "o", "o": "p", "n": "m", "t": "r", "s": "d", "r": "t", "l": "k", "u": "i", "d": "f", "h": "j"}
"""For a letter, the key beside it."""
BY_EAR = (
    *(("ight", "ite"), ("ou", "ow"), ("oo", "u"), ("ee", "ea"), ("ea", "ee"), ("ph", "f"), ("c", "k"), ("ck", "k"), ("ch", "sh")),
    *(("ll", "l"), ("tt", "t"), ("ss", "s"), ("le", "el"), ("er", "re"), ("i", "y"), ("ai", "ay"), ("ow", "oa"), ("ow", "o"), ("s", "z")),
    *(("wh", "w"), ("oa", "o"), ("ie", "ei"), ("ue", "u"), ("a", "e"), ("e", "i"), ("ou", "au"), ("tle", "tel"), ("y", "ie"), ("se", "ce")),
)
"""Spellings, and how they are written by ear."""


def finish(text: str, style: str, rng: random.Random) -> str:
    """Adds filler, letter case, abbreviations and typos."""
    if style == "wish":
        text = rng.choice(w.IMPERATIVES) + text if text.startswith(OPENERS) else text
        text += "?" if text.startswith(("can ", "could ", "how ")) and rng.random() < 0.8 else ""
    elif style in ("flowing", "front") and rng.random() < 0.09 and text.startswith(OPENERS):
        text = rng.choice(w.PREFIXES) + text
    elif style in ("flowing", "question") and text.startswith(OPENERS) and rng.random() < (1.0 if style == "question" else 0.02):
        text = rng.choice(("what would {} look like?", "how does {} look?", "can you show me {}?", "{}?", "do you have {}?")).format(text)
    elif rng.random() < 0.06:
        text = rng.choice(GREETINGS) + text
    if style not in ("sentences", "question"):
        draw = rng.random()
        if draw < 0.09:
            text += ", " + rng.choice(w.SUFFIXES)
        elif draw < 0.16:
            text += "."
        elif draw < 0.22:
            text += rng.choice(THANKS)
    elif rng.random() < 0.06:
        text = text[0].lower() + text[1:]
    if rng.random() < FILLER_SHARE:
        text = with_fillers(text, rng)
    if rng.random() < CHATTER_SHARE:
        text = with_chatter(text, rng)
    if style == "flowing" and rng.random() < 0.06:
        text = without_articles(text)
    if rng.random() < 0.05:
        text = text.replace(*rng.choice(SHORT_FORMS))
    if rng.random() < TYPO_SHARE:
        text = with_typo(text, rng)
        while rng.random() < NEXT_TYPO_SHARE:
            text = with_typo(text, rng)
    draw = rng.random()
    if draw < 0.2:
        return text[0].upper() + text[1:]
    return text.upper() if draw < 0.206 else text


def with_fillers(text: str, rng: random.Random) -> str:
    """Puts one to four words or names between those of the text."""
    parts = text.split(" ")
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        is_name = rng.random() < 0.2
        parts.insert(
            rng.randint(0, len(parts)), "".join(rng.choices(w.SYLLABLES, k=rng.choice((2, 3)))) if is_name else rng.choice(w.FILLERS)
        )
    return " ".join(parts)


def with_chatter(text: str, rng: random.Random) -> str:
    """Puts sentences that say nothing before the text, behind it, or both."""
    before, behind = (([rng.choice(w.CHATTER)] if rng.random() < share else []) for share in (0.7, 0.5))
    return rng.choice((", ", ". ", "... ", "! ", " - ", "\n")).join([*before, text.rstrip("."), *behind])


def without_articles(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word not in ("a", "an", "the"))


def with_typo(text: str, rng: random.Random) -> str:
    """Writes one word of four letters or more wrongly."""
    parts = text.split(" ")
    long = [i for i, word in enumerate(parts) if len(word) >= 4 and word.isalpha()]
    if not long:
        return text
    i = rng.choice(long)
    parts[i] = by_ear(parts[i], rng) if rng.random() < 0.4 else mistyped(parts[i], rng)
    return " ".join(parts)


def mistyped(word: str, rng: random.Random) -> str:
    """Drops, swaps, doubles or mistypes a letter, but not the first letter."""
    at = rng.randrange(1, len(word) - 1)
    before, letter, following, rest = word[:at], word[at], word[at + 1], word[at + 2 :]
    return before + rng.choice(
        (
            following + rest,
            following + letter + rest,
            letter + letter + following + rest,
            NEIGHBOURS.get(letter, letter) + following + rest,
        )
    )


def by_ear(word: str, rng: random.Random) -> str:
    """Spells a part after the first letter as it sounds, or leaves out a vowel."""
    first, rest = word[0], word[1:]
    heard = [(spelling, sound) for spelling, sound in BY_EAR if spelling in rest]
    if heard and rng.random() < 0.75:
        return first + rest.replace(*rng.choice(heard), 1)
    vowels = [i for i, letter in enumerate(rest) if letter in "aeiou"]
    if not vowels:
        return word
    at = rng.choice(vowels)
    return first + rest[:at] + rest[at + 1 :]


def join_keywords(parts: Sequence[str], rng: random.Random) -> str:
    """One string of keywords, with one of many separators."""
    separator = rng.choices(*SEPARATORS)[0]
    return separator.join(parts) if separator != "\n- " else "- " + separator.join(parts)
