"""Captions as many people would write them: `caption(scene, rng) -> (text, what the text states)`.

Styles: one flowing phrase, a list of keywords, full sentences, a wish ("draw me ..."), a question, place or time first, single words with
full stops, lines of a poem, labels ("background: snowy mountains"), one thing after the other ("first a lake, then ..."), and places in the
picture ("left: a red house"). A caption names nearly everything that stands in its scene: what a prompt does not name is then mostly absent
from the image.
"""

import random
import re
from collections.abc import Sequence

from costroute_rt.export.postcard import words as w
from costroute_rt.export.postcard.absence import Absences, add_absences, choose_absences, join_phrases
from costroute_rt.export.postcard.habits import finish, join_keywords
from costroute_rt.export.postcard.scene import ATTRIBUTES, TOGETHER, Scene, Value
from costroute_rt.export.postcard.speaker import OVERHEAD, SUBJECTS, Speaker, article, nameable

UNNAMED = ((0, 1, 2, 99), (66, 16, 8, 10))
"""Numbers of things that are not named (99: most of them) and their odds."""
NAMED = (1, 2, 3, 4, 5, 6)
"""Numbers of attributes that are named where most are not."""
AMBIENT = ("celestial", "clouds", "birds")
"""Things that are often left unnamed: an image with them is right for a prompt without them."""
SURROUNDINGS = {"sky": 0.6, "ground": 0.75, "season": 0.25}
"""How often these are named."""
SEASON_SHARE: dict[Value, float] = {"winter": 0.6, "autumn": 0.4}
"""How often the season is also named where the ground is: 'a meadow' without a season should mostly be green."""
STYLES = (
    ("flowing", "keywords", "sentences", "wish", "question", "front", "fragments", "poem", "labels", "sequence", "spatial"),
    (36, 17, 10, 10, 3, 6, 4, 5, 4, 2, 3),
)
ONLY_ABSENCE_SHARE, EMPTY_SHARE = 0.08, 0.3
"""How often a caption that says what is absent says nothing else; and how often it calls an empty scene empty."""
YES_SHARE = 0.15
"""How often a list of keywords that says what is absent also says of the others that they are wanted."""
MANY = w.options("lots |two |three |four |2 |3 |4 |some |several |a few |a pair |flowers|wild|cows|sheep|cattle")
"""Beginnings of phrases before which a sentence has 'there are'."""

BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou])")
"""The article 'a' where it must be 'an', in a form whose next word was not known; no word here begins like 'unit' or 'one'."""


def caption(scene: Scene, rng: random.Random, *, vague: float = 0.0) -> tuple[str, Scene]:
    """Describes `scene` as a person might.

    vague: share of houses, boats, trees and mountains named without colour or kind ("a house"), which `stated` does not contain.
    Returns the text, and the attributes and values that it states.
    """
    keep = choose_named(scene, rng)
    speaker = Speaker(scene, rng, vague)
    style = rng.choices(*STYLES)[0]
    missing = choose_absences(speaker, keep)
    if missing.are_sentence() and rng.random() < ONLY_ABSENCE_SHARE:
        text = ", ".join(missing.phrases)
    elif is_empty(scene) and "ground" in keep and rng.random() < EMPTY_SHARE:
        text = add_absences(empty(speaker, keep), missing, rng)
    elif style == "keywords":
        text = keyword_list(speaker, keep, missing)
    else:
        write = WRITERS.get(style, flowing) if len(keep) > 1 else flowing
        text = add_absences(write(speaker, keep), missing, rng)
    text = BEFORE_VOWEL.sub(r"\1n ", join_phrases(text, speaker.later, rng))
    return finish(text, style, rng), speaker.stated


def is_empty(scene: Scene) -> bool:
    """True if no thing stands in the scene; sun, moon, clouds and birds do not count."""
    return all(scene[name] == ATTRIBUTES[name][0] for name in TOGETHER)


def choose_named(scene: Scene, rng: random.Random) -> set[str]:
    """The attributes to name: mostly all things of the scene, and some of its surroundings."""
    names = nameable(scene)
    unnamed = rng.choices(*UNNAMED)[0]
    if unnamed == 99:
        keep = set(rng.sample(names, min(rng.choice(NAMED), len(names))))
    else:
        things = [name for name in names if name not in AMBIENT and name not in SURROUNDINGS]
        keep = set(rng.sample(things, max(0, len(things) - unnamed)))
        keep |= {name for name in names if name in AMBIENT and rng.random() < 0.45}
        keep |= {name for name in names if name in SURROUNDINGS and rng.random() < SURROUNDINGS[name]}
    if "ground" in keep and "season" in names and rng.random() < SEASON_SHARE.get(scene["season"], 0.0):
        keep.add("season")
    return keep or {rng.choice(("sky", "ground"))}


