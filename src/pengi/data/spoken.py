"""What people say in drawn scenes: sentences with slots, and what may be asked about what was said.

A question such as "what is the speaker's name?" is answered where the name is said, and only there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from pengi.data.wordings import CITIES, COUNTRIES, MONTHS
from pengi.templates import NUMBERS

_SLOTS: dict[str, tuple[str, ...]] = {
    "name": (
        "Anna", "Tom", "Maria", "Peter", "Lucy", "Daniel", "Emma", "Jack", "Sarah", "Paul", "Nina", "Oscar", "Julia",
        "Ben", "Alice", "Henry", "Laura", "George", "Kate", "Martin", "Sophie", "David", "Helen", "Max", "Ruth",
        "Simon",
    ),
    "city": CITIES,
    "country": COUNTRIES,
    "month": MONTHS,
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "time": (
        "nine o'clock", "half past ten", "seven thirty", "noon", "three in the afternoon", "a quarter to six",
        "eight in the morning", "midnight", "five o'clock", "ten fifteen", "two thirty",
    ),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "fifty",
    "a hundred"),
    "price": ("five dollars", "twenty euros", "ten pounds", "three fifty", "ninety cents", "forty dollars",
    "two hundred euros"),
    "food": (
        "a pizza", "an apple pie", "two sandwiches", "a tomato soup", "a cheese omelette", "some bread",
        "a green salad", "fried rice", "a bowl of noodles", "pancakes", "a burger", "fish and chips",
        "a slice of cake",
    ),
    "drink": (
        "tea", "orange juice", "hot chocolate", "lemonade", "water", "black coffee", "apple juice", "milk",
        "ginger ale", "green tea",
    ),
    "size": ("small", "large", "medium", "big", "extra large"),
    "extra": ("lemon", "sugar", "honey", "ice", "cream", "mint", "cinnamon"),
    "ask": ("Can I get", "I would like", "I'd like", "Could I have", "Give me", "Make me", "I'll have", "Order"),
    "made": ("iced", "hot", "decaf", "frozen", "fresh", "warm"),
    "cup": ("espresso", "latte", "cappuccino", "mocha", "chai", "coffee", "tea", "chocolate", "matcha", "macchiato"),
    "strength": ("single shot", "double shot", "triple shot", "extra strong", "weak"),
    "bean": ("light roast", "medium roast", "dark roast", "house blend", "Ethiopian"),
    "volume": ("twelve ounce", "sixteen ounce", "half litre", "eight ounce", "small", "large", "medium"),
    "amount": ("some", "a bit of", "lots of", "a little", "a lot of", "extra", "two spoons of", "plenty of"),
    "creamer": ("oat milk", "soy milk", "whole milk", "skim milk", "almond milk", "cream", "milk"),
    "sweet": ("sugar", "brown sugar", "honey", "sweetener", "maple syrup", "vanilla syrup"),
    "colour": ("red", "blue", "green", "yellow", "white", "black", "brown", "silver", "orange", "purple"),
    "thing": (
        "bag", "coat", "bicycle", "umbrella", "phone", "book", "hat", "camera", "suitcase", "key", "wallet", "car",
        "chair", "laptop",
    ),
    "place": (
        "the kitchen", "the garden", "the office", "the station", "the library", "the garage", "the museum",
        "the harbour", "the market", "the old bridge", "the school", "the hospital", "the park", "the town hall",
    ),
    "job": ("doctor", "teacher", "baker", "driver", "nurse", "farmer", "pilot", "lawyer", "carpenter", "painter",
    "cook", "plumber"),
    "relative": ("my brother", "my sister", "my mother", "my uncle", "my neighbour", "my friend", "my grandfather",
    "our teacher"),
    "animal": ("dog", "cat", "horse", "parrot", "rabbit", "cow", "goat", "hamster", "goose", "pig"),
    "weather": ("rainy", "sunny", "windy", "cold", "foggy", "warm", "stormy", "dry"),
    "room": ("twelve", "fourteen", "twenty one", "thirty", "five", "one hundred and two"),
    "verb": ("open", "close", "check", "clean", "lock", "watch", "paint", "leave", "find", "fix"),
}  # fmt: skip
# Sentences, and the questions that they answer with the answer; a slot is filled alike in all of them.
_SENTENCES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("My name is {name}.", (("what is the speaker's name?", "{name}"), ("what is the name of the speaker?", "{name}"))),
    ("Hello, this is {name} speaking.", (("who is calling?", "{name}"), ("what is the speaker's name?", "{name}"))),
    (
        "I live in {city}.",
        (("where does the speaker live?", "{city}"), ("which city does the speaker live in?", "{city}")),
    ),
    (
        "I was born in {city} in {month}.",
        (("where was the speaker born?", "{city}"), ("in which month was the speaker born?", "{month}")),
    ),
    ("I am {number} years old.", (("how old is the speaker?", "{number}"),)),
    (
        "My job is {job} in {city}.",
        (("what is the speaker's job?", "{job}"), ("where does the speaker work?", "{city}")),
    ),
    (
        "The train to {city} leaves at {time}.",
        (("when does the train leave?", "{time}"), ("where does the train go?", "{city}")),
    ),
    ("The next bus goes to {place}.", (("where does the bus go?", "{place}"),)),
    (
        "The meeting is on {day} at {time}.",
        (("when is the meeting?", "{day} at {time}"), ("on which day is the meeting?", "{day}")),
    ),
    ("It costs {price}.", (("how much does it cost?", "{price}"), ("what is the price?", "{price}"))),
    (
        "The {colour} {thing} costs {price}.",
        (("how much does the {thing} cost?", "{price}"), ("what colour is the {thing}?", "{colour}")),
    ),
    (
        "Can I have {food} and {drink}, please?",
        (("what does the speaker order?", "{food} and {drink}"), ("which drink is ordered?", "{drink}")),
    ),
    (
        "I would like one {size} {drink} with {extra}.",
        (
            ("what drink is ordered?", "{drink}"),
            ("what size is ordered?", "{size}"),
            ("with what is it ordered?", "{extra}"),
        ),
    ),
    ("Please bring me {food}.", (("what food is ordered?", "{food}"), ("what is ordered?", "{food}"))),
    (
        "Make me one {size} {drink}, no {extra}.",
        (("what size is the drink?", "{size}"), ("which drink does the speaker want?", "{drink}")),
    ),
    (
        "{ask} a {volume} {made} {cup} with {amount} {creamer}.",
        (
            ("what drink is ordered?", "{made} {cup}"),
            ("what size is ordered?", "{volume}"),
            ("what milk is ordered?", "{amount} {creamer}"),
        ),
    ),
    (
        "{ask} a {bean} {cup} with {amount} {sweet} and {creamer}.",
        (
            ("what drink is ordered?", "{cup}"),
            ("what roast is ordered?", "{bean}"),
            ("what sweetener is ordered?", "{amount} {sweet}"),
            ("what milk is ordered?", "{creamer}"),
        ),
    ),
    (
        "{ask} a {strength} {bean} {made} {cup}.",
        (
            ("how strong is the drink?", "{strength}"),
            ("what drink is ordered?", "{made} {cup}"),
            ("which coffee is used?", "{bean}"),
        ),
    ),
    (
        "{ask} a {volume} {cup}, {strength}, with {sweet}.",
        (
            ("how large is the drink?", "{volume}"),
            ("how strong is the drink?", "{strength}"),
            ("what sweetener is ordered?", "{sweet}"),
            ("what does the speaker want to drink?", "{cup}"),
        ),
    ),
    ("We met {name} at {place}.", (("who did they meet?", "{name}"), ("where did they meet?", "{place}"))),
    (
        "{name} lost a {colour} {thing}.",
        (("what did {name} lose?", "a {colour} {thing}"), ("what colour is the {thing}?", "{colour}")),
    ),
    ("Your {thing} is in {place}.", (("where is the {thing}?", "{place}"),)),
    (
        "Tomorrow it will be {weather} in {city}.",
        (("what will the weather be like?", "{weather}"), ("which city is mentioned?", "{city}")),
    ),
    (
        "We fly to {country} in {month}.",
        (("which country do they fly to?", "{country}"), ("when do they fly?", "in {month}")),
    ),
    ("Please call me back on {day}.", (("on which day should one call back?", "{day}"),)),
    (
        "The shop opens at {time}.",
        (("when does the shop open?", "{time}"), ("what time does the shop open?", "{time}")),
    ),
    ("Your table is number {number}.", (("what is the table number?", "{number}"),)),
    ("You have {number} new messages.", (("how many new messages are there?", "{number}"),)),
    (
        "There are {number} chairs in {place}.",
        (("how many chairs are there?", "{number}"), ("where are the chairs?", "{place}")),
    ),
    (
        "The {animal} is called {name}.",
        (("what is the name of the {animal}?", "{name}"), ("which animal is mentioned?", "a {animal}")),
    ),
    (
        "I have a {animal} and {number} fish.",
        (("how many fish does the speaker have?", "{number}"), ("what pet does the speaker have?", "a {animal}")),
    ),
    ("Turn left at {place}.", (("where should one turn left?", "at {place}"), ("which way should one turn?", "left"))),
    (
        "Turn right after {place}.",
        (("which way should one turn?", "right"), ("after what should one turn right?", "{place}")),
    ),
    ("Go to room {room}.", (("which room is mentioned?", "room {room}"), ("what is the room number?", "{room}"))),
    ("My birthday is in {month}.", (("in which month is the speaker's birthday?", "{month}"),)),
    ("{relative} works as a {job}.", (("what is the job that is mentioned?", "{job}"),)),
    ("Today is {day}.", (("which day is it?", "{day}"), ("what day is mentioned?", "{day}"))),
    ("It is {time}.", (("what time is it?", "{time}"),)),
    ("Please {verb} the {thing} before {time}.", (("until when should it be done?", "before {time}"),)),
    ("The {thing} belongs to {name}.", (("who owns the {thing}?", "{name}"), ("whose {thing} is it?", "{name}'s"))),
    ("Welcome to {city}.", (("which city is named?", "{city}"), ("to which city is the listener welcomed?", "{city}"))),
    ("My favourite colour is {colour}.", (("what is the speaker's favourite colour?", "{colour}"),)),
    ("The answer is {number}.", (("what is the answer?", "{number}"), ("which number is said?", "{number}"))),
    ("Set a timer for {number} minutes.", (("for how long should the timer be set?", "{number} minutes"),)),
)
# Sentences about which nothing further is asked.
_PLAIN = (
    "Good morning, everybody.", "Can you hear me?", "I don't think so.", "Come here, please.", "Where have you been?",
    "Let's go home.", "That was really good.", "I have no idea.", "Please hold the line.", "See you tomorrow.",
    "Could you say that again?", "Wait for me.", "What a beautiful day.", "I will be right back.",
    "Everything is fine.", "Be careful with that.", "Thank you very much.", "The door is open.",
    "We should start now.", "Nobody knows the answer.", "Do you want to play?", "This is only a test.",
    "Mind the step.", "Look at {relative}.", "I saw {name} at {place}.", "Did you {verb} the {thing}?",
    "The {animal} sleeps in {place}.", "{relative} wants {food}.", "There is a {colour} {thing} in {place}.",
    "We walked to {place} and came back.", "{name}, where are you?", "I can't find my {thing}.",
    "Let's {verb} the {thing} together.", "{name} and {relative} went to {place}.", "Never {verb} the {thing}.",
    "The {thing} was too heavy for {name}.", "It is too {weather} to go outside.", "Every {day} we drink {drink}.",
    "Yes, I think so.", "The weather was {weather} all week.", "I like {drink} better than {food}.",
    "Ladies and gentlemen, we are ready.", "Stop it.", "Ready, set, go.", "Happy birthday to you.", "Well done.",
    "I will tell {relative} about it.", "Help me with the {thing}, please.",
    "Once upon a time there was a {animal} who lived near {place}.", "The {animal} ran after the {colour} {thing}.",
    "Good night.", "She put the {thing} on the table and left.", "He never came back from {country}.",
    "They talked about it for hours.", "No, thank you.",
)  # fmt: skip


_DIGITS = {str(number): word for number, word in enumerate(NUMBERS)}


@dataclass(frozen=True)
class Spoken:
    """Sentences that are said, and questions that they answer."""

    text: str
    qa: tuple[tuple[str, str], ...] = ()


def draw_spoken(rng: random.Random, transcripts: Sequence[str], sentences: int = 1) -> list[Spoken]:
    """Some sentences in a row: of real recordings, drawn ones, and drawn ones that answer questions.

    Args:
        rng: what is drawn with.
        transcripts: English sentences of real recordings; may be empty.
        sentences: how many.
    """
    return [_sentence(rng, transcripts) for _ in range(sentences)]


def together(spoken: Sequence[Spoken]) -> Spoken:
    """What is said one after another. A question that two sentences answer differently is answered by neither."""
    asked: dict[str, str | None] = {}
    for question, answer in (pair for one in spoken for pair in one.qa):
        asked[question] = answer if asked.get(question, answer) == answer else None
    text = " ".join(one.text for one in spoken)
    return Spoken(text, tuple((question, answer) for question, answer in asked.items() if answer is not None))


def _sentence(rng: random.Random, transcripts: Sequence[str]) -> Spoken:
    draw = rng.random()
    if transcripts and draw < 0.3:
        text = rng.choice(transcripts)
        return Spoken(text[:1].upper() + text[1:] + ("" if text[-1] in ".!?" else "."))
    if draw < 0.55:
        return Spoken(_filled(rng.choice(_PLAIN), rng, {}))
    text, asked = rng.choice(_SENTENCES)
    slots: dict[str, str] = {}
    said = _filled(text, rng, slots)
    return Spoken(
        said, tuple((_filled(question, rng, slots), _filled(answer, rng, slots)) for question, answer in asked)
    )


def _filled(text: str, rng: random.Random, slots: dict[str, str]) -> str:
    """A text with its slots filled; ``slots`` keeps what they are filled with."""
    for name in re.findall(r"\{(\w+)\}", text):
        if name not in slots:
            slots[name] = rng.choice(_SLOTS[name])
    filled = text.format(**slots)
    return filled[:1].upper() + filled[1:] if text.startswith("{relative}") else filled


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation, digits as words."""
    return [_DIGITS.get(word, word) for word in re.findall(r"[\w']+", text.casefold())]


def misheard(text: str, rate: float, rng: random.Random) -> str:
    """A text with so large a share of its words dropped or changed, as a recogniser does."""
    words = []
    for word in text.split():
        draw = rng.random()
        if draw < rate / 4:
            continue
        words.append(_changed(word, rng) if draw < rate else word)
    return " ".join(words)


def _changed(word: str, rng: random.Random) -> str:
    """A word with another ending, or other vowels."""
    if len(word) < 4 or rng.random() < 0.5:
        return rng.choice(("the", "a", "and", "it", "to", "is")) if len(word) < 4 else word[:-1]
    return re.sub(r"[aeiou]", lambda _: rng.choice("aeiou"), word, count=1)


MAX_WORD_ERRORS = 0.34
"""Largest share of wrong words in a transcript that still says what was said."""


def is_near(truth: str, transcript: str) -> bool:
    """Whether a transcript says what was said, up to a few words."""
    said, written = words_of(truth), words_of(transcript)
    right = sum(block.size for block in SequenceMatcher(None, said, written, autojunk=False).get_matching_blocks())
    return max(len(said), len(written)) - right <= MAX_WORD_ERRORS * len(said)
