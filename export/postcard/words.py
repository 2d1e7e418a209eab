"""The words of captions: synonyms for every value of every attribute, and filler that states nothing."""

from costroute_rt.export.postcard.scene import Value

Words = tuple[str, ...]


def options(text: str) -> Words:
    """The phrases between bars; one of them is chosen, so that one that stands twice is twice as likely."""
    return tuple(text.split("|"))


COLOURS: dict[Value, Words] = {
    "red": options("red|red|red|red|red|red|red|red|crimson|scarlet|bright red|dark red|ruby|cherry red|brick red|deep red"),
    "white": options(
        "white|white|white|white|white|white|white|white|whitewashed|pure white|snow-white|bright white|chalk white|white-painted"
    ),
    "blue": options("blue|blue|blue|blue|blue|blue|blue|blue|navy blue|azure|light blue|dark blue|sky blue|deep blue|cobalt|bright blue"),
    "yellow": options(
        "yellow|yellow|yellow|yellow|yellow|yellow|yellow|yellow|golden|bright yellow|lemon yellow|mustard yellow|sunny yellow|pale yellow|"
        "canary yellow"
    ),
    "green": options(
        "green|green|green|green|green|green|green|green|emerald|dark green|light green|mint green|olive green|bright green|moss green"
    ),
}
HOUSES = options(
    "house|house|house|house|cottage|cottage|cabin|home|hut|barn|farmhouse|bungalow|lodge|chalet|villa|house|house|shack|building|"
    "homestead|farm|log cabin|country house|dwelling|mansion|cabin|shed|summer house|family home|lodging|residence"
)
HOUSE_FILLERS = options(
    "small|little|tiny|cozy|old|charming|lovely|big|quaint|pretty|cute|wee|humble|abandoned|rustic|cosy|lonely|large|simple|nice|"
    "tiny little|warm|snug|remote|weathered|traditional"
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
    "pine": options(
        "pine tree|pine tree|pine|fir tree|fir|spruce|spruce tree|evergreen|conifer|christmas tree|pine|xmas tree|evergreen tree|"
        "douglas fir|scots pine|needle tree"
    ),
    "oak": options(
        "oak tree|oak|oak|leafy tree|round tree|deciduous tree|oak tree|maple|maple tree|chestnut tree|broadleaf tree|beech|linden|"
        "apple tree|elm|oak|big oak|birch|leaf tree"
    ),
    "palm": options("palm tree|palm tree|palm|coconut palm|coconut tree|tropical palm|palmtree|date palm|palm|beach palm"),
    "cactus": options("cactus|cactus|saguaro cactus|prickly cactus|saguaro|green cactus"),
}
SEASON_OAKS: dict[Value, Words] = {
    "spring": options("blossoming tree|cherry blossom tree|cherry tree in bloom|blooming tree"),
    "autumn": options("orange autumn tree|autumn oak|tree with autumn leaves|tree with fall foliage"),
    "winter": options("frosty oak tree|snow-covered oak"),
}
PLURALS: dict[str, Words] = {
    "cactus": options("cacti|cacti|cactuses|cactus"),
    "saguaro cactus": options("saguaro cacti"),
    "prickly cactus": options("prickly cacti"),
    "green cactus": options("green cacti"),
    "cherry tree in bloom": options("cherry trees in bloom"),
    "spruce": options("spruces|spruce"),
    "beech": options("beeches"),
    "birch": options("birches"),
    "tree with autumn leaves": options("trees with autumn leaves"),
    "tree with fall foliage": options("trees with fall foliage"),
}
BOATS = options(
    "{} sailboat|{} sailboat|sailboat with a {} sail|boat with {} sails|{} sailing boat|{} boat|{} boat|{} yacht|small {} boat|"
    "{} sail boat|{} ship|ship with {} sails|{} sailing ship|little {} boat|{} dinghy|{} fishing boat|{} vessel|{} rowboat|{} sloop|"
    "*{} sails|{} canoe"
)
ANY_BOAT = options("sailboat|boat|sailing boat|yacht|ship|boat|sail boat|vessel|dinghy|fishing boat|little boat")
BALLOONS = options("{} hot air balloon|{} hot-air balloon|{} balloon|{} balloon in the sky|{} hot air balloon floating in the sky")
LANDMARKS: dict[Value, Words] = {
    "lighthouse": options(
        "lighthouse|lighthouse|tall lighthouse|old lighthouse|striped lighthouse|light house|red and white lighthouse|lonely lighthouse|"
        "beacon|white lighthouse|light tower"
    ),
    "windmill": options(
        "windmill|windmill|old windmill|dutch windmill|mill|wind mill|wooden windmill|wind-mill|windmill with big sails|grain mill"
    ),
    "church": options(
        "church|church|chapel|little church|village church|old church|white church|church with a steeple|small chapel|cathedral|steeple|"
        "abbey|kirk|country church|stone church|wooden church|monastery"
    ),
    "castle": options(
        "castle|castle|old castle|medieval castle|stone castle|fortress|castle with towers|ruined castle|fairy tale castle|palace|"
        "knights' castle|fort|chateau|citadel|stronghold|scottish castle|*towers of a castle"
    ),
}
ANIMALS: dict[Value, Words] = {
    "sheep": options(
        "sheep|some sheep|grazing sheep|a flock of sheep|a few sheep|white sheep|sheep grazing|a couple of sheep|many sheep|lambs|"
        "a few lambs|fluffy sheep|a sheep|one sheep|a lamb|ewes|sheeps|white woolly sheep|a flock of lambs|sheep herd"
    ),
    "cows": options(
        "cows|some cows|grazing cows|a herd of cows|a few cows|cattle|cows grazing|a couple of cows|dairy cows|many cows|"
        "black and white cows|spotted cows|a cow|one cow|milk cows|brown cows|a cattle herd|calves|bulls|cow herd|oxen"
    ),
}
BRIDGES = options(
    "bridge|bridge|small bridge|arched bridge|old bridge|footbridge|stone bridge|wooden bridge|little bridge|stone arch bridge|"
    "old stone bridge|bridge made of stone|crossing|narrow bridge|bridge with an arch"
)
PATHS = options(
    "path|winding path|dirt path|footpath|trail|winding road|dirt road|road|country road|lane|gravel path|track|narrow path|walking trail|"
    "pathway|street|way|hiking trail|country lane|sandy path|long road"
)
FENCES = options(
    "fence|wooden fence|picket fence|garden fence|white fence|white picket fence|wood fence|little fence|fence|*fencing|*wooden rails|"
    "farm fence|*fence posts|rail fence"
)
FLOWERS = options(
    "flowers|wildflowers|wild flowers|colorful flowers|blooming flowers|flowers in the foreground|lots of flowers|some flowers|roses|"
    "tulips|daisies|poppies|blossoms|pretty flowers|flowers everywhere|blooms|lavender|sunflowers|lilies|flowers in bloom|a few flowers|"
    "flowering plants|bluebells|petals"
)
MOUNTAINS: dict[Value, Words] = {
    "green": options(
        "green hills|green mountains|rolling hills|hills|gentle green hills|grassy hills|low hills|soft hills|a hill|green slopes|"
        "green hillside|hilly land|foothills|round hills|rolling green hills|grassy slopes|green mountain"
    ),
    "snowy": options(
        "snowy mountains|snow-capped mountains|snowy peaks|snow-covered mountains|mountains with snowy peaks|white mountain tops|"
        "snow capped mountains|mountains with snow|mountains covered in snow|a snowy mountain|a snow-capped peak|snow topped mountains|"
        "icy peaks|mountains with snow on top|the alps|alpine peaks|white peaks|glaciers|snow mountains|snow-clad summits|white mountains|"
        "snowcapped peaks"
    ),
    "rocky": options(
        "rocky mountains|bare rocky mountains|rocky peaks|brown mountains|stony mountains|rugged mountains|bare mountains|a rocky mountain|"
        "craggy mountains|grey rocky mountains|rocky cliffs|stone mountains|crags|jagged peaks|barren mountains|cliffs|sharp rocks|"
        "rocky ridge"
    ),
    "volcano": options(
        "a volcano|a smoking volcano|an erupting volcano|a volcano with lava|an active volcano|volcano|a volcano erupting|a big volcano|"
        "a volcanic mountain|a fire-spitting volcano|volcanoes|a volcano smoking|lava mountain|a volcano spewing lava|smoke from a volcano|"
        "a live volcano"
    ),
}
ANY_MOUNTAINS = options(
    "mountains|mountains|a mountain|a mountain range|high mountains|tall mountains|peaks|big mountains|summits|a ridge|mountain tops|"
    "some mountains"
)
BEHIND = options(
    "{} behind|with {} in the background|{} in the background|{} in the distance|in front of {}|and {} behind|with {} behind|"
    "{} at the back|{} far away|{} on the horizon|behind it {}|behind: {}|backed by {}|against {}|below {}|{} as a backdrop|{} far behind|"
    "at the foot of {}|way back {}|overlooked by {}"
)
BIRDS = options(
    "birds|birds flying|birds in the sky|flying birds|a flock of birds|some birds|birds overhead|seagulls|a few birds in the air|gulls|"
    "birds flying around|crows|swallows|birds in flight|birds soaring|birds above|geese|sparrows|pigeons|a bird|eagles|bird flock|"
    "birds up there|migrating birds|little birds"
)
RAINBOWS = options(
    "a rainbow|a rainbow|a rainbow in the sky|a colorful rainbow|a bright rainbow|a rainbow above|rainbow|a colourful rainbow|"
    "a big rainbow|a rainbow overhead|a double rainbow|rainbow colors in the sky|one rainbow|a rainbow across it"
)
CLOUDS = options(
    "clouds|some clouds|a few clouds|clouds in the sky|fluffy clouds|a few clouds in the sky|scattered clouds|puffy clouds|white clouds|"
    "soft clouds|little clouds|a couple of clouds|few clouds|one or two clouds|cotton clouds|wisps of cloud|cumulus clouds|drifting clouds|"
    "big white clouds|cloud"
)
CELESTIAL: dict[Value, Words] = {
    "sun": options(
        "the sun|the sun shining|the sun in the sky|a bright sun|a shining sun|sun|a big sun|sunlight|a blazing sun|a yellow sun|"
        "the sun out|the sun high up|sun rays|the sun up there|a warm sun|a smiling sun|golden sun"
    ),
    "moon": options(
        "the moon|the moon above|the moon in the sky|a bright moon|a glowing moon|moon|a full moon|a crescent moon|moonlight|a big moon|"
        "a pale moon|the moon shining|half moon|moonrise|a thin moon|a silver moon|the moon up there|a round moon"
    ),
}
# For each ground: as the place of something, as the subject, and as a keyword.
GROUNDS: dict[Value, tuple[Words, Words, Words]] = {
    "meadow": (
        options(
            "in a meadow|in a field|on a meadow|in the open field|in a wide meadow|in the countryside|on a pasture|in the grass|"
            "in a green field|in a grassy field|on the grass|out in the fields|in the fields|on the farmland|on the prairie|on a plain|"
            "on the heath|on a lawn|in a paddock|in green pastures|on a farm|on the plains"
        ),
        options(
            "a meadow|a field|an open meadow|the countryside|a pasture|a green field|fields|grassland|a grassy field|the grass|open fields|"
            "a prairie|a plain|farmland|the plains|a wide lawn|green pastures"
        ),
        options(
            "meadow|field|open field|countryside|pasture|green field|fields|grass|grassland|grassy field|prairie|plains|plain|farmland|"
            "lawn|heath|pastures|farm land|green"
        ),
    ),
    "desert": (
        options(
            "in the desert|among sand dunes|in a sandy desert|in a dry desert|in the dunes|in a desert|in the sand|in the hot desert|"
            "out in the desert|across the desert|over the desert|in a dry land|in the sahara|somewhere sandy and hot|in arid land|"
            "in a sandy wasteland|on a dune|where it is dry and hot"
        ),
        options(
            "a desert|sand dunes|a sandy desert|a wide desert|the dunes|the desert|a hot desert|desert dunes|an endless desert|the sahara|"
            "a dry land|a sandy wasteland|arid land|endless sand|a hot dry place|a dune"
        ),
        options(
            "desert|desert|sand dunes|dunes|sandy desert|hot desert|desert sand|sahara|arid|dry land|sand|wasteland|dune|endless sand|"
            "hot and dry"
        ),
    ),
    "sea": (
        options(
            "by the sea|by the ocean|on a beach|on the beach|at the seaside|on the coast|at the seashore|near the sea|by the seashore|"
            "at the beach|at the sea|on the sea|on the shore|along the coast|at the ocean|over the sea|over the ocean|"
            "by the water of the sea|in a bay|on the ocean|by the surf|on the shoreline|on the seafront|at the harbour|by the waves|"
            "in a cove|on the atlantic|by the mediterranean|on a tropical beach"
        ),
        options(
            "the sea|the ocean|a beach by the sea|a sandy beach|a seaside view|the coast|a beach|the shore of the ocean|a sea|an ocean|"
            "the seaside|a bay|the open sea|a sandy shore|ocean waves|waves|a cove|the shoreline|the atlantic|the pacific|a tropical beach|"
            "salt water|the seafront|the surf"
        ),
        options(
            "sea|sea|ocean|ocean|beach|seaside|coast|seashore|shore|the sea|bay|sandy beach|coastline|waves|shoreline|seafront|atlantic|"
            "tropical beach|open water|surf|harbour|sea view|ocean view"
        ),
    ),
    "lake": (
        options(
            "by a lake|beside a lake|near a calm lake|by the lake|at the lake|on the shore of a lake|next to a lake|at a lake|on a lake|"
            "on the lake|around a lake|by a pond|over a lake|near a lake|by the lakeside|beside the still lake|by a loch|by a tarn|"
            "at the lakefront|on a still lake|on the pond|by a mountain lake|across a lake"
        ),
        options(
            "a lake|a calm lake|a quiet lake|a blue lake|a lake shore|the lake|a pond|a small lake|a still lake|a mountain lake|a loch|"
            "a tarn|a reservoir|calm lake water|a mirror-like lake|an alpine lake"
        ),
        options(
            "lake|lake|lake|calm lake|lakeside|pond|a lake|lakeshore|blue lake|loch|tarn|mountain lake|lakefront|still lake|lake view|"
            "lake water"
        ),
    ),
    "river": (
        options(
            "by a river|beside a river|by the river|near a winding river|at the river|along a stream|next to a river|on a river|"
            "near a river|on the river|on the riverbank|by a stream|by a creek|along the river|where a river flows|by a brook|on a canal|"
            "by running water|at the stream|beside the creek|on the banks of a river"
        ),
        options(
            "a river|a winding river|a calm river|a stream|a river valley|the river|a creek|a brook|a winding stream|a flowing river|"
            "a river running through|running water|a canal|a river bend|a little river|a wide river"
        ),
        options(
            "river|river|river|stream|winding river|riverside|creek|a river|riverbank|brook|canal|river bend|river valley|flowing water|"
            "river bank"
        ),
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
            "on a clear day|under a blue sky|under a clear sky|in the daytime|under a bright blue sky|in bright daylight|during the day|"
            "at noon|at midday|in fine weather|by day|in daylight|with a blue sky|with a clear blue sky|in the afternoon|in good weather|"
            "at lunchtime|under blue skies|in broad daylight|at 2 pm"
        ),
        options(
            "a clear day|a blue sky|a bright day|a clear blue sky|daytime|a clear sky|blue skies|a fine day|afternoon|good weather|"
            "a bright afternoon|a bright blue day"
        ),
        options(
            "clear sky|blue sky|clear day|daytime|bright day|clear blue sky|day|noon|blue skies|midday|daylight|afternoon|fine weather|"
            "good weather|bright|blue sky day"
        ),
    ),
    "overcast": (
        options(
            "under an overcast sky|on a grey day|on a gray day|on a cloudy day|under a grey sky|on a gloomy day|in rainy weather|"
            "under gray clouds|on an overcast day|under a gloomy sky|under heavy clouds|with a grey sky|on a rainy day|on a dull day|"
            "in bad weather|with an overcast sky|under a cloudy sky|in the fog|in the rain|under storm clouds|on a stormy day|"
            "in grey weather|under a leaden sky|while it drizzles|in a thunderstorm|on a misty day"
        ),
        options(
            "an overcast sky|a grey day|a gloomy gray day|a cloudy day|a rainy-looking day|a grey sky|gray skies|a cloudy sky|"
            "gloomy weather|a rainy day|storm clouds|stormy weather|fog|rain|drizzle|a stormy day|a dreary day|a leaden sky"
        ),
        options(
            "overcast|grey sky|cloudy|gloomy|cloudy day|gray sky|overcast sky|grey day|cloudy sky|gray weather|rainy|dull weather|"
            "grey clouds|stormy|foggy|rain|fog|drizzle|storm|misty|dreary|bad weather|dark clouds|grey weather|thunderstorm"
        ),
    ),
    "sunset": (
        options(
            "at sunset|at sunset|at dusk|in the evening|in the evening glow|at sundown|during golden hour|at golden hour|"
            "under a sunset sky|as the day ends|in the sunset|at the end of the day|at twilight|with a sunset sky|with a red evening sky|"
            "in the evening light|during sunset|when the evening comes|at a red sunset|at day's end|late in the day|in the gloaming|"
            "when the sun is gone down|in evening colours|at eventide|at 8 pm"
        ),
        options(
            "a sunset|a colorful sunset|sunset|an orange sunset|dusk|a golden evening|evening|a red sunset|an evening sky|the sunset|"
            "a pink and orange sunset|a beautiful sunset|sundown|day's end|eventide|the end of the day|an evening glow|nightfall colours"
        ),
        options(
            "sunset|sunset|dusk|evening|golden hour|sundown|evening sky|sunset sky|orange sky|red sunset|twilight|sun set|eventide|"
            "evening glow|late evening|day's end|the evening|after sunset"
        ),
    ),
    "dawn": (
        options(
            "at dawn|at sunrise|in the early morning|in the morning|at daybreak|in the pale morning light|under a pink morning sky|"
            "at first light|as the day begins|during sunrise|early in the morning|in the morning light|at sun up|when the day breaks|"
            "at sunup|at the crack of dawn|at 6 am|before breakfast|in the morning hours|when morning comes|in the first light of day"
        ),
        options(
            "dawn|a soft sunrise|sunrise|an early morning|a pink dawn|daybreak|a sunrise|a soft morning|first light|a pale morning|sunup|"
            "the crack of dawn|morning light|a new day begins|the morning|a fresh morning"
        ),
        options(
            "dawn|sunrise|morning|early morning|daybreak|sunrise|first light|morning light|at dawn|sunup|sun rise|crack of dawn|early|6 am|"
            "the morning|early light"
        ),
    ),
    "night": (
        options(
            "at night|at night|on a dark night|at midnight|at nighttime|in the dark|late at night|by night|during the night|in the night|"
            "in the middle of the night|under a dark sky|under the night sky|after dark|in darkness|at nite|when all is dark|"
            "in the dark of night|at 2 in the morning"
        ),
        options(
            "night|a dark night|a quiet night|midnight|the night|nighttime|a night scene|the dark of night|a night sky|darkness|"
            "a black night|a silent night|the dark"
        ),
        options(
            "night|nighttime|midnight|dark night|night|night time|night scene|dark|dark sky|nite|darkness|after dark|black night|"
            "midnight scene|night sky"
        ),
    ),
    "starry": (
        options(
            "under a starry sky|on a starry night|under the stars|on a starlit night|under a sky full of stars|beneath the stars|"
            "with stars in the sky|with lots of stars|with a starry sky|under twinkling stars|at night with stars|in the starlight|"
            "under countless stars|with a sky full of stars|under the milky way|with stars above|with stars all over|"
            "when the stars are out|beneath a starry sky|under a star-studded sky"
        ),
        options(
            "a starry night|a starry sky|a night sky with stars|a starlit night|a sky full of stars|stars|stars in the sky|"
            "a night full of stars|twinkling stars|countless stars|the stars|the milky way|a star-studded sky|constellations|"
            "a million stars|stars above"
        ),
        options(
            "starry night|stars|starry sky|starlit|night sky with stars|starry|lots of stars|many stars|night, stars|stars in the sky|"
            "star-filled sky|milky way|stars above|starlight|star sky|star-studded sky|stars everywhere|constellations|stars out"
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
        options(
            "in summer|in the summer|on a summer day|in summertime|in july|during summer|in august|in june|on the summer holidays|"
            "in the height of summer|on a warm summer day|at midsummer"
        ),
        options("summer|summer scene|summertime|summer day|august|july|june|midsummer|summer holidays|high summer|warm summer|summery"),
    ),
    "spring": (
        options(
            "in spring|in the spring|in springtime|on a spring day|in spring time|in april|during spring|in may|in march|at easter|"
            "in early spring|when all is in bloom|as spring begins"
        ),
        options("spring|springtime|spring scene|spring time|spring day|may|april|march|easter|early spring|spring is here|springlike"),
    ),
    "autumn": (
        options(
            "in autumn|in the fall|in fall|with autumn colors|with fall foliage|in the autumn|with autumn leaves|in october|"
            "on an autumn day|in late autumn|with autumn colours|in november|in september|at thanksgiving|at halloween|when leaves fall|"
            "during fall|at harvest time"
        ),
        options(
            "autumn|fall|autumn colors|fall foliage|autumn day|autumn leaves|october|november|september|halloween|thanksgiving|autumnal|"
            "fall colors|falling leaves|autumn time|harvest time"
        ),
    ),
    "winter": (
        options(
            "in winter|in the winter|covered in snow|on a wintry day|in a snowy winter|in the snow|with snow everywhere|in december|"
            "on a snowy day|on a winter day|with snow on the ground|in deep snow|in january|in february|at christmas|in the cold|"
            "in freezing cold|in a cold place|all white with snow|when it snows|at new year"
        ),
        options(
            "winter|snowy winter|wintry|snowy scene|snow-covered|snow|snowy|snow everywhere|winter scene|winter day|january|december|"
            "february|christmas|xmas|cold|freezing|icy|frosty|snowfall|deep snow|ice and snow|cold winter|snow all around"
        ),
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
    "could you make |could i get a postcard with |i need |can i have a picture of |let me see |imagine |id like a postcard with |make it |"
    "how about |lets have |let's see |we need |can you show |just |only |nothing but |simply |maybe |i wish for |please show |give us |"
    "try |i am looking for |do |put |pls draw |render |sketch |would you paint "
)
SUFFIXES = options(
    "highly detailed|flat illustration|vector art|in the style of a postcard|beautiful|peaceful|flat design|minimalist|poster|detailed|4k|"
    "vintage travel poster|digital art|cute style|simple|calm mood|travel postcard|watercolor|oil painting|in the style of monet|pixel art|"
    "8k|hd|wallpaper|cartoon|for kids|like a children's book|greeting card|no people|no text|without people|nothing fancy|high quality|"
    "masterpiece|cinematic|cozy vibes|wide view|panorama|artstation|trending|concept art|flat vector|linocut|unreal engine|album cover|"
    "stamp|35mm|f/8|golden ratio|logo style|no watermark"
)
FILLERS = options(
    "really|very|just|somehow|quite|so|maybe|still|again|kind of|sort of|like|actually|basically|definitely|always|here|there|out there|"
    "you can see|full of|filled with|lots of|plenty of|some kind of|with its|featuring|including|plus|along with|together with|as well as|"
    "also|too|next to it|around here|over there|nearby|in the scene|in the picture|in the image|in view|visible|standing|sitting|lying|"
    "placed|located|there stands|there's|we have|i see|one sees|shown|appears|seen from afar|close up|wide|huge|tall|tiny|old|new|fresh|"
    "wet|dusty|famous|typical|local|magic|dreamy|soft|bright|warm|gentle|silent|windy|wonderful|amazing|perfect|nice|super|mega|ok|lol|"
    "haha|um|uh|well|you know|i guess|i think|if possible|please|pls|ideally|mainly|mostly|clearly|exactly|simply|once more|this time|"
    "at last|of course|by chance|for me|for us|for you|from the village|of my childhood|near home|abroad|up north|down south|in scotland|"
    "in norway|in italy|in holland|in bavaria|on holiday|on vacation|at home|after work|after the trip|last year|this year|every day|"
    "one day|all day|forever|and then|while|where|which|that|it|its|their|his|her|our|your|something|somewhere|anything|everybody|"
    "people say|they say|named|called|known as|style|colour|color|scene|view|motif|feeling|mood|vibe|stuff|things|shape|form|piece|part|"
    "side|place|spot|area|region|country|world|life|time|moment|story|memory|dream"
)
"""Words that state nothing and stand anywhere."""
CHATTER = options(
    "i had a long week at the office|we went there last year|my grandma grew up there|it is for my sister's birthday|we got married there|"
    "hope you can do that|no idea if this works|i saw it in a film once|that would make me happy|best day of our lives|thank you so much|"
    "need it for our website|it's for the hostel's reception|dad used to take us there|i was eight back then|can it look like that|"
    "it should feel calm|my kids will love it|as a gift for a friend|i want to print it|make that please|do your best|"
    "i don't care about the style|like in the old days|as i remember it|for the cover of my book|this is for a school project|"
    "you get the idea|sorry for my english|we were all so tired|everyone was asleep|it smelled of hay|you could hear the wind|"
    "i miss that place|it was so quiet|please hurry|let me know if that's fine|i want exactly this|we stayed for two weeks|"
    "this was our trip|hey there|hi all|good morning|dear artist|okay here is my idea|here is what i want|the following|listen|"
    "imagine this|close your eyes|once in a lifetime|what a place|simple as that|nothing special|the usual|as on the photo|in a nutshell|"
    "long story short|just a thought|to be honest|i mean it|for real|trust me"
)
"""Sentences that state nothing."""
SYLLABLES = options("ba|bel|dor|fen|gri|hal|ing|kar|lo|mar|nor|pel|ri|sto|tel|ur|ven|wal|xi|zu|den|ton|ham|dale|berg|shire|ska|lin|mo|ta")
"""Parts of names of places that nobody knows."""
MOODS = options("beautiful|peaceful|quiet|lovely|calm|pretty")
ON_SIDE = options(
    " on the {}| on the {}| on the {}| on the {}| at the {}| to the {}| on the {} side| on the {} hand side| at the {} side|"
    " over on the {}| standing on the {}|, {} side| {}| in the {} part| ({})| at {}| far {}|, {}| on the {} of the picture"
)
ON_BOTH_SIDES = options(
    " on both sides| on both sides| left and right| to the left and right| on either side| on each side| both left and right|"
    " left and right of it| to both sides| at both sides| (left and right)"
)
COLOUR_AFTER = options(
    "{noun} ({})|{noun} in {}|{noun} that is {}|{noun}, {},|{noun}, a {} one|{noun} ({} one)|{noun} painted {}|{noun} which is {}|"
    "{noun} coloured {}|{noun} {}|{noun} of {} colour|{noun}: {}|{noun} with {} paint|{noun} - {}|{noun} all in {}|{noun} colored {}"
)
TWO_HOUSES = options(
    "{first} {noun} and {a_second} {noun}|{first} {noun} and {a_second} {again}|{first} and {a_second} {noun}|"
    "{first} {noun} next to {a_second} {again}|{first} {noun} beside {a_second} {again}|{first} {noun} and another one in {second}|"
    "*one {first} and one {second} {noun}|*one {first} {noun} and one {second} {noun}|*two {nouns}, one {first} and one {second}|"
    "*two {nouns}, one {first}, one {second}|*two {nouns}: {first} and {second}|*two {nouns} ({first} and {second})|"
    "*two {nouns}, {first} and {second}|*2 {nouns}, {first} and {second}|*two {nouns}, one is {first} and the other one is {second}|"
    "*two {nouns}, the first {first} and the second {second}|*{nouns} in {first} and {second}|{first} {noun} + {second} {noun}|"
    "*{first} and {second} {nouns}|{first} {noun}, and near it {a_second} {again}|*one {noun} is {first}, one {noun} is {second}|"
    "*{nouns}: one {first}, one {second}|*two neighbours: {a_first} {noun} and {a_second} {again}|{first} {noun} & {second} {noun}|"
    "{first} {noun}, plus {a_second} {again}"
)
TWO_HOUSES_ON_SIDES = options(
    "{first} {noun} on the left and {a_second} {again} on the right|{first} {noun} on the left and {a_second} {again} on the right|"
    "{first} {noun} on the left, {a_second} {again} on the right|{first} {noun} left, {second} {noun} right|"
    "{first} {noun} left and {a_second} {again} right|{first} {noun} to the left and {a_second} {again} to the right|"
    "*two {nouns}, the left one {first} and the right one {second}|*two {nouns}: left {first}, right {second}|"
    "*on the left {first} {noun}, on the right {second} {noun}|*left: {first} {noun}, right: {second} {noun}|"
    "*the {noun} on the left is {first}, the {noun} on the right is {second}|*the left {noun} is {first}, the right {noun} is {second}|"
    "{first} {noun} to the left of {a_second} {again}|{second} {noun}, and to its left {a_first} {again}|"
    "{first} {noun}, to its right {a_second} {again}|*two {nouns}, one {first} one {second} ({second} on the right)|"
    "{first} {noun} left of {a_second} {again}|*{a_second} {noun} to the right of {a_first} {again}|"
    "*{a_second} {noun} right of {a_first} {again}|*{a_second} {noun} on the right and {a_first} {again} on the left"
)
BOAT_COUNTS: dict[int, Words] = {
    2: options("two|two|two|2|a pair of|a couple of"),
    3: options("three|three|three|3|a trio of|a few|several|some"),
}
ON_AN_ISLAND = options(
    " on an island| on an island| on a small island| on an island in the sea| on a rocky island| on a tiny island| on a rock in the sea|"
    " surrounded by the sea| on an islet| out in the sea| on a bare island| on a lonely island| on an island| standing on an island"
)
# What is absent, after 'no' or 'without'.
ABSENT: dict[str, Words] = {
    "house": options("houses|houses|house|buildings|cottages|homes|building|cabins|barns|huts"),
    "tree": options("trees|trees|tree|plants or trees|trees or bushes|pines|palms|palm trees|cactuses|cacti|oaks|pine trees|forest"),
    "boat": options("boats|boats|boat|sailboats|ships|ship|sails|vessels|boats out there"),
    "mountains": options("mountains|hills|mountain|mountains or hills|peaks|mountains behind|hills at the back"),
    "clouds": options("clouds|clouds|cloud|clouds in the sky|clouds up there|white clouds"),
    "birds": options("birds|birds|seagulls|gulls|bird|birds in the sky|geese|flying birds"),
    "flowers": options("flowers|flowers|wildflowers|flower|blossoms|roses"),
    "animal": options("animals|animals|sheep|cows|cattle|sheep or cows"),
    "balloon": options("balloons|balloon|hot air balloon|hot air balloons"),
    "rainbow": options("rainbow|rainbows"),
    "bridge": options("bridge|bridges|crossing"),
    "path": options("path|road|roads|paths|street|trail|way leading to it"),
    "fence": options("fence|fences|fencing|railing"),
    "celestial": options("sun|moon"),
    "landmark": options("church|castle|lighthouse|windmill|tower|churches|castles|landmarks|church tower|mill"),
}
ABSENT_ONE: dict[str, Words] = {
    "house": options("house|building|cottage|hut|home"),
    "tree": options("tree|plant|tree|bush|palm|pine"),
    "boat": options("boat|sail|ship|sailboat"),
    "mountains": options("mountain|hill|peak"),
    "clouds": options("cloud"),
    "birds": options("bird|seagull|gull"),
    "flowers": options("flower|blossom"),
    "animal": options("cow|sheep|animal"),
    "balloon": options("balloon"),
    "path": options("path|road"),
    "fence": options("fence"),
    "landmark": options("tower|church|castle"),
}
"""What is absent, after 'not a single'."""
LESS: dict[str, Words] = {
    "house": options("houseless|houseless|unbuilt|uninhabited"),
    "tree": options("treeless|treeless|tree-free"),
    "boat": options("boatless"),
    "clouds": options("cloudless|cloudless|cloud-free"),
    "birds": options("birdless"),
    "flowers": options("flowerless"),
    "path": options("roadless|pathless"),
    "mountains": options("flat|mountainless"),
}
"""Adjectives for a place or sky that lacks something."""
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
    "don't draw {}|i don't want {}|nowhere any {}|free of {}|please no {}|leave out the {}|minus the {}|do not show {}|"
    "there should be no {}|there must not be {}|{} not wanted|w/o {}|without the {}|skip the {}|hold the {}|sans {}|{} no|{}: no|"
    "no sign of {}|remove the {}|no {} visible|without {} in view|leave the {} out of it|keep {} out of it|{} are not needed|{} not needed|"
    "i hate {}, so no {}|void of {}|omit {}|exclude {}|cut the {}|no {} today|no {} anywhere|not {}|never {}|lacking {}|but please no {}|"
    "with the {} left out|{} should not be in it|drop the {}|nothing like {}|no more {}|absent: {}|no {} pls|but without {}|"
    "there must be no {}|get rid of the {}|avoid {}|{} are missing|ban the {}|{}? no|just no {}|not with {}|(no {})|0 {}|{}: none|{}=no|"
    "{}: nope|{} (no)|{} = none|devoid of {}|empty of {}|it lacks {}|no {} tho|neither {}|do not put any {}|{}: 0|no {}!|there is no {}|"
    "the {} stays away|{} are absent|absence of {}|{} - no"
)
ABSENCES_OF_ONE = options(
    "not a single {}|not a {} in sight|without a single {}|without a {}|not one {}|not even a {}|not a {} anywhere|not a {}|nary a {}|"
    "never a {}|no {} to be seen|without one {}|there is not a {}"
)
NOTHING_ELSE = options(
    "nothing else|nothing more|and nothing else|and nothing more|that's it, nothing else|nothing besides|just that|nothing around it|"
    "nothing in front|otherwise empty|all else empty|completely empty otherwise|nothing but that|and nothing in front of it|"
    "the rest is empty|with nothing in it|no other things|nothing other"
)
"""What says that no house and no tree stands in the scene besides what is named."""
CORRECTIONS = options(
    "{right}, not {wrong}|{right}, not {wrong}|{right} instead of {wrong}|{right} rather than {wrong}|not {wrong} but {right}|"
    "not {wrong}, {right}|{wrong}? no, {right}|{wrong}... or rather {right}|{wrong}, no wait, {right}|{right} (not {wrong})|"
    "{right} and not {wrong}|{wrong} - sorry, {right}|instead of {wrong} {right}|{right}, no {wrong}"
)
"""Wordings in which the last word is not what counts."""
LATER_COLOURS = options(
    "the {noun} is {colour}|the {noun} should be {colour}|make the {noun} {colour}|the {noun} must be {colour}|{noun} colour: {colour}|"
    "and the {noun} is {colour}|paint the {noun} {colour}|the {noun} has to be {colour}|{colour} is the {noun}|{noun} = {colour}|"
    "{colour} for the {noun}|the colour of the {noun} is {colour}"
)
"""What adds a colour to something named before."""
LATER_SIDES = options(
    "the {noun} is on the {side}|the {noun} stands on the {side}|put the {noun} on the {side}|{noun} on the {side}|"
    "the {noun} should be on the {side}|the {noun} to the {side}|{side}: the {noun}|the {noun} on the {side} side"
)
ORDINALS: tuple[Words, ...] = (
    options("first|then"),
    options("first|next|then"),
    options("first|then|after that|then|finally"),
    options("first comes|then comes|then|and then"),
    options("start with|add|then add|and"),
    options("1.|2.|3.|4.|5.|6.|7.|8."),
    options("1)|2)|3)|4)|5)|6)|7)|8)"),
    options("begin with|then put|also put|and put"),
)
"""Words before each part of a list; the last goes on."""
WANTED = options("{} yes|{}: yes|keep the {}|{} ok|{} (yes)|yes to {}|want {}|{}!|{} please")
SIDE_PLACES = options("on the {}|to the {}|on the {} side|at the {}|{} side")
BACK_PLACES = options("behind|background:|in the back|behind that|far away|back:")
HIGH_PLACES = options("above|sky:|in the sky|up there|on top|overhead:|high up")
FRONT_PLACES = options("in the middle|middle:|between them|in front|center:|centre|also|and")
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
OWN_LABELS: tuple[tuple[tuple[str, ...], Words], ...] = (
    (("house",), ("house", "houses", "building", "home")),
    (("tree",), ("tree", "trees", "plants", "vegetation")),
    (("landmark",), ("landmark", "building", "sight")),
    (("boat",), ("boat", "boats", "on the water")),
    (("animal",), ("animal", "animals", "livestock")),
    (("bridge",), ("bridge", "crossing", "over the water")),
    (("path", "fence", "flowers"), ("details", "extras", "also", "in front")),
    (("mountains",), ("mountains", "background", "hills")),
    (("celestial", "birds", "rainbow", "clouds", "balloon"), ("sky", "in the air", "above")),
    (("ground",), ("ground", "landscape", "terrain", "place")),
    (("sky",), ("sky", "light", "time of day", "weather")),
    (("season",), ("season", "month", "time of year")),
)
"""Labels of what a caption names: of several things together, or of each."""