def merge_phrases(speaker: Speaker, keep: set[str]) -> tuple[bool, bool]:
    """Whether to merge ground with season, and sky with sun or moon, into one phrase; removes the second of each from `keep`."""
    rng, scene = speaker.rng, speaker.scene
    season = {"ground", "season"} <= keep and (scene["ground"], scene["season"]) in w.SEASON_GROUNDS and rng.random() < 0.45
    light = {"sky", "celestial"} <= keep and (scene["sky"], scene["celestial"]) in w.CELESTIAL_SKIES and rng.random() < 0.4
    if season:
        keep.discard("season")
    if light:
        keep.discard("celestial")
    return season, light


# -- styles


def flowing(speaker: Speaker, keep: set[str]) -> str:
    """'a red house and two pines by a lake with a white boat, snowy mountains behind, at sunset'."""
    rng = speaker.rng
    season, light = merge_phrases(speaker, keep)
    subjects = [name for name in SUBJECTS if name in keep]
    rng.shuffle(subjects)
    around = [rng.choice(("with {}", "with {}", "{}")).format(speaker.noun(name)) for name in OVERHEAD if name in keep]
    rng.shuffle(around)
    behind = speaker.noun("mountains") if "mountains" in keep else ""
    seasonal = speaker.season() if "season" in keep else ""
    if subjects:
        place = speaker.place(0, season) if "ground" in keep else ""
        head = join_subjects(speaker, subjects, place)
    elif {"ground", "sky"} <= keep and rng.random() < 0.4:
        head = f"{speaker.time(1, light)} {speaker.place(0, season)}"
        keep.discard("sky")
    elif "ground" in keep:
        head = speaker.place(1, season)
    elif behind:
        head, behind = behind, ""
    elif "sky" in keep and (around or seasonal):
        head = speaker.time(1, light)
        keep.discard("sky")
    elif around:
        head = around.pop(0).removeprefix("with ")
    elif "sky" in keep:
        head = speaker.time(rng.choice((0, 1, 1, 2)), light)
        keep.discard("sky")
    else:
        head, seasonal = (seasonal if rng.random() < 0.5 else rng.choice(w.SEASONS[speaker.scene["season"]][1])), ""
    when = speaker.time(0, light) if "sky" in keep else ""
    return assemble(rng, head, when, seasonal, behind, around)


def assemble(rng: random.Random, head: str, when: str, seasonal: str, behind: str, around: list[str]) -> str:
    """Joins the parts in one of several orders."""
    front = f"{when}, " if when and rng.random() < 0.05 else ""
    parts = [rng.choice(w.BEHIND).format(behind)] if behind else []
    parts = parts + around if rng.random() < 0.6 else around + parts
    if when and not front:
        parts.insert(rng.choice((0, 0, len(parts))), when)
    if seasonal:
        parts.insert(rng.choice((0, 0, len(parts))), seasonal)
    text = head
    loose = rng.random() < 0.7
    for part in parts:
        joined = loose and part.startswith(("with ", "in ", "under ", "at ", "on ", "and ", "during "))
        text += (" " if joined else ", ") + part
    return front + text


def join_subjects(speaker: Speaker, names: Sequence[str], place: str) -> str:
    """'a red house beside two pines, a path and a fence in a meadow', or '... by a lake with a white boat'."""
    rng, scene = speaker.rng, speaker.scene
    near = (
        names[:2] in (["house", "tree"], ["tree", "house"])
        and scene["house2"] == "none"
        and scene["tree_side"] in (scene["house_side"], "both")
    )
    subjects = [speaker.noun(name) for name in names]
    tail = " with " + subjects.pop() if place and len(subjects) > 1 and rng.random() < 0.35 else ""
    if near and len(subjects) > 1 and rng.random() < 0.6:
        subjects = [subjects[0] + rng.choice((" beside ", " next to ", " near ")) + subjects[1], *subjects[2:]]
    text = listing(subjects, rng)
    return text + (" " + place if place else "") + tail


def listing(parts: Sequence[str], rng: random.Random) -> str:
    """'a, b and c'."""
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + rng.choice((" and ", " and ", ", and ", " with ")) + parts[-1]


def keyword_list(speaker: Speaker, keep: set[str], missing: Absences) -> str:
    """'red house, lake, sunset, snowy mountains, no birds'."""
    rng = speaker.rng
    parts = keywords(speaker, keep)
    if rng.random() < 0.7:
        rng.shuffle(parts)
    if missing.phrases and rng.random() < YES_SHARE:
        wanted = rng.choice(w.WANTED)
        parts = [wanted.format(part) for part in parts]
    parts = parts + missing.phrases if rng.random() < 0.8 else [*missing.phrases, *parts]
    return add_absences(join_keywords(parts, rng), Absences(adjectives=missing.adjectives), rng)


