"""Sounds that may be in a recording although its labels do not name them.

A label does not name every sound of a recording: a thunderstorm may have rain, a café has voices, and a doorbell is a
bell. A sound is certainly absent, or certainly before another, only if no such rule applies. The rules err on the side
of excluding too much.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pengi.data.manifest import Label

# Category of a sound -> categories of other sounds that may occur with it.
OCCURS_WITH = {
    "speech": frozenset({"speech"}),
    "music": frozenset({"music", "instrument"}),
    "scene": frozenset({"scene", "speech", "human", "vehicle", "nature", "animal", "household", "impact"}),
    "nature": frozenset({"nature", "scene"}),
    "vehicle": frozenset({"vehicle", "scene"}),
    "weapon": frozenset({"weapon", "impact"}),
    "tools": frozenset({"tools", "impact"}),
    "household": frozenset({"impact"}),
    "impact": frozenset({"impact", "household", "tools", "weapon"}),
    "human": frozenset({"impact"}),
}
# Sets of AudioSet classes. One may be part of another in its set, occur with it, or be its more general name.
_RELATED = (
    {"Animal", "Wild animals"},
    {
        "Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Caw", "Coo", "Hoot", "Squawk",
        "Gull, seagull", "Honk", "Quack", "Cluck", "Crowing, cock-a-doodle-doo", "Gobble",
    },
    {"Insect", "Cricket", "Bee, wasp, etc.", "Fly, housefly"},
    {"Roar", "Roaring cats (lions, tigers)", "Growling"},
    {"Squeak", "Squeal", "Creak", "Mouse", "Rodents, rats, mice"},
    {"Explosion", "Gunshot, gunfire", "Machine gun", "Fireworks", "Thunder", "Thunderstorm", "Burst, pop"},
    {"Water", "Splash, splatter", "Waves, surf", "Pour", "Drip", "Gurgling", "Toilet flush", "Boat, Water vehicle"},
    {"Knock", "Thump, thud", "Slam", "Door", "Whack, thwack", "Chop", "Hammer", "Clang", "Cupboard open or close"},
    {"Breaking", "Shatter", "Crack", "Crunch", "Chink, clink", "Dishes, pots, and pans"},
    {
        "Engine", "Idling", "Mechanisms", "Chainsaw", "Power tool", "Vacuum cleaner", "Sewing machine", "Jet engine",
        "Propeller, airscrew", "Helicopter", "Motorcycle", "Train",
    },
    {"Breathing", "Snoring", "Groan"},
    {"Cheering", "Applause", "Clapping", "Children playing", "Hubbub, speech noise, speech babble"},
    {"White noise", "Pink noise", "Rain", "Waves, surf", "Wind"},
)  # fmt: skip
# Wider sets of sounds that may occur together or be confused. They also contain AudioSet classes without labels, and
# the names of labels whose class is too general.
_WIDELY_RELATED = (
    {"Dog", "Bark", "Bow-wow", "Yip", "Howl", "Growling", "Whimper (dog)", "Whimper", "Pant"},
    {"Cat", "Meow", "Purr", "Caterwaul", "Hiss", "Roaring cats (lions, tigers)"},
    {"Horse", "Clip-clop", "Neigh, whinny", "Snort", "donkey braying", "zebra calling"},
    {"Cattle, bovinae", "Moo", "Cowbell", "bison grunting"},
    {"Goat", "Sheep", "Bleat"},
    {
        "Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Squawk", "Pigeon, dove", "Coo", "Crow",
        "Caw", "Owl", "Hoot", "Bird flight, flapping wings", "Gull, seagull", "Fowl", "Chicken, rooster", "Cluck",
        "Turkey", "Crowing, cock-a-doodle-doo", "Gobble", "Duck", "Quack", "Goose", "Honk", "Flap",
        "woodpecker pecking", "chick peeping",
    },
    {"Insect", "Cricket", "Mosquito", "Fly, housefly", "Buzz", "Bee, wasp, etc."},
    {"Rodents, rats, mice", "Mouse", "Patter", "Squeak"},
    {"Frog", "Croak"},
    {"Snake", "Hiss", "Rattle"},
    {
        "Stream", "Trickle, dribble", "Gurgling", "Water", "Splash, splatter", "Waves, surf", "Pour", "Drip", "Squish",
        "Toilet flush", "Boat, Water vehicle", "Motorboat, speedboat", "Waterfall", "Rain", "Raindrop", "Spray",
        "Patter", "Fill (with liquid)", "Water tap, faucet", "Sink (filling or washing)",
        "Bathtub (filling or washing)", "Gargling", "Pump (liquid)", "Toothbrush", "Thunderstorm", "Chirp, tweet",
        "Croak", "Cricket", "Whale vocalization", "swimming", "drinking and sipping", "slurping", "coffee machine",
        "footsteps in mud", "dolphin chirping",
    },
    {"Fire", "Crackle", "Sizzle", "Frying (food)", "Steam", "Hiss", "Static", "Fireworks", "Explosion", "Spray"},
    {"Steam", "Steam whistle", "Train", "Whistle", "coffee machine"},
    {
        "Engine", "Idling", "Mechanisms", "Chainsaw", "Power tool", "Vacuum cleaner", "Sewing machine", "Jet engine",
        "Car", "Propeller, airscrew", "Helicopter", "Motorcycle", "Train", "Lawn mower", "Accelerating, revving, vroom",
        "Whir", "Race car, auto racing", "Truck", "Bus", "Drill", "Jackhammer", "Sawing", "Mechanical fan",
        "Hair dryer", "Rumble", "Air conditioning", "Blender", "Electric shaver, electric razor", "Electric toothbrush",
        "Mains hum", "Vibration", "Toothbrush", "Microwave oven", "Printer", "Pump (liquid)",
        "Fixed-wing aircraft, airplane", "clothes dryer", "coffee machine", "copy machine", "elevator",
        "paper shredder", "toaster", "Tools",
    },
    {"Car", "Tire squeal", "Squeal", "Skateboard", "Traffic noise, roadway noise", "Car passing by"},
    {
        "Ambulance (siren)", "Siren", "Police car (siren)", "Fire engine, fire truck (siren)", "Wail, moan", "Alarm",
        "Traffic noise, roadway noise",
    },
    {
        "Beep, bleep", "Alarm", "Alarm clock", "Buzzer", "Smoke detector, smoke alarm", "Fire alarm", "Car alarm",
        "Bell", "Reversing beeps", "Siren", "Busy signal", "Dial tone", "Ringtone", "Telephone",
        "Telephone bell ringing", "Ding", "Ping", "Doorbell", "Bicycle bell", "Microwave oven", "Cash register",
        "Clock", "Buzz", "elevator", "toaster", "copy machine", "Radio",
    },
    {"Clock", "Tick", "Tick-tock", "Alarm clock", "Church bell", "Clicking"},
    {
        "Foghorn", "Steam whistle", "Train whistle", "Train horn", "Air horn, truck horn", "Toot", "Whistle", "Honk",
        "Vehicle horn, car horn, honking", "Boat, Water vehicle",
    },
    {
        "Zipper (clothing)", "Tearing", "Crumpling, crinkling", "Scratch", "velcro", "fishing reel", "tape measure",
        "opening an umbrella",
    },
    {"Typewriter", "Typing", "Computer keyboard", "Clicking", "Cash register", "Printer", "Writing", "stamping paper"},
    {
        "Cutlery, silverware", "Dishes, pots, and pans", "Chink, clink", "Chewing, mastication", "Biting",
        "Frying (food)", "mortar and pestle",
    },
    {
        "Explosion", "Gunshot, gunfire", "Machine gun", "Fireworks", "Thunder", "Thunderstorm", "Boom", "Rumble",
        "Bang", "Bass drum", "Timpani", "Drum", "Smash, crash",
    },
    {
        "Breathing", "Snoring", "Groan", "Gasp", "Sniff", "Wheeze", "Pant", "Sigh", "Cough", "Sneeze",
        "Throat clearing", "Hiccup", "Burping, eructation", "Crying, sobbing", "Baby cry, infant cry", "Laughter",
        "Baby laughter", "Snort", "Whimper", "Screaming", "Gargling", "Chewing, mastication", "Humming", "yawning",
        "swimming", "slurping", "drinking and sipping",
    },
    {"Fart", "Burping, eructation", "Toilet flush", "squeaky toy", "balloon squeaking", "inflating a balloon"},
    {
        "Laughter", "Baby laughter", "Giggle", "Chuckle, chortle", "Snicker", "Cheering", "Applause", "Clapping",
        "Screaming", "Children playing", "Crowd", "Hubbub, speech noise, speech babble",
    },
    {
        "Yell", "Shout", "Screaming", "Cheering", "Crowd", "Applause", "Children playing", "Crying, sobbing", "Singing",
        "Baby cry, infant cry", "Laughter", "Groan", "Choir",
    },
    {
        "Wail, moan", "Whimper", "Howl", "Crying, sobbing", "Baby cry, infant cry", "Groan", "Screaming", "Singing",
        "Whale vocalization", "loon calling", "peacock calling", "camel groaning",
    },
    {
        "Glockenspiel", "Marimba, xylophone", "Vibraphone", "Mallet percussion", "Chime", "Tubular bells", "Wind chime",
        "music box", "celesta", "triangle",
    },
    {"Organ", "Electronic organ", "Hammond organ", "Accordion", "Harmonica", "Keyboard (musical)", "Synthesizer"},
    {"Theremin", "Synthesizer", "Electronic organ", "Drum machine"},
    {"Bagpipes", "Accordion", "Wind instrument, woodwind instrument", "Organ"},
)  # fmt: skip
# One label for several instruments at once.
_ENSEMBLES = frozenset({"Drum kit", "Drum machine", "String section", "Orchestra", "Choir", "Percussion"})
# AudioSet classes of voices, other than plain speech, that may contain words.
_VOICES = frozenset(
    {
        "Radio", "Television", "Hubbub, speech noise, speech babble", "Children playing", "Cheering", "Crowd",
        "Singing", "Choir", "Beatboxing", "Child speech, kid speaking", "Conversation", "Whispering", "Applause",
    }
)  # fmt: skip
# Categories of sounds recorded close by or indoors. Elsewhere, and in music, the number of sounds is not known.
_ONE_KIND = frozenset({"animal", "alarm", "household", "human", "impact", "instrument", "speech", "tools", "weapon"})
_NO_CONTENT = frozenset(
    {
        "a", "an", "and", "at", "being", "by", "for", "from", "in", "is", "of", "on", "one", "or", "over", "the", "to",
        "with", "someone", "sound", "sounds",
    }
)  # fmt: skip


@lru_cache(maxsize=4096)
def _content(text: str) -> frozenset[str]:
    """Stems of the content words: "church bells ringing" -> church, bell, ring."""
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in _NO_CONTENT]
    return frozenset(re.sub(r"(?<=\w{3})(ing|s)$", "", word) for word in words)


def same_kind(one: Label, other: Label) -> bool:
    """Whether two labels may mean the same sound, or one may be part of the other or a more general name for it."""
    classes = {one.audioset, other.audioset} - {None}
    if one.audioset is not None and one.audioset == other.audioset:
        return True
    if len(classes) == 2 and any(classes <= related for related in _RELATED):
        return True
    named = [_content(label.label) | _content(label.audioset or "") for label in (one, other)]
    return bool(named[0] & named[1])


def are_related(one: Label, other: Label) -> bool:
    """Whether one of two labels may occur with the other, or be confused with it.

    This is wider than :func:`same_kind`, which must not change, because examples are composed by its rules.
    """
    names = [{label.label, label.audioset or label.label} for label in (one, other)]
    return any(names[0] & related and names[1] & related for related in _WIDELY_RELATED)


def holds_voices(label: Label) -> bool:
    """Whether a recording with this label may contain words."""
    return label.category in ("speech", "scene") or label.audioset in _VOICES


def may_hold(recorded: Label, other: Label) -> bool:
    """Whether a recording labelled ``recorded`` may also contain ``other``.

    For labels without AudioSet classes and categories only their words are compared.
    """
    if same_kind(recorded, other) or other.category in OCCURS_WITH.get(recorded.category, ()):
        return True
    if other.category == "speech":
        return holds_voices(recorded)
    return recorded.audioset in _ENSEMBLES and other.category == "instrument"


def holds_one_kind(label: Label) -> bool:
    """Whether a recording with this label certainly has only one kind of sound."""
    return label.category in _ONE_KIND and label.audioset not in _ENSEMBLES
