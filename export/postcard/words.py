"""The words of captions: synonyms for every value of every attribute, and filler that states nothing."""

from costroute_rt.export.postcard.scene import Value

Words = tuple[str, ...]

COLOURS: dict[Value, Words] = {
    "red": ("red", "red", "red", "crimson", "scarlet"),
    "white": ("white",),
    "blue": ("blue", "blue", "blue", "navy blue", "azure"),
    "yellow": ("yellow", "yellow", "yellow", "golden"),
    "green": ("green", "green", "green", "emerald"),
}
HOUSES: Words = ("house", "house", "house", "house", "cottage", "cottage", "cabin", "home", "hut", "barn", "farmhouse")
HOUSE_FILLERS: Words = ("small", "little", "tiny", "cozy", "old", "charming", "lovely", "big", "quaint")
COUNTS: dict[int, Words] = {
    1: ("a", "a", "one", "a lone", "a single", "a tall"),
    2: ("two", "two", "a pair of", "2"),
    3: ("three", "three", "3"),
    4: ("four", "four", "4"),
}
BARE_COUNTS: dict[int, Words] = {1: ("one", "1", "single"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
SOME: Words = ("some", "a few", "a group of", "several", "", "tall")
TREES: dict[Value, Words] = {
    "pine": ("pine tree", "pine tree", "pine", "fir tree", "fir", "spruce", "spruce tree", "evergreen", "conifer"),
    "oak": ("oak tree", "oak", "oak", "leafy tree", "round tree", "deciduous tree"),
    "palm": ("palm tree", "palm tree", "palm", "coconut palm"),
    "cactus": ("cactus", "cactus", "saguaro cactus"),
}
SEASON_OAKS: dict[Value, Words] = {
    "spring": ("blossoming tree", "cherry blossom tree", "cherry tree in bloom", "blooming tree"),
    "autumn": ("orange autumn tree", "autumn oak", "tree with autumn leaves", "tree with fall foliage"),
    "winter": ("frosty oak tree", "snow-covered oak"),
}
PLURALS = {
    "cactus": "cacti",
    "saguaro cactus": "saguaro cacti",
    "cherry tree in bloom": "cherry trees in bloom",
    "spruce": "spruces",
    "tree with autumn leaves": "trees with autumn leaves",
    "tree with fall foliage": "trees with fall foliage",
}
BOATS: Words = (
    "{} sailboat",
    "{} sailboat",
    "sailboat with a {} sail",
    "boat with {} sails",
    "{} sailing boat",
    "{} boat",
    "{} boat",
    "{} yacht",
    "small {} boat",
)
ANY_BOAT: Words = ("sailboat", "boat", "sailing boat", "yacht")
BALLOONS: Words = (
    "{} hot air balloon",
    "{} hot-air balloon",
    "{} balloon",
    "{} balloon in the sky",
    "{} hot air balloon floating in the sky",
)
LANDMARKS: dict[Value, Words] = {
    "lighthouse": ("lighthouse", "lighthouse", "tall lighthouse", "old lighthouse", "striped lighthouse"),
    "windmill": ("windmill", "windmill", "old windmill", "dutch windmill"),
    "church": ("church", "church", "chapel", "little church", "village church", "old church"),
    "castle": ("castle", "castle", "old castle", "medieval castle", "stone castle", "fortress"),
}
ANIMALS: dict[Value, Words] = {
    "sheep": ("sheep", "some sheep", "grazing sheep", "a flock of sheep", "a few sheep", "white sheep", "sheep grazing"),
    "cows": ("cows", "some cows", "grazing cows", "a herd of cows", "a few cows", "cattle", "cows grazing"),
}
BRIDGES: Words = ("bridge", "bridge", "small bridge", "arched bridge", "old bridge", "footbridge")
PATHS: Words = ("path", "winding path", "dirt path", "footpath", "trail", "winding road", "dirt road")
FENCES: Words = ("fence", "wooden fence", "picket fence", "garden fence")
FLOWERS: Words = (
    "flowers",
    "wildflowers",
    "wild flowers",
    "colorful flowers",
    "blooming flowers",
    "flowers in the foreground",
    "lots of flowers",
)
MOUNTAINS: dict[Value, Words] = {
    "green": ("green hills", "green mountains", "rolling hills", "hills", "gentle green hills"),
    "snowy": (
        "snowy mountains",
        "snow-capped mountains",
        "snowy peaks",
        "snow-covered mountains",
        "mountains with snowy peaks",
        "white mountain tops",
    ),
    "rocky": ("rocky mountains", "bare rocky mountains", "rocky peaks", "brown mountains", "stony mountains", "rugged mountains"),
    "volcano": ("a volcano", "a smoking volcano", "an erupting volcano", "a volcano with lava", "an active volcano"),
}
ANY_MOUNTAINS: Words = ("mountains",)
BEHIND: Words = (
    "{} behind",
    "with {} in the background",
    "{} in the background",
    "{} in the distance",
    "in front of {}",
    "and {} behind",
    "with {} behind",
)
BIRDS: Words = (
    "birds",
    "birds flying",
    "birds in the sky",
    "flying birds",
    "a flock of birds",
    "some birds",
    "birds overhead",
    "seagulls",
    "a few birds in the air",
)
RAINBOWS: Words = ("a rainbow", "a rainbow", "a rainbow in the sky", "a colorful rainbow", "a bright rainbow", "a rainbow above")
CLOUDS: Words = (
    "clouds",
    "some clouds",
    "a few clouds",
    "clouds in the sky",
    "fluffy clouds",
    "a few clouds in the sky",
    "scattered clouds",
    "puffy clouds",
)
CELESTIAL: dict[Value, Words] = {
    "sun": ("the sun", "the sun shining", "the sun in the sky", "a bright sun", "a shining sun", "sun"),
    "moon": ("the moon", "the moon above", "the moon in the sky", "a bright moon", "a glowing moon", "moon"),
}

# For each ground: as the place of something, as the subject, and as a keyword.
GROUNDS: dict[Value, tuple[Words, Words, Words]] = {
    "meadow": (
        ("in a meadow", "in a field", "on a meadow", "in the open field", "in a wide meadow", "in the countryside", "on a pasture"),
        ("a meadow", "a field", "an open meadow", "the countryside", "a pasture"),
        ("meadow", "field", "open field", "countryside", "pasture"),
    ),
    "desert": (
        ("in the desert", "among sand dunes", "in a sandy desert", "in a dry desert", "in the dunes"),
        ("a desert", "sand dunes", "a sandy desert", "a wide desert", "the dunes"),
        ("desert", "sand dunes", "dunes", "sandy desert"),
    ),
    "sea": (
        (
            "by the sea",
            "by the ocean",
            "on a beach",
            "on the beach",
            "at the seaside",
            "on the coast",
            "at the seashore",
            "near the sea",
            "by the seashore",
        ),
        ("the sea", "the ocean", "a beach by the sea", "a sandy beach", "a seaside view", "the coast", "a beach", "the shore of the ocean"),
        ("sea", "ocean", "beach", "seaside", "coast", "seashore"),
    ),
    "lake": (
        (
            "by a lake",
            "beside a lake",
            "near a calm lake",
            "by the lake",
            "at the lake",
            "on the shore of a lake",
            "next to a lake",
            "at a lake",
        ),
        ("a lake", "a calm lake", "a quiet lake", "a blue lake", "a lake shore"),
        ("lake", "calm lake", "lakeside", "lake"),
    ),
    "river": (
        ("by a river", "beside a river", "by the river", "near a winding river", "at the river", "along a stream", "next to a river"),
        ("a river", "a winding river", "a calm river", "a stream", "a river valley"),
        ("river", "stream", "winding river", "riverside"),
    ),
}
# Ground and season in one phrase.
SEASON_GROUNDS: dict[tuple[Value, Value], tuple[Words, Words, Words]] = {
    ("meadow", "winter"): (
        ("in the snow", "in a snowy field", "in a snow-covered meadow", "on a snowy meadow"),
        ("a snowy field", "a snow-covered meadow", "a field in the snow"),
        ("snowy field", "snowy meadow", "snow"),
    ),
    ("lake", "winter"): (
        ("by a lake in the snow", "at a snowy lake shore"),
        ("a lake in the snow", "a wintry lake"),
        ("winter lake", "lake in the snow"),
    ),
    ("river", "winter"): (
        ("by a river in the snow", "beside a river with snowy banks"),
        ("a river in the snow", "a wintry river"),
        ("winter river", "river in the snow"),
    ),
    ("meadow", "spring"): (
        ("in a spring meadow", "in a fresh spring field"),
        ("a spring meadow", "a field in spring"),
        ("spring meadow", "spring field"),
    ),
    ("meadow", "summer"): (
        ("in a summer meadow", "on a green summer field", "in the summer grass"),
        ("a summer meadow", "a green summer field"),
        ("summer meadow", "summer field"),
    ),
    ("meadow", "autumn"): (
        ("in an autumn meadow", "in a golden autumn field"),
        ("an autumn meadow", "a field in fall"),
        ("autumn meadow", "autumn field"),
    ),
}
SKIES: dict[Value, tuple[Words, Words, Words]] = {
    "clear": (
        (
            "on a clear day",
            "under a blue sky",
            "under a clear sky",
            "in the daytime",
            "under a bright blue sky",
            "in bright daylight",
            "during the day",
        ),
        ("a clear day", "a blue sky", "a bright day", "a clear blue sky"),
        ("clear sky", "blue sky", "clear day", "daytime", "bright day"),
    ),
    "overcast": (
        (
            "under an overcast sky",
            "on a grey day",
            "on a gray day",
            "on a cloudy day",
            "under a grey sky",
            "on a gloomy day",
            "in rainy weather",
            "under gray clouds",
            "on an overcast day",
        ),
        ("an overcast sky", "a grey day", "a gloomy gray day", "a cloudy day", "a rainy-looking day"),
        ("overcast", "grey sky", "cloudy", "gloomy", "cloudy day", "gray sky", "overcast sky"),
    ),
    "sunset": (
        (
            "at sunset",
            "at sunset",
            "at dusk",
            "in the evening",
            "in the evening glow",
            "at sundown",
            "during golden hour",
            "at golden hour",
            "under a sunset sky",
            "as the day ends",
        ),
        ("a sunset", "a colorful sunset", "sunset", "an orange sunset", "dusk", "a golden evening", "evening"),
        ("sunset", "sunset", "dusk", "evening", "golden hour", "sundown"),
    ),
    "dawn": (
        (
            "at dawn",
            "at sunrise",
            "in the early morning",
            "in the morning",
            "at daybreak",
            "in the pale morning light",
            "under a pink morning sky",
        ),
        ("dawn", "a soft sunrise", "sunrise", "an early morning", "a pink dawn", "daybreak"),
        ("dawn", "sunrise", "morning", "early morning", "daybreak"),
    ),
    "night": (
        ("at night", "at night", "on a dark night", "at midnight", "at nighttime", "in the dark", "late at night"),
        ("night", "a dark night", "a quiet night", "midnight"),
        ("night", "nighttime", "midnight", "dark night"),
    ),
    "starry": (
        (
            "under a starry sky",
            "on a starry night",
            "under the stars",
            "on a starlit night",
            "under a sky full of stars",
            "beneath the stars",
        ),
        ("a starry night", "a starry sky", "a night sky with stars", "a starlit night", "a sky full of stars"),
        ("starry night", "stars", "starry sky", "starlit", "night sky with stars"),
    ),
}
# Sky and sun or moon in one phrase.
CELESTIAL_SKIES: dict[tuple[Value, Value], tuple[Words, Words, Words]] = {
    ("clear", "sun"): (
        ("on a sunny day", "in the sunshine", "on a bright sunny day"),
        ("a sunny day", "sunshine"),
        ("sunny", "sunny day", "sunshine"),
    ),
    ("night", "moon"): (("on a moonlit night", "under the moon at night"), ("a moonlit night",), ("moonlit night", "moonlight, night")),
    ("starry", "moon"): (
        ("under the moon and stars", "under the stars and the moon"),
        ("a starry night with a moon",),
        ("moon and stars", "stars and moon"),
    ),
    ("sunset", "sun"): (("with the sun setting", "as the sun goes down"), ("a setting sun",), ("setting sun",)),
    ("dawn", "sun"): (("with the sun rising", "as the sun rises"), ("a rising sun",), ("rising sun",)),
}
SEASONS: dict[Value, tuple[Words, Words]] = {
    "summer": (("in summer", "in the summer", "on a summer day", "in summertime"), ("summer", "summer scene", "summertime")),
    "spring": (("in spring", "in the spring", "in springtime", "on a spring day"), ("spring", "springtime", "spring scene")),
    "autumn": (
        ("in autumn", "in the fall", "in fall", "with autumn colors", "with fall foliage", "in the autumn"),
        ("autumn", "fall", "autumn colors", "fall foliage"),
    ),
    "winter": (
        ("in winter", "in the winter", "covered in snow", "on a wintry day", "in a snowy winter"),
        ("winter", "snowy winter", "wintry", "snowy scene", "snow-covered"),
    ),
}

PREFIXES: Words = (
    "a postcard of ",
    "a picture of ",
    "an illustration of ",
    "a drawing of ",
    "a painting of ",
    "a view of ",
    "a beautiful picture of ",
    "an image of ",
    "postcard: ",
    "a photo of ",
)
IMPERATIVES: Words = (
    "draw me ",
    "draw ",
    "please draw ",
    "i want a picture of ",
    "i'd like ",
    "please make ",
    "make me a picture of ",
    "make a picture of ",
    "generate ",
    "generate an image of ",
    "create ",
    "show me ",
    "paint ",
    "can you draw ",
    "paint me ",
    "create an image of ",
    "give me ",
)
SUFFIXES: Words = (
    "highly detailed",
    "flat illustration",
    "vector art",
    "in the style of a postcard",
    "beautiful",
    "peaceful",
    "flat design",
    "minimalist",
    "poster",
    "detailed",
    "4k",
    "vintage travel poster",
    "digital art",
    "cute style",
    "simple",
    "calm mood",
    "travel postcard",
)
MOODS: Words = ("beautiful", "peaceful", "quiet", "lovely", "calm", "pretty")
