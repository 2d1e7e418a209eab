"""Words the things of a scene, and records what the words state."""

import random
from dataclasses import dataclass, field

from costroute_rt.export.postcard import words as w
from costroute_rt.export.postcard.scene import ATTRIBUTES, BOAT_COUNT, DARK, Scene, Value

SUBJECTS = ("house", "tree", "boat", "landmark", "animal", "bridge", "path", "fence", "flowers")
OVERHEAD = ("celestial", "birds", "rainbow", "clouds", "balloon")
CORRECTED = ("house", "tree", "boat", "landmark", "animal", "balloon", "mountains", "celestial")
"""Things that a caption may name wrongly first: 'a red house, no, a blue one'."""
CORRECTION_SHARE, LATER_SHARE = 0.025, 0.06
"""How often that happens; and how often colour or side of a thing are stated at the end: 'a house, ... the house is red'."""


@dataclass(slots=True)
class Speaker:
    """Words the parts of a scene and records in `stated` which attributes the words state."""

    scene: Scene
    rng: random.Random
    vague: float
    stated: Scene = field(default_factory=dict)
    later: list[str] = field(default_factory=list)
    """What is still to be said at the end of the caption."""

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
            return self.rng.choice(w.ON_BOTH_SIDES)
        if self.chance(LATER_SHARE):
            noun = "house" if name == "house_side" else "trees" if int(self.scene["tree_count"]) > 1 else "tree"
            self.later.append(self.rng.choice(w.LATER_SIDES).format(noun=noun, side=side))
            return ""
        if bare and self.chance(0.3):
            return f" {side}"
        return self.rng.choice(w.ON_SIDE).format(side)

    def house(self, bare: bool) -> str:
        if self.scene["house2"] != "none":
            return self.two_houses(bare)
        noun = self.rng.choice(w.HOUSES)
        if self.chance(self.vague):
            return noun + self.on_side("house_side", bare)
        self.state("house")
        colour = self.colour(self.scene["house"])
        if self.chance(LATER_SHARE):
            self.later.append(self.rng.choice(w.LATER_COLOURS).format(noun=noun, colour=colour))
            return noun + self.on_side("house_side", bare)
        filler = self.rng.choice(w.HOUSE_FILLERS) + " " if self.chance(0.3) else ""
        if self.chance(0.12):
            return self.rng.choice(w.COLOUR_AFTER).format(colour, noun=filler + noun) + self.on_side("house_side", bare)
        return f"{filler}{colour} {noun}" + self.on_side("house_side", bare)

    def two_houses(self, bare: bool) -> str:
        """Both houses, the left one first."""
        noun, one, other = self.rng.choice(w.HOUSES), self.scene["house"], self.scene["house2"]
        if self.chance(0.05):
            self.state("house_side")
            return self.rng.choice(("*two {}", "*a pair of {}", "*2 {}", "*a couple of {}")).format(plural(noun, self.rng))
        self.state("house", "house2", "house_side")
        if one == other:
            number = self.rng.choice(("two", "two", "2", "a pair of", "a couple of", "exactly two", "two little"))
            return f"*{number} {self.colour(one)} {plural(noun, self.rng)}" + self.on_side("house_side", bare, 0.25)
        words = {"first": self.colour(one), "second": self.colour(other), "noun": noun, "nouns": plural(noun, self.rng)}
        words |= {"again": self.rng.choice(("one", "one", noun)), "a_first": article(words["first"]), "a_second": article(words["second"])}
        if self.chance(0.3):
            return self.rng.choice(w.TWO_HOUSES_ON_SIDES).format(**words)
        if bare and self.chance(0.4):
            return self.rng.choice(("{first} {noun} {second} {noun}", "{first} {noun}, {second} {noun}")).format(**words)
        return self.rng.choice(w.TWO_HOUSES).format(**words)

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
            return f"*{some} {plural(noun, self.rng)}".replace("* ", "*") + self.on_side("tree_side", bare)
        self.state("tree_count")
        number = self.rng.choice((w.BARE_COUNTS if bare else w.COUNTS)[count])
        if number == "a":
            return noun + self.on_side("tree_side", bare)
        if bare and count == 1 and self.chance(0.6):
            return noun + self.on_side("tree_side", bare)
        return f"*{number} {plural(noun, self.rng) if count > 1 else noun}" + self.on_side("tree_side", bare)

    def boat(self, bare: bool) -> str:
        number = int(self.scene.get(BOAT_COUNT, 1))
        vague = self.chance(self.vague)
        colour = "" if vague else self.colour(self.scene["boat"])
        if not vague:
            self.state("boat")
        if number > 1:
            count = self.rng.choice((w.BARE_COUNTS if bare else w.BOAT_COUNTS)[number])
            noun = self.rng.choice(("boats", "boats", "sailboats", "sailing boats", "ships"))
            if colour and self.chance(0.25):
                return f"*{count} {noun} {self.rng.choice(('with {} sails', 'with {} sail', '({})', 'in {}')).format(colour)}"
            return f"*{count} {colour} {noun}".replace("  ", " ")
        if vague:
            return self.rng.choice(w.ANY_BOAT)
        if self.chance(LATER_SHARE):
            noun = self.rng.choice(w.ANY_BOAT)
            self.later.append(self.rng.choice(w.LATER_COLOURS).format(noun=self.rng.choice((noun, noun, "sail")), colour=colour))
            return noun
        if self.chance(0.1):
            return self.rng.choice(w.COLOUR_AFTER).format(colour, noun=self.rng.choice(w.ANY_BOAT))
        return self.rng.choice(w.BOATS).format(colour)

    def bridge(self, bare: bool) -> str:
        self.state("bridge")
        text = self.rng.choice(w.BRIDGES)
        if "ground" not in self.stated and self.chance(0.3):
            self.state("ground")
            text += self.rng.choice((" over the river", " over a river", " across the river", " over the stream"))
        return text

    def landmark(self, bare: bool) -> str:
        self.state("landmark")
        if self.scene["ground"] == "sea" and "ground" not in self.stated and self.chance(0.3):
            self.state("ground")
            return self.rng.choice(w.LANDMARKS[self.scene["landmark"]]) + self.rng.choice(w.ON_AN_ISLAND)
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
        if self.chance(LATER_SHARE):
            self.later.append(self.rng.choice(w.LATER_COLOURS).format(noun="balloon", colour=self.colour(self.scene["balloon"])))
            return self.rng.choice(("hot air balloon", "balloon"))
        if self.chance(0.12):
            noun = self.rng.choice(("hot air balloon", "balloon", "hot-air balloon"))
            return self.rng.choice(w.COLOUR_AFTER).format(self.colour(self.scene["balloon"]), noun=noun)
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
        if self.chance(0.08 if bare else 0.12):
            doing = self.rng.choice(w.DOING[str(self.scene[name]) if name == "celestial" else name])
            text += "" if text.endswith(doing) else f" {doing}"
        text = with_article(text, bare)
        if name in CORRECTED and name in self.stated and not self.later and self.chance(CORRECTION_SHARE):
            return self.rng.choice(w.CORRECTIONS).format(right=text, wrong=self.another(name, bare))
        return text

    def another(self, name: str, bare: bool) -> str:
        """A noun phrase for another value of the attribute, which the scene does not have."""
        present = {self.scene[name], *([self.scene["house2"]] if name == "house" else [])}
        values = [value for value in ATTRIBUTES[name][1:] if value not in present]
        scene = {**self.scene, name: self.rng.choice(values), "house2": "none", BOAT_COUNT: 1}
        while True:
            other = Speaker(scene, self.rng, vague=0.0)
            text: str = NOUNS[name](other, bare)
            if not other.later:  # 'a red house, not a house' would deny both
                return with_article(text, bare)

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


def with_article(text: str, bare: bool) -> str:
    """A noun phrase with its article, or without it if it is bare; a leading star means that it needs none."""
    if not text.startswith("*"):
        return text if bare else article(text)
    text = text[1:]
    return text.removeprefix("the ").removeprefix("a ").removeprefix("an ") if bare and "pair" not in text else text


def article(text: str) -> str:
    """`text` with its article."""
    return ("an " if text[0] in "aeiou" else "a ") + text


def plural(noun: str, rng: random.Random) -> str:
    return rng.choice(w.PLURALS.get(noun, (noun + "s",)))


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


def absent_things(scene: Scene) -> list[str]:
    """The attributes whose absence a caption can state."""
    names = [name for name in w.ABSENT if scene[name] == ATTRIBUTES[name][0]]
    return [name for name in names if not (name == "clouds" and scene["sky"] == "overcast")]
