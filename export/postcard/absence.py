"""What a caption says is absent: 'no houses', 'a treeless meadow', 'not a boat in sight', 'and nothing else'."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from costroute_rt.export.postcard import words as w
from costroute_rt.export.postcard.scene import ATTRIBUTES, DARK, TOGETHER, Scene
from costroute_rt.export.postcard.speaker import Speaker, absent_things, article

ABSENCE_SHARE, NOTHING_ELSE_SHARE = 0.3, 0.12
"""How often a caption says what is absent; and, if it names all that stands in its scene, that there is nothing else."""
ADJECTIVE_SHARE, ONE_SHARE = 0.15, 0.2
"""How often an absence is said by an adjective, and by 'not a single ...'."""
ABOVE = ("clouds", "birds", "celestial")
"""Things of the sky, whose adjectives stand before another kind of noun."""
PLACE_NOUN = re.compile(
    r"\b(an? )?((?:(?:summer|spring|autumn|winter|mountain|alpine) )?"
    r"(?:meadow|fields?|countryside|pastures?|grassland|prairie|plains?|desert|dunes?|beach|coast|shore|sea|ocean|bay|cove|lake|pond|loch|"
    r"river|stream|creek|brook|landscape|scene))\b(?! palm)"
)
SKY_NOUN = re.compile(
    r"\b(an? )?((?:(?:summer|spring|autumn|winter) )?(?:night|sky|skies|day|morning|evening|sunset|sunrise|dusk|dawn|afternoon))\b"
)
"""Nouns before which an adjective such as 'treeless' or 'cloudless' can stand."""
WIDER = {"house": ("landmark", ("building", "unbuilt")), "tree": ("flowers", ("plant",)), "animal": ("birds", ("animal",))}
"""Things whose absence has words that deny another thing as well, and parts of these words: a church is a building."""


@dataclass(slots=True)
class Absences:
    """Phrases such as 'no houses', and adjectives with the kind of noun that they need."""

    phrases: list[str] = field(default_factory=list)
    adjectives: list[tuple[str, str]] = field(default_factory=list)
    """(attribute, adjective)"""

    def are_sentence(self) -> bool:
        """True if the phrases can be the whole caption."""
        return bool(self.phrases) and not self.adjectives and self.phrases[0] not in w.NOTHING_ELSE


def choose_absences(speaker: Speaker, keep: set[str]) -> Absences:
    """What the caption says is absent, mostly nothing; records it in `speaker.stated`."""
    rng, said = speaker.rng, Absences()
    if names_everything(speaker.scene, keep) and rng.random() < NOTHING_ELSE_SHARE:
        speaker.state("house", "tree")
        said.phrases.append(rng.choice(w.NOTHING_ELSE))
        return said
    if rng.random() >= ABSENCE_SHARE:
        return said
    absent = absent_things(speaker.scene)
    chosen = rng.sample(absent, min(len(absent), rng.choices((1, 2, 3), (62, 27, 11))[0]))
    speaker.state(*chosen)
    plain = []
    for name in chosen:
        if rng.random() < ADJECTIVE_SHARE and (adjective := adjective_of(name, speaker.scene, rng)):
            said.adjectives.append((name, adjective))
        elif rng.random() < ONE_SHARE and name in w.ABSENT_ONE:
            said.phrases.append(rng.choice(w.ABSENCES_OF_ONE).format(rng.choice(true_words(name, w.ABSENT_ONE[name], speaker.scene))))
        elif name == "celestial":
            plain.append(light_of(speaker.scene, rng))
        else:
            plain.append(rng.choice(true_words(name, w.ABSENT[name], speaker.scene)))
    if len(plain) > 1 and rng.random() < 0.5:
        said.phrases.append(fill(rng.choice(w.ABSENCES), rng.choice((" or ", " and ", ", ")).join(plain)))
    else:
        form = rng.choice(w.ABSENCES) if rng.random() < 0.6 else "no {}"
        said.phrases += [fill(form, thing) for thing in plain]
    return said


def fill(form: str, thing: str) -> str:
    """The form with the thing in all its places."""
    return form.replace("{}", thing)


def names_everything(scene: Scene, keep: set[str]) -> bool:
    """True if the caption names all that stands in the scene, and neither house nor tree does."""
    standing = {name for name in TOGETHER if scene[name] != ATTRIBUTES[name][0]}
    return not standing & {"house", "tree"} and standing <= keep


def light_of(scene: Scene, rng: random.Random) -> str:
    """What may be missing in the sky: mostly the moon at night, and the sun by day."""
    usual, other = ("moon", "sun") if scene["sky"] in DARK else ("sun", "moon")
    return usual if rng.random() < 0.85 else other


def adjective_of(name: str, scene: Scene, rng: random.Random) -> str | None:
    if name == "celestial":
        return "moonless" if scene["sky"] in DARK else "sunless"
    return rng.choice(true_words(name, w.LESS[name], scene)) if name in w.LESS else None


def true_words(name: str, words: Sequence[str], scene: Scene) -> Sequence[str]:
    """Those of the words for the absence of a thing that deny nothing else which the scene has."""
    other, parts = WIDER.get(name, ("", ()))
    if not other or scene[other] == ATTRIBUTES[other][0]:
        return words
    return [word for word in words if not any(part in word for part in parts)]


def add_absences(text: str, said: Absences, rng: random.Random) -> str:
    """Puts adjectives before the first noun that they fit, and joins the phrases to the text, mostly at its end."""
    phrases = list(said.phrases)
    for name, adjective in said.adjectives:
        is_above = name in ABOVE
        changed = put_before(adjective, SKY_NOUN if is_above else PLACE_NOUN, text)
        if changed == text or rng.random() < 0.1:
            phrases.append(f"{adjective} {'sky' if is_above else rng.choice(('landscape', 'place', 'land'))}")
        else:
            text = changed
    return join_phrases(text, phrases, rng)


def put_before(adjective: str, noun: re.Pattern[str], text: str) -> str:
    """The text with the adjective before its first such noun, and with the article that the adjective needs."""
    return noun.sub(lambda found: f"{article(adjective) if found[1] else adjective} {found[2]}", text, count=1)


def join_phrases(text: str, phrases: Sequence[str], rng: random.Random) -> str:
    if not phrases:
        return text
    said = rng.choice((", ", " and ", ", ")).join(phrases)
    if text.endswith("."):
        return f"{text} {said[0].upper()}{said[1:].rstrip('!')}."
    if rng.random() < 0.15:
        return said + rng.choice((", ", ", just ", ", only ", ". ", "; ", ": ")) + text
    joint = " " if said.startswith(("without", "but", "with ", "and ", "(")) else ""
    return text + (joint or rng.choice((", ", ", ", " but ", " and ", ". ", " "))) + said
