"""What a postcard can show: the table of attributes, and random scenes.

`ATTRIBUTES` is the ground truth of the scorer: one head per name, one class per value, in this order.
"""

import random
from collections.abc import Sequence

Value = str | int
Scene = dict[str, Value]

ATTRIBUTES: dict[str, tuple[Value, ...]] = {
    "sky": ("clear", "overcast", "sunset", "dawn", "night", "starry"),
    "celestial": ("none", "sun", "moon"),
    "season": ("summer", "spring", "autumn", "winter"),
    "mountains": ("none", "green", "snowy", "rocky", "volcano"),
    "ground": ("meadow", "desert", "sea", "lake", "river"),
    "bridge": (0, 1),
    "tree": ("none", "pine", "oak", "palm", "cactus"),
    "tree_count": (0, 1, 2, 3, 4),
    "tree_side": ("none", "left", "right", "both"),
    "house": ("none", "red", "white", "blue", "yellow", "green"),
    "house2": ("none", "red", "white", "blue", "yellow", "green"),
    "house_side": ("none", "left", "right", "both"),
    "boat": ("none", "white", "red", "yellow", "blue"),
    "landmark": ("none", "lighthouse", "windmill", "church", "castle"),
    "animal": ("none", "sheep", "cows"),
    "balloon": ("none", "red", "yellow", "blue"),
    "clouds": (0, 1),
    "birds": (0, 1),
    "rainbow": (0, 1),
    "path": (0, 1),
    "fence": (0, 1),
    "flowers": (0, 1),
}
BOAT_COUNT = "boat_count"
"""Number of boats, 0 to 3: drawn and worded, but without a head of the scorer, so that it is not among ATTRIBUTES."""
DARK = ("night", "starry")
WATER = ("sea", "lake", "river")
MAX_THINGS = 7
"""Optional things are removed from a scene that has more nameable things than this."""

# Relative frequencies, in the order of ATTRIBUTES.
CELESTIAL_ODDS: dict[Value, Sequence[int]] = {
    "clear": (4, 6, 0),
    "overcast": (1, 0, 0),
    "sunset": (3, 7, 0),
    "dawn": (4, 5, 1),
    "night": (3, 0, 7),
    "starry": (4, 0, 6),
}
CLOUD_ODDS: dict[Value, float] = {"clear": 0.5, "overcast": 1.0, "sunset": 0.4, "dawn": 0.4, "night": 0.25, "starry": 0.0}
SEASON_ODDS: dict[Value, Sequence[int]] = {
    "meadow": (28, 22, 24, 26),
    "lake": (32, 20, 24, 24),
    "river": (32, 22, 24, 22),
    "desert": (1, 0, 0, 0),
    "sea": (1, 0, 0, 0),
}
TREE_ODDS: dict[Value, Sequence[int]] = {
    "meadow": (28, 28, 44, 0, 0),
    "desert": (38, 0, 0, 26, 36),
    "sea": (45, 10, 8, 37, 0),
    "lake": (30, 36, 34, 0, 0),
    "river": (30, 32, 38, 0, 0),
}
LANDMARK_ODDS: dict[Value, Sequence[int]] = {
    "meadow": (66, 0, 14, 11, 9),
    "desert": (88, 0, 0, 0, 12),
    "sea": (62, 30, 0, 0, 8),
    "lake": (68, 6, 8, 9, 9),
    "river": (66, 0, 12, 11, 11),
}
FLOWER_ODDS: dict[Value, float] = {"summer": 0.26, "spring": 0.6, "autumn": 0.06, "winter": 0.0}
# Attributes that may be removed from a crowded scene, and the value that means absence.
OPTIONAL: dict[str, Value] = {
    "landmark": "none",
    "animal": "none",
    "balloon": "none",
    "birds": 0,
    "rainbow": 0,
    "path": 0,
    "fence": 0,
    "clouds": 0,
}
SPARSE_SHARE = 0.5
"""Share of scenes with few things, for prompts that name few: what a prompt does not name is then mostly absent."""
SPARSE_THINGS = (0, 1, 1, 2, 2, 3, 3, 4)
"""Numbers of things that are left in a sparse scene, see `leave_few`."""
TOGETHER: dict[str, tuple[str, ...]] = {
    "house": ("house", "house2", "house_side"),
    "tree": ("tree", "tree_count", "tree_side"),
    **{name: (name,) for name in ("mountains", "bridge", "boat", "flowers", "landmark", "animal", "balloon", "rainbow", "path", "fence")},
}
"""For each thing that a sparse scene may lack, the attributes that become absent with it; sun, moon, clouds and birds stay."""
THINGS = ("celestial", "mountains", "bridge", "tree", "house", "house2", "boat", "flowers", *OPTIONAL)


def sample_scene(rng: random.Random) -> Scene:
    """A random scene without contradictions, such as a rainbow at night."""
    scene: Scene = {name: values[0] for name, values in ATTRIBUTES.items()}
    sample_surroundings(scene, rng)
    sample_houses(scene, rng)
    sample_trees(scene, rng)
    sample_extras(scene, rng)
    thin_out(scene, rng)
    if rng.random() < SPARSE_SHARE:
        leave_few(scene, rng.choice(SPARSE_THINGS), rng)
    scene[BOAT_COUNT] = sample_boats(scene, rng)
    return scene


