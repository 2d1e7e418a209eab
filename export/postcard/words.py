"""The words of captions: synonyms for every value of every attribute, and filler that states nothing."""

from costroute_rt.export.postcard.scene import Value

Words = tuple[str, ...]


def options(text: str) -> Words:
    """The phrases between bars; one of them is chosen, so that one that stands twice is twice as likely."""
    return tuple(text.split("|"))


COLOURS: dict[Value, Words] = {
    "red": options("red|red|red|red|red|red|red|red|crimson|scarlet|bright red|dark red|ruby"),
    "white": options("white|white|white|white|white|white|white|white|whitewashed|pure white|snow-white"),
    "blue": options("blue|blue|blue|blue|blue|blue|blue|blue|navy blue|azure|light blue|dark blue|sky blue"),
    "yellow": options("yellow|yellow|yellow|yellow|yellow|yellow|yellow|yellow|golden|bright yellow|lemon yellow|mustard yellow"),
    "green": options("green|green|green|green|green|green|green|green|emerald|dark green|light green|mint green"),
}
HOUSES = options(
    "house|house|house|house|cottage|cottage|cabin|home|hut|barn|farmhouse|bungalow|lodge|chalet|villa|house|house|shack|building|"
    "homestead|farm"
)
HOUSE_FILLERS = options(
    "small|little|tiny|cozy|old|charming|lovely|big|quaint|pretty|cute|wee|humble|abandoned|rustic|cosy|lonely|large|simple"
)
COUNTS: dict[int, Words] = {
    1: options("a|a|a|a|a|one|one|a lone|a lonely|a single|a solitary|a tall|just one|only one|1|a big"),
    2: options("two|two|two|a pair of|2|a couple of|exactly two|just two"),
    3: options("three|three|three|3|a trio of|exactly three|just three|three tall"),
    4: options("four|four|four|4|exactly four|four tall|a row of four"),
}
BARE_COUNTS: dict[int, Words] = {
    1: options("one|1|single|lonely|lone|solitary|just one"),
    2: options("two|2"),
    3: options("three|3"),
    4: options("four|4"),
}
SOME = options("some|a few|a group of|several||tall|lots of|many|a bunch of|a forest of|a grove of|a row of")
TREES: dict[Value, Words] = {
    "pine": options("pine tree|pine tree|pine|fir tree|fir|spruce|spruce tree|evergreen|conifer|christmas tree|pine"),
    "oak": options("oak tree|oak|oak|leafy tree|round tree|deciduous tree|oak tree|maple|maple tree|chestnut tree|broadleaf tree"),
    "palm": options("palm tree|palm tree|palm|coconut palm|coconut tree|tropical palm"),
    "cactus": options("cactus|cactus|saguaro cactus"),
}
SEASON_OAKS: dict[Value, Words] = {
    "spring": options("blossoming tree|cherry blossom tree|cherry tree in bloom|blooming tree"),
    "autumn": options("orange autumn tree|autumn oak|tree with autumn leaves|tree with fall foliage"),
    "winter": options("frosty oak tree|snow-covered oak"),
}
PLURALS = {
    "cactus": "cacti",
    "saguaro cactus": "saguaro cacti",
    "cherry tree in bloom": "cherry trees in bloom",
    "spruce": "spruces",
    "tree with autumn leaves": "trees with autumn leaves",
    "tree with fall foliage": "trees with fall foliage",
}
BOATS = options(
    "{} sailboat|{} sailboat|sailboat with a {} sail|boat with {} sails|{} sailing boat|{} boat|{} boat|{} yacht|small {} boat|"
    "{} sail boat|{} ship|ship with {} sails|{} sailing ship|little {} boat|{} dinghy"
)
ANY_BOAT = options("sailboat|boat|sailing boat|yacht|ship|boat|sail boat")
BALLOONS = options("{} hot air balloon|{} hot-air balloon|{} balloon|{} balloon in the sky|{} hot air balloon floating in the sky")
LANDMARKS: dict[Value, Words] = {
    "lighthouse": options("lighthouse|lighthouse|tall lighthouse|old lighthouse|striped lighthouse|light house|red and white lighthouse"),
    "windmill": options("windmill|windmill|old windmill|dutch windmill|mill|wind mill"),
    "church": options(
        "church|church|chapel|little church|village church|old church|white church|church with a steeple|small chapel|cathedral"
    ),
    "castle": options(
        "castle|castle|old castle|medieval castle|stone castle|fortress|castle with towers|ruined castle|fairy tale castle|palace"
    ),
}
ANIMALS: dict[Value, Words] = {
    "sheep": options(
        "sheep|some sheep|grazing sheep|a flock of sheep|a few sheep|white sheep|sheep grazing|a couple of sheep|many sheep|lambs|"
        "a few lambs|fluffy sheep"
    ),
    "cows": options(
        "cows|some cows|grazing cows|a herd of cows|a few cows|cattle|cows grazing|a couple of cows|dairy cows|many cows|"
        "black and white cows|spotted cows"
    ),
}
BRIDGES = options(
    "bridge|bridge|small bridge|arched bridge|old bridge|footbridge|stone bridge|wooden bridge|little bridge|stone arch bridge"
)
PATHS = options(
    "path|winding path|dirt path|footpath|trail|winding road|dirt road|road|country road|lane|gravel path|track|narrow path|walking trail"
)
FENCES = options("fence|wooden fence|picket fence|garden fence|white fence|white picket fence|wood fence|little fence|fence")
FLOWERS = options(
    "flowers|wildflowers|wild flowers|colorful flowers|blooming flowers|flowers in the foreground|lots of flowers|some flowers|roses|"
    "tulips|daisies|poppies|blossoms|pretty flowers|flowers everywhere"
)
MOUNTAINS: dict[Value, Words] = {
    "green": options(
        "green hills|green mountains|rolling hills|hills|gentle green hills|grassy hills|low hills|soft hills|a hill|green slopes"
    ),
    "snowy": options(
        "snowy mountains|snow-capped mountains|snowy peaks|snow-covered mountains|mountains with snowy peaks|white mountain tops|"
        "snow capped mountains|mountains with snow|mountains covered in snow|a snowy mountain|a snow-capped peak|"
        "snow topped mountains|icy peaks|mountains with snow on top"
    ),
    "rocky": options(
        "rocky mountains|bare rocky mountains|rocky peaks|brown mountains|stony mountains|rugged mountains|bare mountains|"
        "a rocky mountain|craggy mountains|grey rocky mountains|rocky cliffs"
    ),
    "volcano": options(
        "a volcano|a smoking volcano|an erupting volcano|a volcano with lava|an active volcano|volcano|a volcano erupting|"
        "a big volcano|a volcanic mountain|a fire-spitting volcano"
    ),
}
ANY_MOUNTAINS = options("mountains|mountains|a mountain|a mountain range|high mountains|tall mountains|peaks|big mountains")
BEHIND = options(
    "{} behind|with {} in the background|{} in the background|{} in the distance|in front of {}|and {} behind|with {} behind|"
    "{} at the back|{} far away|{} on the horizon|behind it {}|behind: {}|backed by {}|against {}|below {}"
)
BIRDS = options(
    "birds|birds flying|birds in the sky|flying birds|a flock of birds|some birds|birds overhead|seagulls|a few birds in the air|"
    "gulls|birds flying around|crows|swallows|birds in flight|birds soaring|birds above"
)
RAINBOWS = options(
    "a rainbow|a rainbow|a rainbow in the sky|a colorful rainbow|a bright rainbow|a rainbow above|rainbow|a colourful rainbow|"
    "a big rainbow|a rainbow overhead"
)
CLOUDS = options(
    "clouds|some clouds|a few clouds|clouds in the sky|fluffy clouds|a few clouds in the sky|scattered clouds|puffy clouds|"
    "white clouds|soft clouds|little clouds|a couple of clouds|few clouds|one or two clouds"
)
CELESTIAL: dict[Value, Words] = {
    "sun": options(
        "the sun|the sun shining|the sun in the sky|a bright sun|a shining sun|sun|a big sun|sunlight|a blazing sun|a yellow sun|"
        "the sun out|the sun high up"
    ),
    "moon": options(
        "the moon|the moon above|the moon in the sky|a bright moon|a glowing moon|moon|a full moon|a crescent moon|moonlight|"
        "a big moon|a pale moon|the moon shining"
    ),
}
# For each ground: as the place of something, as the subject, and as a keyword.
GROUNDS: dict[Value, tuple[Words, Words, Words]] = {
    "meadow": (
        options(
            "in a meadow|in a field|on a meadow|in the open field|in a wide meadow|in the countryside|on a pasture|in the grass|"
            "in a green field|in a grassy field|on the grass|out in the fields|in the fields|on the farmland"
        ),
        options(
            "a meadow|a field|an open meadow|the countryside|a pasture|a green field|fields|grassland|a grassy field|the grass|open fields"
        ),
        options("meadow|field|open field|countryside|pasture|green field|fields|grass|grassland|grassy field"),
    ),
    "desert": (
        options(
            "in the desert|among sand dunes|in a sandy desert|in a dry desert|in the dunes|in a desert|in the sand|in the hot desert|"
            "out in the desert|across the desert|over the desert"
        ),
        options("a desert|sand dunes|a sandy desert|a wide desert|the dunes|the desert|a hot desert|desert dunes|an endless desert"),
        options("desert|desert|sand dunes|dunes|sandy desert|hot desert|desert sand"),
    ),
    "sea": (
        options(
            "by the sea|by the ocean|on a beach|on the beach|at the seaside|on the coast|at the seashore|near the sea|"
            "by the seashore|at the beach|at the sea|on the sea|on the shore|along the coast|at the ocean|over the sea|"
            "over the ocean|by the water of the sea|in a bay|on the ocean"
        ),
        options(
            "the sea|the ocean|a beach by the sea|a sandy beach|a seaside view|the coast|a beach|the shore of the ocean|a sea|"
            "an ocean|the seaside|a bay|the open sea|a sandy shore|ocean waves"
        ),
        options("sea|sea|ocean|ocean|beach|seaside|coast|seashore|shore|the sea|bay|sandy beach|coastline"),
    ),
    "lake": (
        options(
            "by a lake|beside a lake|near a calm lake|by the lake|at the lake|on the shore of a lake|next to a lake|at a lake|"
            "on a lake|on the lake|around a lake|by a pond|over a lake|near a lake|by the lakeside|beside the still lake"
        ),
        options("a lake|a calm lake|a quiet lake|a blue lake|a lake shore|the lake|a pond|a small lake|a still lake|a mountain lake"),
        options("lake|lake|lake|calm lake|lakeside|pond|a lake|lakeshore|blue lake"),
    ),
    "river": (
        options(
            "by a river|beside a river|by the river|near a winding river|at the river|along a stream|next to a river|on a river|"
            "near a river|on the river|on the riverbank|by a stream|by a creek|along the river|where a river flows"
        ),
        options(
            "a river|a winding river|a calm river|a stream|a river valley|the river|a creek|a brook|a winding stream|a flowing river|"
            "a river running through"
        ),
        options("river|river|river|stream|winding river|riverside|creek|a river|riverbank"),
    ),
}
# Ground and season in one phrase.
SEASON_GROUNDS: dict[tuple[Value, Value], tuple[Words, Words, Words]] = {
    ("meadow", "winter"): (
        options("in the snow|in a snowy field|in a snow-covered meadow|on a snowy meadow"),
        options("a snowy field|a snow-covered meadow|a field in the snow"),
        options("snowy field|snowy meadow|field of snow"),
    ),
    ("lake", "winter"): (
        options("by a lake in the snow|at a snowy lake shore"),
        options("a lake in the snow|a wintry lake"),
        options("winter lake|lake in the snow"),
    ),
    ("river", "winter"): (
        options("by a river in the snow|beside a river with snowy banks"),
        options("a river in the snow|a wintry river"),
        options("winter river|river in the snow"),
    ),
    ("meadow", "spring"): (
        options("in a spring meadow|in a fresh spring field"),
        options("a spring meadow|a field in spring"),
        options("spring meadow|spring field"),
    ),
    ("meadow", "summer"): (
        options("in a summer meadow|on a green summer field|in the summer grass"),
        options("a summer meadow|a green summer field"),
        options("summer meadow|summer field"),
    ),
    ("meadow", "autumn"): (
        options("in an autumn meadow|in a golden autumn field"),
        options("an autumn meadow|a field in fall"),
        options("autumn meadow|autumn field"),
    ),
}
SKIES: dict[Value, tuple[Words, Words, Words]] = {
    "clear": (
        options(
            "on a clear day|under a blue sky|under a clear sky|in the daytime|under a bright blue sky|in bright daylight|"
            "during the day|at noon|at midday|in fine weather|by day|in daylight|with a blue sky|with a clear blue sky"
        ),
        options("a clear day|a blue sky|a bright day|a clear blue sky|daytime|a clear sky|blue skies|a fine day"),
        options("clear sky|blue sky|clear day|daytime|bright day|clear blue sky|day|noon|blue skies|midday|daylight"),
    ),
    "overcast": (
        options(
            "under an overcast sky|on a grey day|on a gray day|on a cloudy day|under a grey sky|on a gloomy day|in rainy weather|"
            "under gray clouds|on an overcast day|under a gloomy sky|under heavy clouds|with a grey sky|on a rainy day|on a dull day|"
            "in bad weather|with an overcast sky|under a cloudy sky"
        ),
        options(
            "an overcast sky|a grey day|a gloomy gray day|a cloudy day|a rainy-looking day|a grey sky|gray skies|a cloudy sky|"
            "gloomy weather|a rainy day"
        ),
        options(
            "overcast|grey sky|cloudy|gloomy|cloudy day|gray sky|overcast sky|grey day|cloudy sky|gray weather|rainy|dull weather|"
            "grey clouds"
        ),
    ),
    "sunset": (
        options(
            "at sunset|at sunset|at dusk|in the evening|in the evening glow|at sundown|during golden hour|at golden hour|"
            "under a sunset sky|as the day ends|in the sunset|at the end of the day|at twilight|with a sunset sky|"
            "with a red evening sky|in the evening light|during sunset|when the evening comes|at a red sunset"
        ),
        options(
            "a sunset|a colorful sunset|sunset|an orange sunset|dusk|a golden evening|evening|a red sunset|an evening sky|the sunset|"
            "a pink and orange sunset|a beautiful sunset"
        ),
        options("sunset|sunset|dusk|evening|golden hour|sundown|evening sky|sunset sky|orange sky|red sunset|twilight"),
    ),
    "dawn": (
        options(
            "at dawn|at sunrise|in the early morning|in the morning|at daybreak|in the pale morning light|under a pink morning sky|"
            "at first light|as the day begins|during sunrise|early in the morning|in the morning light|at sun up|when the day breaks"
        ),
        options("dawn|a soft sunrise|sunrise|an early morning|a pink dawn|daybreak|a sunrise|a soft morning|first light|a pale morning"),
        options("dawn|sunrise|morning|early morning|daybreak|sunrise|first light|morning light|at dawn"),
    ),
    "night": (
        options(
            "at night|at night|on a dark night|at midnight|at nighttime|in the dark|late at night|by night|during the night|"
            "in the night|in the middle of the night|under a dark sky|under the night sky"
        ),
        options("night|a dark night|a quiet night|midnight|the night|nighttime|a night scene|the dark of night|a night sky"),
        options("night|nighttime|midnight|dark night|night|night time|night scene|dark|dark sky"),
    ),
    "starry": (
        options(
            "under a starry sky|on a starry night|under the stars|on a starlit night|under a sky full of stars|beneath the stars|"
            "with stars in the sky|with lots of stars|with a starry sky|under twinkling stars|at night with stars|in the starlight|"
            "under countless stars|with a sky full of stars"
        ),
        options(
            "a starry night|a starry sky|a night sky with stars|a starlit night|a sky full of stars|stars|stars in the sky|"
            "a night full of stars|twinkling stars|countless stars|the stars"
        ),
        options(
            "starry night|stars|starry sky|starlit|night sky with stars|starry|lots of stars|many stars|night, stars|"
            "stars in the sky|star-filled sky"
        ),
    ),
}
# Sky and sun or moon in one phrase.
CELESTIAL_SKIES: dict[tuple[Value, Value], tuple[Words, Words, Words]] = {
    ("clear", "sun"): (
        options("on a sunny day|in the sunshine|on a bright sunny day|in the sun|in sunny weather"),
        options("a sunny day|sunshine|a bright sunny day|sunny weather"),
        options("sunny|sunny day|sunshine|sunny weather"),
    ),
    ("night", "moon"): (
        options("on a moonlit night|under the moon at night"),
        options("a moonlit night"),
        options("moonlit night|moonlight, night"),
    ),
    ("starry", "moon"): (
        options("under the moon and stars|under the stars and the moon"),
        options("a starry night with a moon"),
        options("moon and stars|stars and moon"),
    ),
    ("sunset", "sun"): (
        options("with the sun setting|as the sun goes down|as the sun sets|with a setting sun"),
        options("a setting sun|the sun going down"),
        options("setting sun|sun setting|sun going down"),
    ),
    ("dawn", "sun"): (
        options("with the sun rising|as the sun rises|as the sun comes up|with a rising sun"),
        options("a rising sun|the sun coming up"),
        options("rising sun|sun rising|sun coming up"),
    ),
}
SEASONS: dict[Value, tuple[Words, Words]] = {
    "summer": (
        options("in summer|in the summer|on a summer day|in summertime|in july|during summer"),
        options("summer|summer scene|summertime|summer day|august"),
    ),
    "spring": (
        options("in spring|in the spring|in springtime|on a spring day|in spring time|in april|during spring"),
        options("spring|springtime|spring scene|spring time|spring day|may"),
    ),
    "autumn": (
        options(
            "in autumn|in the fall|in fall|with autumn colors|with fall foliage|in the autumn|with autumn leaves|in october|"
            "on an autumn day|in late autumn|with autumn colours"
        ),
        options("autumn|fall|autumn colors|fall foliage|autumn day|autumn leaves|october"),
    ),
    "winter": (
        options(
            "in winter|in the winter|covered in snow|on a wintry day|in a snowy winter|in the snow|with snow everywhere|in december|"
            "on a snowy day|on a winter day|with snow on the ground|in deep snow"
        ),
        options("winter|snowy winter|wintry|snowy scene|snow-covered|snow|snowy|snow everywhere|winter scene|winter day|january"),
    ),
}
PREFIXES = options(
    "a postcard of |a picture of |an illustration of |a drawing of |a painting of |a view of |a beautiful picture of |an image of |"
    "postcard: |a photo of |postcard of |picture of |image of |landscape with |a landscape with |a scene with |a little scene: |"
    "greetings from |a postcard with |a postcard showing |a picture with "
)
IMPERATIVES = options(
    "draw me |draw |please draw |i want a picture of |i'd like |please make |make me a picture of |make a picture of |generate |"
    "generate an image of |create |show me |paint |can you draw |paint me |create an image of |give me |i would like to see |"
    "could you make |could i get a postcard with |i need |can i have a picture of |let me see |imagine |id like a postcard with |"
    "make it |how about |lets have |let's see |we need |can you show |just |only |nothing but |simply |maybe "
)
SUFFIXES = options(
    "highly detailed|flat illustration|vector art|in the style of a postcard|beautiful|peaceful|flat design|minimalist|poster|"
    "detailed|4k|vintage travel poster|digital art|cute style|simple|calm mood|travel postcard|watercolor|oil painting|"
    "in the style of monet|pixel art|8k|hd|wallpaper|cartoon|for kids|like a children's book|greeting card|no people|no text|"
    "without people|nothing fancy|high quality|masterpiece|cinematic|cozy vibes|wide view|panorama"
)
MOODS = options("beautiful|peaceful|quiet|lovely|calm|pretty")
ON_SIDE = options(
    " on the {}| on the {}| on the {}| on the {}| at the {}| to the {}| on the {} side| on the {} hand side| at the {} side|"
    " over on the {}| standing on the {}|, {} side| {}"
)
ON_BOTH_SIDES = options(
    " on both sides| on both sides| left and right| to the left and right| on either side| on each side| both left and right"
)
COLOUR_AFTER = options(
    "{noun} ({})|{noun} in {}|{noun} that is {}|{noun}, {},|{noun}, a {} one|{noun} ({} one)|{noun} painted {}|{noun} which is {}|"
    "{noun} coloured {}|{noun} {}"
)
TWO_HOUSES = options(
    "{first} {noun} and {a_second} {noun}|{first} {noun} and {a_second} {again}|{first} and {a_second} {noun}|"
    "{first} {noun} next to {a_second} {again}|{first} {noun} beside {a_second} {again}|{first} {noun} and another one in {second}|"
    "*one {first} and one {second} {noun}|*one {first} {noun} and one {second} {noun}|*two {nouns}, one {first} and one {second}|"
    "*two {nouns}, one {first}, one {second}|*two {nouns}: {first} and {second}|*two {nouns} ({first} and {second})|"
    "*two {nouns}, {first} and {second}|*2 {nouns}, {first} and {second}|*two {nouns}, one is {first} and the other one is {second}|"
    "*two {nouns}, the first {first} and the second {second}|*{nouns} in {first} and {second}"
)
TWO_HOUSES_ON_SIDES = options(
    "{first} {noun} on the left and {a_second} {again} on the right|{first} {noun} on the left and {a_second} {again} on the right|"
    "{first} {noun} on the left, {a_second} {again} on the right|{first} {noun} left, {second} {noun} right|"
    "{first} {noun} left and {a_second} {again} right|{first} {noun} to the left and {a_second} {again} to the right|"
    "*two {nouns}, the left one {first} and the right one {second}|*two {nouns}: left {first}, right {second}|"
    "*on the left {first} {noun}, on the right {second} {noun}"
)
BOAT_COUNTS: dict[int, Words] = {
    2: options("two|two|two|2|a pair of|a couple of"),
    3: options("three|three|three|3|a trio of|a few|several|some"),
}
ON_AN_ISLAND = options(
    " on an island| on an island| on a small island| on an island in the sea| on a rocky island| on a tiny island|"
    " on a rock in the sea| surrounded by the sea| on an islet| out in the sea"
)
# What is absent, after 'no' or 'without'.
ABSENT: dict[str, Words] = {
    "house": options("houses|houses|house|buildings|cottages|homes|building"),
    "tree": options("trees|trees|tree|plants or trees"),
    "boat": options("boats|boats|boat|sailboats|ships"),
    "mountains": options("mountains|hills|mountain|mountains or hills"),
    "clouds": options("clouds|clouds|cloud"),
    "birds": options("birds|birds|seagulls|gulls"),
    "flowers": options("flowers"),
    "animal": options("animals|animals|sheep|cows|cattle"),
    "balloon": options("balloons|balloon|hot air balloon|hot air balloons"),
    "rainbow": options("rainbow|rainbows"),
    "bridge": options("bridge|bridges"),
    "path": options("path|road|roads"),
    "fence": options("fence|fences"),
}
# What things do, without a verb that must agree with their number.
DOING: dict[str, Words] = {
    "house": options("standing there|standing alone|dreaming|tucked away|waiting quietly|by itself|in the quiet|all cosy"),
    "tree": options("swaying|standing tall|reaching for the sky|whispering in the wind|in the breeze|standing there"),
    "boat": options("drifting|gliding by|sailing past|passing by|rocking on the waves|on the water|floating|sailing"),
    "landmark": options("watching over it all|towering above|standing proud|standing tall|far off|in the middle|on its own"),
    "animal": options("wandering about|resting|in the grass|eating grass|standing around|in front"),
    "bridge": options("crossing over|arching across the water|leading across|over the water"),
    "path": options("winding away|going off into the distance|leading far away|curving along|that leads to the horizon"),
    "fence": options("running along|in front|all along the front|around it|out front"),
    "flowers": options("blooming|in bloom|out front|all around|everywhere|growing"),
    "balloon": options("floating by|drifting above|high in the sky|up in the air|floating overhead|up high"),
    "sun": options("shining|shining down|high up|overhead|warm and bright|smiling"),
    "moon": options("hanging low|glowing|shining down|over it|high above|watching"),
    "birds": options("flying by|heading south|circling|soaring|passing over|high up"),
    "rainbow": options("arching across the sky|over everything|over it|after the rain|shining"),
    "clouds": options("drifting by|passing|high up|in the sky"),
    "mountains": options("far away|rising behind|towering|all around|rising up|on the horizon"),
}
ABSENCES = options(
    "no {}|no {}|no {}|without {}|without any {}|with no {}|no {} at all|no {} please|not any {}|zero {}|but no {}|there are no {}|"
    "don't draw {}|i don't want {}|nowhere any {}|free of {}|not a single {}|please no {}|leave out the {}|minus the {}|"
    "do not show {}|there should be no {}|there must not be {}|{} not wanted"
)
EMPTY = options(
    "an empty {}|an empty {}|empty {}|a deserted {}|a bare {}|just the {}|nothing but {}|only {}|a lonely {}|just a {}, nothing else|"
    "a wide empty {}|{} and nothing else|only a {}|{}, empty"
)
LABELS: tuple[tuple[tuple[str, ...], Words], ...] = (
    (("house", "tree", "landmark", "boat"), ("subject", "main", "objects", "in the middle", "what", "things")),
    (("animal", "fence", "flowers", "path", "bridge"), ("foreground", "in front", "front", "details", "also")),
    (("mountains",), ("background", "behind", "back", "in the back")),
    (("celestial", "birds", "rainbow", "clouds", "balloon"), ("sky", "in the sky", "above", "up")),
    (("ground",), ("place", "where", "location", "setting")),
    (("sky",), ("time", "light", "when", "mood", "sky")),
    (("season",), ("season", "time of year")),
)