def keywords(speaker: Speaker, keep: set[str]) -> list[str]:
    """Everything that is named, without articles."""
    rng = speaker.rng
    season, light = merge_phrases(speaker, keep)
    parts = [speaker.noun(name, bare=True) for name in (*SUBJECTS, *OVERHEAD, "mountains") if name in keep]
    if "ground" in keep:
        parts.append(speaker.place(2, season))
    if "sky" in keep:
        parts.append(speaker.time(2, light))
    if "season" in keep:
        speaker.state("season")
        parts.append(rng.choice(w.SEASONS[speaker.scene["season"]][1]))
    return parts


def fragments(speaker: Speaker, keep: set[str]) -> str:
    """'Snow. A church. Two pines.'."""
    rng = speaker.rng
    parts = keywords(speaker, keep)
    rng.shuffle(parts)
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def front(speaker: Speaker, keep: set[str]) -> str:
    """Place or time first: 'at night: a windmill and a red cottage'."""
    rng = speaker.rng
    season, light = merge_phrases(speaker, keep)
    firsts = []
    if "sky" in keep and (rng.random() < 0.5 or "ground" not in keep):
        firsts.append(speaker.time(rng.choice((0, 0, 2)), light))
        keep.discard("sky")
    elif "ground" in keep:
        firsts.append(speaker.place(rng.choice((0, 0, 2)), season))
        keep.discard("ground")
    if light and "sky" in keep:
        keep.add("celestial")
    if season and "ground" in keep:
        keep.add("season")
    if not firsts:
        return flowing(speaker, keep)
    joint = rng.choice((": ", ": ", ", ", " - ", " there is ", " there's ", ", we see ", " i want ", "; "))
    return firsts[0] + joint + flowing(speaker, keep) if keep else firsts[0]


def poem(speaker: Speaker, keep: set[str]) -> str:
    """'the moon hanging low / a red cottage dreaming / by a quiet lake'."""
    rng = speaker.rng
    season, light = merge_phrases(speaker, keep)
    lines = []
    for name in (*SUBJECTS, *OVERHEAD, "mountains"):
        if name in keep:
            text = speaker.noun(name)
            doing = w.DOING[str(speaker.scene[name]) if name == "celestial" else name]
            lines.append(f"{text} {rng.choice(doing)}" if rng.random() < 0.75 and not text.endswith(doing) else text)
    if "ground" in keep:
        lines.append(speaker.place(rng.choice((0, 1)), season))
    if "sky" in keep:
        lines.append(speaker.time(rng.choice((0, 1)), light))
    if "season" in keep:
        lines.append(speaker.season())
    rng.shuffle(lines)
    if rng.random() < 0.3:
        lines[-1] = "and " + lines[-1]
    elif rng.random() < 0.1:
        lines[0] = "oh, " + lines[0]
    return rng.choice((" / ", " / ", "\n", ", ", ",\n", " ... ")).join(lines)


def labels(speaker: Speaker, keep: set[str]) -> str:
    """'foreground: flowers; background: snowy mountains; time: dusk'."""
    rng = speaker.rng
    parts = []
    joint = rng.choice((": ", ": ", ":", " = ", "=", " - "))
    for names, heading in rng.choice((w.LABELS, w.OWN_LABELS)):
        chosen = [name for name in names if name in keep]
        if chosen:
            found = keywords(speaker, set(chosen))
            parts.append(f"{rng.choice(heading)}{joint}{', '.join(found)}")
    if rng.random() < 0.3:
        rng.shuffle(parts)
    return rng.choice(("; ", ", ", "\n", ". ", " | ")).join(parts)


def sequence(speaker: Speaker, keep: set[str]) -> str:
    """'first a lake, then a red house, then the moon'."""
    rng = speaker.rng
    season, light = merge_phrases(speaker, keep)
    parts = [speaker.noun(name) for name in (*SUBJECTS, *OVERHEAD, "mountains") if name in keep]
    parts += [speaker.place(1, season)] if "ground" in keep else []
    parts += [speaker.time(1, light)] if "sky" in keep else []
    parts += [speaker.season()] if "season" in keep else []
    rng.shuffle(parts)
    words = rng.choice(w.ORDINALS)
    return rng.choice((", ", ", ", ". ", "; ")).join(f"{words[min(i, len(words) - 1)]} {part}" for i, part in enumerate(parts))