def pick(name: str, odds: Sequence[int], rng: random.Random) -> Value:
    """A random value of attribute `name`; odds: relative frequencies in the order of ATTRIBUTES."""
    return rng.choices(ATTRIBUTES[name], odds)[0]


def sample_surroundings(scene: Scene, rng: random.Random) -> None:
    """Sets sky, light, land, season and mountains."""
    sky = scene["sky"] = pick("sky", (25, 13, 19, 14, 12, 17), rng)
    scene["celestial"] = pick("celestial", CELESTIAL_ODDS[sky], rng)
    scene["clouds"] = int(rng.random() < CLOUD_ODDS[sky])
    ground = scene["ground"] = pick("ground", (28, 14, 19, 21, 18), rng)
    scene["season"] = pick("season", SEASON_ODDS[ground], rng)
    scene["mountains"] = pick("mountains", (34, 18, 19, 16, 13), rng)


def sample_houses(scene: Scene, rng: random.Random) -> None:
    """Sets no house, one or two; of two, `house` is the left one."""
    if rng.random() < 0.42:
        return
    colours = ATTRIBUTES["house"][1:]
    scene["house"] = rng.choice(colours)
    scene["house_side"] = rng.choice(("left", "right"))
    if rng.random() < 0.30:
        scene["house2"] = scene["house"] if rng.random() < 0.2 else rng.choice(colours)
        scene["house_side"] = "both"


def sample_trees(scene: Scene, rng: random.Random) -> None:
    """Sets kind, count and side of the trees so that they fit beside the houses."""
    odds = TREE_ODDS[scene["ground"]]
    if scene["season"] == "winter":
        odds = (30, 52, 18, 0, 0)
    tree = pick("tree", odds, rng)
    if tree == "none":
        return
    scene["tree"] = tree
    while True:
        count = rng.choices((1, 2, 3, 4), (32, 28, 22, 18))[0]
        side = rng.choices(("left", "right", "both"), (36, 36, 28))[0]
        if trees_fit(scene, count, side):
            scene["tree_count"], scene["tree_side"] = count, side
            return


def trees_fit(scene: Scene, count: int, side: str) -> bool:
    """True if `count` trees on `side` have room beside the houses of `scene`."""
    if side == "both" and count % 2:
        return False
    shared = (scene["house_side"] != "none" and "both" in (side, scene["house_side"])) or side == scene["house_side"]
    beside_house = count // 2 if side == "both" else count
    return not shared or beside_house <= (1 if scene["ground"] == "river" else 2)


def sample_extras(scene: Scene, rng: random.Random) -> None:
    """Sets all remaining attributes: boat, bridge, landmark, animal, birds, balloon, rainbow, path, fence and flowers."""
    sky, ground, season = scene["sky"], scene["ground"], scene["season"]
    green = ground in ("meadow", "lake", "river")
    if ground in WATER and rng.random() < 0.6:
        scene["boat"] = rng.choice(ATTRIBUTES["boat"][1:])
    scene["bridge"] = int(ground == "river" and rng.random() < 0.55)
    scene["landmark"] = pick("landmark", LANDMARK_ODDS[ground], rng)
    if green and season != "winter" and rng.random() < 0.28:
        scene["animal"] = rng.choice(ATTRIBUTES["animal"][1:])
    if sky not in DARK:
        scene["birds"] = int(rng.random() < 0.28)
        if rng.random() < 0.2:
            scene["balloon"] = rng.choice(ATTRIBUTES["balloon"][1:])
    scene["rainbow"] = int(sky in ("clear", "overcast") and rng.random() < 0.25)
    scene["path"] = int(ground in ("meadow", "desert") and rng.random() < 0.32)
    fenced = ground == "meadow" or (ground == "lake" and scene["animal"] == "none")
    scene["fence"] = int(fenced and rng.random() < 0.25)
    scene["flowers"] = int(green and rng.random() < FLOWER_ODDS[season])


def leave_few(scene: Scene, limit: int, rng: random.Random) -> None:
    """Removes things at random until at most `limit` are left of those that TOGETHER names."""
    there = [name for name in TOGETHER if scene[name] not in ("none", 0)]
    for name in rng.sample(there, max(0, len(there) - limit)):
        for attribute in TOGETHER[name]:
            scene[attribute] = ATTRIBUTES[attribute][0]


def sample_boats(scene: Scene, rng: random.Random) -> int:
    """The number of boats; several only where a landmark leaves them room: on a lake or the sea."""
    if scene["boat"] == "none":
        return 0
    if scene["ground"] == "river" or scene["landmark"] != "none":
        return 1
    return rng.choices((1, 2, 3), (60, 20, 20))[0]


def thin_out(scene: Scene, rng: random.Random) -> None:
    """Removes optional things at random until at most MAX_THINGS are left, or none is optional."""
    removable = [
        name for name, absent in OPTIONAL.items() if scene[name] != absent and not (name == "clouds" and scene["sky"] == "overcast")
    ]
    rng.shuffle(removable)
    while removable and sum(scene[name] not in ("none", 0) for name in THINGS) > MAX_THINGS:
        name = removable.pop()
        scene[name] = OPTIONAL[name]
