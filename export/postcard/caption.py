"""Captions as people would write them: `caption(scene, rng) -> (text, what the text states)`.

Four styles: one flowing phrase, a list of keywords, full sentences, and a wish ("draw me ...").
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from costroute_rt.export.postcard import words as w
from costroute_rt.export.postcard.scene import DARK, Scene, Value

NAMED = ((1, 2, 3, 4, 5, 6, 99), (14, 15, 15, 14, 14, 13, 15))
"""Numbers of attributes that are named (99: all) and their odds; counts and sides of trees and houses are extra."""
SEASON_SHARE: dict[Value, float] = {"winter": 0.6, "autumn": 0.4}
"""How often the season is also named where the ground is: 'a meadow' without a season should mostly be green."""
STYLES = (("flowing", "keywords", "sentences", "wish"), (58, 17, 12, 13))
TYPO_SHARE = 0.03
SUBJECTS = ("house", "tree", "boat", "landmark", "animal", "bridge", "path", "fence", "flowers")
OVERHEAD = ("celestial", "birds", "rainbow", "clouds", "balloon")


@dataclass(slots=True)
class Speaker:
    """Words the parts of a scene and records in `stated` which attributes the words state."""

    scene: Scene
    rng: random.Random
    vague: float
    stated: Scene = field(default_factory=dict)

    def state(self, *names: str) -> None:
        for name in names:
            self.stated[name] = self.scene[name]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    # -- noun phrases; bare ones have no article

    def colour(self, value: Value) -> str:
        return self.rng.choice(w.COLOURS[value])

    def on_side(self, name: str, bare: bool, share: float = 0.4) -> str:
        """' on the left' or the like for the side attribute `name`, in `share` of the cases; else an empty text."""
        if not self.chance(share):
            return ""
        self.state(name)
        side = self.scene[name]
        if side == "both":
            return self.rng.choice((" on both sides", " on both sides", " left and right", " to the left and right"))
        if bare and self.chance(0.3):
            return f" {side}"
        return self.rng.choice((" on the {}", " on the {}", " at the {}", " to the {}", " on the {} side")).format(side)

    def house(self, bare: bool) -> str:
        if self.scene["house2"] != "none":
            return self.two_houses(bare)
        noun = self.rng.choice(w.HOUSES)
        if self.chance(self.vague):
            return noun + self.on_side("house_side", bare)
        self.state("house")
        colour = self.colour(self.scene["house"])
        if self.chance(0.06):
            return f"{noun} with {colour} walls" + self.on_side("house_side", bare)
        filler = self.rng.choice(w.HOUSE_FILLERS) + " " if self.chance(0.3) else ""
        return f"{filler}{colour} {noun}" + self.on_side("house_side", bare)

    def two_houses(self, bare: bool) -> str:
        """Both houses, the left one first."""
        noun, one, other = self.rng.choice(w.HOUSES), self.scene["house"], self.scene["house2"]
        if self.chance(0.05):
            self.state("house_side")
            return self.rng.choice(("*two {}", "*a pair of {}", "*2 {}")).format(plural(noun))
        self.state("house", "house2")
        if one == other:
            number = self.rng.choice(("two", "two", "2", "a pair of"))
            return f"*{number} {self.colour(one)} {plural(noun)}" + self.on_side("house_side", bare, 0.25)
        first, second = self.colour(one), self.colour(other)
        if self.chance(0.35):
            self.state("house_side")
            again = self.rng.choice(("one", noun))
            return f"{first} {noun} on the left and {article(second)} {again} on the right"
        if self.chance(0.2):
            return f"{first} and {article(second)} {noun}"
        return f"{first} {noun} and {'' if bare else article(second, only=True)}{second} {self.rng.choice((noun, 'house'))}"

    def tree(self, bare: bool) -> str:
        kind, season, count = self.scene["tree"], self.scene["season"], int(self.scene["tree_count"])
        noun = self.rng.choice(w.TREES[kind])
        if kind != "cactus" and self.chance(self.vague):
            noun = "tree"
        else:
            self.state("tree")
            if kind == "oak" and season in w.SEASON_OAKS and self.chance(0.3):
                self.state("season")
                noun = self.rng.choice(w.SEASON_OAKS[season])
        if count > 1 and self.chance(0.2):
            some = "" if bare else self.rng.choice(w.SOME)
            return f"*{some} {plural(noun)}".replace("* ", "*") + self.on_side("tree_side", bare)
        self.state("tree_count")
        number = self.rng.choice((w.BARE_COUNTS if bare else w.COUNTS)[count])
        if number == "a":
            return noun + self.on_side("tree_side", bare)
        if bare and count == 1 and self.chance(0.6):
            return noun + self.on_side("tree_side", bare)
        return f"*{number} {plural(noun) if count > 1 else noun}" + self.on_side("tree_side", bare)

    def boat(self, bare: bool) -> str:
        if self.chance(self.vague):
            return self.rng.choice(w.ANY_BOAT)
        self.state("boat")
        return self.rng.choice(w.BOATS).format(self.colour(self.scene["boat"]))

    def bridge(self, bare: bool) -> str:
        self.state("bridge")
        text = self.rng.choice(w.BRIDGES)
        if "ground" not in self.stated and self.chance(0.3):
            self.state("ground")
            text += self.rng.choice((" over the river", " over a river", " across the river", " over the stream"))
        return text

    def landmark(self, bare: bool) -> str:
        self.state("landmark")
        return self.rng.choice(w.LANDMARKS[self.scene["landmark"]])

    def animal(self, bare: bool) -> str:
        self.state("animal")
        return "*" + self.rng.choice(w.ANIMALS[self.scene["animal"]])

    def path(self, bare: bool) -> str:
        self.state("path")
        return self.rng.choice(w.PATHS)

    def fence(self, bare: bool) -> str:
        self.state("fence")
        return self.rng.choice(w.FENCES)

    def flowers(self, bare: bool) -> str:
        self.state("flowers")
        return "*" + self.rng.choice(w.FLOWERS)

    def balloon(self, bare: bool) -> str:
        self.state("balloon")
        return self.rng.choice(w.BALLOONS).format(self.colour(self.scene["balloon"]))

    def celestial(self, bare: bool) -> str:
        self.state("celestial")
        return "*" + self.rng.choice(w.CELESTIAL[self.scene["celestial"]])

    def birds(self, bare: bool) -> str:
        self.state("birds")
        return "*" + self.rng.choice(w.BIRDS)

    def rainbow(self, bare: bool) -> str:
        self.state("rainbow")
        return "*" + self.rng.choice(w.RAINBOWS)

    def clouds(self, bare: bool) -> str:
        self.state("clouds")
        return "*" + self.rng.choice(w.CLOUDS)

    def mountains(self, bare: bool) -> str:
        if self.scene["mountains"] in ("snowy", "rocky") and self.chance(self.vague):
            return "*" + self.rng.choice(w.ANY_MOUNTAINS)
        self.state("mountains")
        return "*" + self.rng.choice(w.MOUNTAINS[self.scene["mountains"]])

    def noun(self, name: str, bare: bool = False) -> str:
        """The part `name` as a noun phrase; a leading star in the text of its method means that it needs no article."""
        text: str = NOUNS[name](self, bare)
        if text.startswith("*"):
            text = text[1:]
            return text.removeprefix("the ").removeprefix("a ").removeprefix("an ") if bare and "pair" not in text else text
        return text if bare else article(text)

    # -- place, time and season

    def place(self, form: int, season: bool) -> str:
        """The ground; season: in one phrase with its season, if there is such a phrase; form: 0 place, 1 subject, 2 keyword."""
        self.state("ground")
        both = w.SEASON_GROUNDS.get((self.scene["ground"], self.scene["season"]))
        if both and season:
            self.state("season")
            return self.rng.choice(both[form])
        return self.rng.choice(w.GROUNDS[self.scene["ground"]][form])

    def season(self) -> str:
        """The season, such as 'in winter'."""
        self.state("season")
        text = self.rng.choice(w.SEASONS[self.scene["season"]][0])
        return f"in {self.scene['season']}" if " day" in text and self.scene["sky"] in DARK else text

    def time(self, form: int, celestial: bool) -> str:
        """The sky; celestial: in one phrase with sun or moon, if there is such a phrase; form: 0 time, 1 subject, 2 keyword."""
        self.state("sky")
        both = w.CELESTIAL_SKIES.get((self.scene["sky"], self.scene["celestial"]))
        if both and celestial:
            self.state("celestial")
            return self.rng.choice(both[form])
        if self.scene["sky"] == "clear" and not self.scene["clouds"] and self.chance(0.08):
            self.state("clouds")
            return ("under a cloudless sky", "a cloudless sky", "cloudless sky")[form]
        return self.rng.choice(w.SKIES[self.scene["sky"]][form])


NOUNS = {name: getattr(Speaker, name) for name in (*SUBJECTS, *OVERHEAD, "mountains")}


def article(text: str, only: bool = False) -> str:
    """`text` with its article, or `only` the article."""
    word = "an " if text[0] in "aeiou" else "a "
    return word if only else word + text


def plural(noun: str) -> str:
    return w.PLURALS.get(noun) or noun + "s"


def nameable(scene: Scene) -> list[str]:
    """The attributes of the scene that a caption can name."""
    names = ["sky", "ground"]
    names += [
        name for name in ("mountains", "tree", "house", "boat", "celestial", "landmark", "animal", "balloon") if scene[name] != "none"
    ]
    names += [name for name in ("bridge", "birds", "rainbow", "path", "fence", "flowers") if scene[name]]
    if scene["clouds"] and scene["sky"] != "overcast":
        names.append("clouds")
    if scene["ground"] not in ("desert", "sea"):
        names.append("season")
    return names


def caption(scene: Scene, rng: random.Random, named: int | None = None, *, vague: float = 0.0) -> tuple[str, Scene]:
    """Describes `scene` as a person might.

    named: number of attributes to name; None for a random one from NAMED.
    vague: share of houses, boats, trees and mountains named without colour or kind ("a house"), which `stated` does not contain.
    Returns the text, and the attributes and values that it states.
    """
    names = nameable(scene)
    named = named or rng.choices(*NAMED)[0]
    keep = set(rng.sample(names, min(named, len(names))))
    if named >= 3 and rng.random() < 0.7:
        keep.add("ground")
    if "ground" in keep and rng.random() < SEASON_SHARE.get(scene["season"], 0.0):
        keep.add("season")
    speaker = Speaker(scene, rng, vague)
    style = rng.choices(*STYLES)[0]
    if style == "keywords":
        text = keyword_list(speaker, keep)
    elif style == "sentences" and len(keep) > 1:
        text = sentences(speaker, keep)
    else:
        text = flowing(speaker, keep)
    if style == "wish":
        text = rng.choice(w.IMPERATIVES) + text if text.startswith(OPENERS) else text
    return finish(text, style, rng), speaker.stated


MANY = (
    "lots ",
    "two ",
    "three ",
    "four ",
    "2 ",
    "3 ",
    "4 ",
    "some ",
    "several ",
    "a few ",
    "a pair ",
    "flowers",
    "wild",
    "cows",
    "sheep",
    "cattle",
)
"""Beginnings of phrases that follow 'there are'."""
OPENERS = ("a ", "an ", "the ", "one ", "two ", "three ", "four ", "2 ", "3 ", "4 ", "some ")
"""Beginnings of phrases that can follow 'draw me' or 'a picture of'."""


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


def keyword_list(speaker: Speaker, keep: set[str]) -> str:
    """'red house, lake, sunset, snowy mountains'."""
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
    rng.shuffle(parts)
    return (", " if rng.random() < 0.85 or len(parts) > 3 else " ").join(parts)


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


# -- finishing


def finish(text: str, style: str, rng: random.Random) -> str:
    """Adds filler, letter case and typos, which do not change what is stated."""
    if style == "flowing" and rng.random() < 0.09 and text.startswith(OPENERS):
        text = rng.choice(w.PREFIXES) + text
    if style != "sentences":
        if rng.random() < 0.09:
            text += ", " + rng.choice(w.SUFFIXES)
        elif rng.random() < 0.08:
            text += "."
    elif rng.random() < 0.06:
        text = text[0].lower() + text[1:]
    if style == "flowing" and rng.random() < 0.05:
        text = without_articles(text)
    if rng.random() < TYPO_SHARE:
        text = with_typo(text, rng)
    draw = rng.random()
    if draw < 0.2:
        return text[0].upper() + text[1:]
    return text.upper() if draw < 0.206 else text


def without_articles(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word not in ("a", "an", "the"))


def with_typo(text: str, rng: random.Random) -> str:
    """Drops or swaps a letter in one word of six letters or more."""
    parts = text.split(" ")
    long = [i for i, word in enumerate(parts) if len(word) >= 6]
    if not long:
        return text
    i = rng.choice(long)
    word = parts[i]
    at = rng.randrange(1, len(word) - 2)
    parts[i] = word[:at] + word[at + 1 :] if rng.random() < 0.5 else word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(parts)