def spatial(speaker: Speaker, keep: set[str]) -> str:
    """'left: a red house, right: two pines, in the middle a windmill, above the moon'."""
    rng, scene = speaker.rng, speaker.scene
    season, light = merge_phrases(speaker, keep)
    sides: dict[str, list[str]] = {"left": [], "right": []}
    if "house" in keep:
        noun = rng.choice(w.HOUSES)
        houses = ("house", "house2") if scene["house2"] != "none" else ("house",)
        speaker.state(*houses, "house_side")
        for name, side in zip(houses, ("left", "right") if len(houses) == 2 else (str(scene["house_side"]),), strict=True):
            sides[side].append(article(f"{speaker.colour(scene[name])} {noun}"))
    rest = [name for name in (*SUBJECTS, "mountains", *OVERHEAD) if name in keep and name != "house"]
    is_worded = rng.random() < 0.5
    parts = [
        f"{rng.choice(w.SIDE_PLACES).format(side) if is_worded else f'{side}:'} {' and '.join(things)}"
        for side, things in sides.items()
        if things
    ]
    places = {"mountains": w.BACK_PLACES, **dict.fromkeys(OVERHEAD, w.HIGH_PLACES)}
    for name in rest:
        place = rng.choice(places.get(name, w.FRONT_PLACES))
        parts.append(f"{place} {speaker.noun(name)}")
    parts += [speaker.place(rng.choice((0, 1, 2)), season)] if "ground" in keep else []
    parts += [speaker.time(rng.choice((0, 1, 2)), light)] if "sky" in keep else []
    parts += [speaker.season()] if "season" in keep else []
    rng.shuffle(parts)
    return rng.choice((", ", "; ", ". ", "\n")).join(parts)


def empty(speaker: Speaker, keep: set[str]) -> str:
    """A scene in which nothing stands: 'an empty beach at sunset'."""
    rng = speaker.rng
    speaker.state("house", "tree")
    place = speaker.place(2, season=False).removeprefix("a ").removeprefix("the ")
    text = rng.choice(w.EMPTY).format(place)
    parts = [speaker.time(0, celestial=False)] if "sky" in keep else []
    parts += [f"with {speaker.noun(name)}" for name in OVERHEAD if name in keep]
    parts += [speaker.season()] if "season" in keep else []
    return " ".join([text, *parts]) if rng.random() < 0.7 else ", ".join([text, *parts])


def sentences(speaker: Speaker, keep: set[str]) -> str:
    """'There is a small yellow cottage on the left. Behind it you can see rocky peaks. The sun is shining.'."""
    rng = speaker.rng
    season, light = merge_phrases(speaker, keep)
    names = [name for name in SUBJECTS if name in keep]
    rng.shuffle(names)
    place = ""
    if "ground" in keep:
        place = " " + speaker.place(0, season) if names else speaker.place(1, season)
    lines = []
    if names:
        first, rest = names[:2], names[2:]
        text = listing([speaker.noun(name) for name in first], rng)
        there = "There are" if text.startswith(MANY) else "There is"
        lines.append(rng.choice((there + " {}{}", there + " {}{}", "We see {}{}", "{}{}", "You can see {}{}")).format(text, place))
        if rest:
            text = listing([speaker.noun(name) for name in rest], rng)
            lines.append(rng.choice(("There is also {}", "Nearby there is {}", "Also {}", "I also want {}")).format(text))
    elif place:
        lines.append(
            rng.choice(
                ("It shows {}", "The picture shows {}", "This is {}", "We are at {}" if place.startswith("the ") else "We see {}")
            ).format(place)
        )
    if "mountains" in keep:
        text = speaker.noun("mountains")
        lines.append(
            rng.choice(
                (
                    "Behind it you can see {}",
                    "In the background there is {}" if text.startswith("a") else "In the background there are {}",
                    "In the distance you see {}",
                )
            ).format(text)
        )
    lines += overhead_sentences(speaker, keep, light)
    if "season" in keep:
        speaker.state("season")
        lines.append(f"It is {speaker.scene['season']}")
    return ". ".join(part[0].upper() + part[1:] for part in lines) + "."


def overhead_sentences(speaker: Speaker, keep: set[str], light: bool) -> list[str]:
    """Sentences about the sky."""
    rng, lines = speaker.rng, []
    above = [name for name in OVERHEAD if name in keep]
    rng.shuffle(above)
    if above == ["celestial"] and rng.random() < 0.6:
        speaker.state("celestial")
        lines.append(f"The {speaker.scene['celestial']} is {rng.choice(('shining', 'out', 'in the sky'))}")
    elif above:
        text = listing([speaker.noun(name) for name in above], rng)
        lines.append(rng.choice(("Above there is {}", "Overhead you see {}", "There is {} above it all", "High up, {}")).format(text))
    if "sky" in keep:
        when = speaker.time(0, light)
        forms = (
            ("It is {}", "The scene is set {}", "All this {}")
            if when.startswith(("at ", "on ", "in "))
            else ("The scene is set {}", "All this {}")
        )
        lines.append(rng.choice(forms).format(when))
    return lines


WRITERS = {each.__name__: each for each in (sentences, front, fragments, poem, labels, sequence, spatial)}
"""Functions of the styles that have their own; lists of keywords place absences themselves, all others are `flowing`."""
