"""The families of questions. Each returns a question with its answer, or None if the scene does not determine one.

:mod:`pengi.data.questions` describes the rules for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

from pengi import templates
from pengi.conditioning.evidence import MAYBE, OVERLAP_S, seconds, separate_spans, spans_text
from pengi.data.phrases import GENDERS, NEVER_ASKED, is_plural, tag_tables
from pengi.data.question_context import REPEAT_FACTOR, Answered, Family, QuestionContext
from pengi.data.scenes import LOUDER_DB, SceneEvent
from pengi.data.spoken import as_read, draw_spoken, words_of
from pengi.data.tasks import ATTRIBUTE_TASKS
from pengi.data.wordings import (
    CANT_TELL,
    NEITHER,
    NOBODY,
    NONE,
    NONE_OF_THESE,
    NOTHING_CLEAR,
    NOTHING_SAID,
    filled,
    said_answer,
    wording_tables,
    wordings,
)
from pengi.templates import NO, NUMBERS, YES

CLEARLY_S = 0.3
"""A sound that starts at least this much earlier than another is clearly the first."""
UNCLEAR, LASTING_SHARE = 0.6, 0.9
"""A sound that covers at least ``LASTING_SHARE`` of a recording is there throughout; one that covers less than
``UNCLEAR`` is certainly not."""
KEPT_IF_NONE = 0.06
"""Share of the questions about a speaker, a transcript, an animal and the like that are kept if there is none. It is
low because most recordings have none."""
KEPT_IF_ONE = 0.1
"""Share of the questions about a number that are kept if the answer is one or once, by far the most frequent answer."""
KEPT_IF_ENGLISH = 0.15
"""Share of the questions about the language that are kept if it is English, as in most recordings of speech."""
REPEAT_FACTOR_OFTEN = 0.7
"""Factor on a family's weight after each of its questions about a scene, if it can ask many different ones."""
MAX_SAID_WORDS = 40
MAX_QUOTED_WORDS = 14
FAMILIES: dict[str, Family] = {}
_Ask = Callable[[QuestionContext], Answered | None]
_LEVEL = re.compile(r"Level (-?\d+) dBFS(?:, ([a-z ]+))?\.")
_NOTES = re.compile(r"Notes? ([A-G][^.(]*?)(?: \(\d+ Hz\))?\.")
_TEMPO = re.compile(r"Tempo about (\d+) beats")
_LOUDNESS = ((-18.0, "loud"), (-30.0, "moderately loud"), (-45.0, "quiet"))
# Course of the level -> its description, and the loudest part.
_COURSES = {
    "steady": ("It stays about the same.", "It is equally loud throughout."),
    "swelling": ("It gets louder.", "the end"),
    "fading": ("It gets quieter.", "the start"),
    "louder at the start": ("It is louder at the start.", "the start"),
    "louder in the middle": ("It is louder in the middle.", "the middle"),
    "louder at the end": ("It is louder at the end.", "the end"),
}
_SINGULAR = {"is": "is", "does": "does", "was": "was"}
_PLURAL = {"is": "are", "does": "do", "was": "were"}
_ANYWHERE = frozenset({"speech", "music", "instrument", "impact", "human"})
"""Categories of sounds that belong neither inside nor outside."""
_TIMES = ("never", "once", "twice")


def _family(name: str, weight: float, *, repeat_factor: float = REPEAT_FACTOR) -> Callable[[_Ask], _Ask]:
    def added(ask: _Ask) -> _Ask:
        FAMILIES[name] = Family(name, weight, ask, repeat_factor)
        return ask

    return added


def _yes(is_so: bool) -> str:
    return YES if is_so else NO


def _keeps_none(context: QuestionContext) -> bool:
    """Whether to keep a question about something absent, see :data:`KEPT_IF_NONE`."""
    return context.rng.random() < KEPT_IF_NONE


def _keeps_language(context: QuestionContext) -> bool:
    """Whether to keep a question about the language, see :data:`KEPT_IF_ENGLISH`."""
    return context.scene.attributes.get("language") != "English" or context.rng.random() < KEPT_IF_ENGLISH


def _and(phrases: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def _about(wording: str, phrase: str, **others: str) -> str:
    """A wording with its phrase; verbs agree with it."""
    plural = is_plural(phrase)
    return wording.format(x=phrase, **(_PLURAL if plural else _SINGULAR), **others)


# --- what is there -------------------------------------------------------------------------------------------------


def _present_or_absent(context: QuestionContext) -> tuple[str, bool] | None:
    """A tag to ask about, and whether it is there."""
    present = [tag for tag in context.scene.tags if context.phrases.category(tag) != "speech" and context.is_seen(tag)]
    others = context.absent()
    if not others or (not present and context.rng.random() < 0.7):
        return None
    if present and context.rng.random() < 0.54:
        return context.rng.choice(present), True
    return others[0], False


@_family("presence", 9.0)
def _presence(context: QuestionContext) -> Answered | None:
    drawn = _present_or_absent(context)
    if drawn is None:
        return None
    return Answered(_about(context.rng.choice(wordings("presence")), context.named(drawn[0])), _yes(drawn[1]))


@_family("absence", 3.0)
def _absence(context: QuestionContext) -> Answered | None:
    drawn = _present_or_absent(context)
    if drawn is None:
        return None
    phrase = context.named(drawn[0])
    noun = re.sub(r"^(a|an|the) ", "", phrase)
    if noun.startswith(("someone ", "something ")):
        return None
    return Answered(_about(context.rng.choice(wordings("absence")), phrase, n=noun), _yes(not drawn[1]))


@_family("speech", 3.0)
def _speech(context: QuestionContext) -> Answered | None:
    if context.speech is None:
        return None
    negated = context.rng.random() < 0.2
    question = context.rng.choice(wordings("no_speech" if negated else "speech"))
    return None if context.is_unclear(question) else Answered(question, _yes(context.speech != negated))


@_family("is_music", 1.5)
def _is_music(context: QuestionContext) -> Answered | None:
    if context.music is None or (not context.music and context.rng.random() < 0.7):
        return None
    return Answered(context.rng.choice(wordings("music")), _yes(context.music))


@_family("choice", 6.0)
def _choice(context: QuestionContext) -> Answered | None:
    """Which of several sounds it is; the right one may not be among them."""
    others = context.absent(context.rng.choices((2, 3, 4, 5), (0.4, 0.3, 0.2, 0.1))[0])
    if not others:
        return None
    present = [tag for tag in context.scene.tags if context.is_seen(tag) and tag not in NEVER_ASKED]
    right = context.rng.choice(present) if present and context.rng.random() < 0.72 else None
    if right is None and not (
        (context.scene.is_complete or context.scene.is_recorded) and (present or context.rng.random() < 0.3)
    ):
        return None
    options = context.rng.sample(others[: len(others) - (right is not None)] + ([right] if right else []), len(others))
    say = context.phrases.phrase if context.rng.random() < 0.65 else str
    texts = [say(option) for option in options]
    if len(set(texts)) < len(texts):
        return None
    if len(texts) == 2:
        question = _about(context.rng.choice(wordings("which_of_two")), texts[0], y=texts[1])
        return Answered(question, say(right) if right else NEITHER)
    listed = {"list": ", ".join(texts), "list_or": f"{', '.join(texts[:-1])} or {texts[-1]}"}
    question = context.rng.choice(wordings("which_of_these")).format(**listed)
    return Answered(question, say(right) if right else NONE_OF_THESE)


@_family("kind", 1.5)
def _kind(context: QuestionContext) -> Answered | None:
    """Speech, music or another sound."""
    tags = context.scene.tags
    if not tags or context.is_partly_known or not all(context.phrases.category(tag) for tag in tags):
        return None
    kinds = [
        "speech" if context.phrases.category(tag) == "speech" else "music" if context.phrases.is_musical(tag) else ""
        for tag in tags
    ]
    found = [name for name, kind in (("speech", "speech"), ("music", "music"), ("another sound", "")) if kind in kinds]
    return Answered(context.rng.choice(wordings("kind")), _and(found)) if context.is_seen(*tags) else None


@_family("what", 9.0)
def _what(context: QuestionContext) -> Answered | None:
    question = context.rng.choice(wordings("what"))
    if context.scene.is_complete and not context.scene.tags:
        return Answered(question, NOTHING_CLEAR)
    return Answered(question, _and([context.phrases.phrase(tag) for tag in context.shown])) if context.shown else None


@_family("list", 2.0)
def _list(context: QuestionContext) -> Answered | None:
    question = context.rng.choice(wordings("list"))
    if context.scene.is_complete and not context.scene.tags:
        return Answered(question, NOTHING_CLEAR)
    as_labels = re.search("tag|label|event|keyword", question)
    say = str if as_labels else context.phrases.phrase
    return Answered(question, ", ".join(say(tag) for tag in context.shown)) if context.shown else None


@_family("surroundings", 1.2)
def _surroundings(context: QuestionContext) -> Answered | None:
    """Indoors or outdoors, where a sound belongs to one of them."""
    tags = set(context.scene.tags)
    outdoors, indoors = tags & tag_tables().outdoors, tags & tag_tables().indoors
    question = context.rng.choice(wordings("surroundings"))
    if outdoors and not indoors:
        return Answered(question, "outdoors") if any(map(context.is_shown, outdoors)) else None
    if indoors and not outdoors:
        return Answered(question, "indoors") if any(map(context.is_shown, indoors)) else None
    neutral = tags and all(context.phrases.category(tag) in _ANYWHERE for tag in tags)
    return Answered(question, CANT_TELL) if neutral and _keeps_none(context) else None


# --- what is said, and by whom -------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """A text, cut after :data:`MAX_SAID_WORDS` words."""
    words = text.split()
    return text if len(words) <= MAX_SAID_WORDS else " ".join(words[:MAX_SAID_WORDS]) + " ..."


@_family("said", 5.0)
def _said(context: QuestionContext) -> Answered | None:
    question = context.rng.choice(wordings("said"))
    if context.speech is False and not _keeps_none(context):
        return None
    word = _word(context)
    if word is not None:
        return Answered(question, word)
    if context.transcript is not None:
        return Answered(question, _quoted(context.transcript) or NOTHING_SAID)
    # The answer is a refusal only if the evidence shows why: it does not show that an English transcript is wrong.
    is_english = context.scene.attributes.get("language", "English") == "English"
    transcript = context.evidence.transcript if context.evidence else None
    if context.speech and transcript is not None and (not transcript or not is_english):
        return Answered(question, CANT_TELL)
    return None


def _word(context: QuestionContext) -> str | None:
    """The word of a recording of a single word, if it is detected."""
    word = context.scene.attributes.get("keyword", context.scene.attributes.get("digit"))
    if word is None or context.evidence is None:
        return word
    found = [tag for tag in context.evidence.tags if tag.group == "keyword" and tag.text.strip('"') == word]
    if found and found[0].probability >= MAYBE:
        return word
    return word if context.transcript else None


@_family("says", 4.0)
def _says(context: QuestionContext) -> Answered | None:
    """Does the speaker say a word?"""
    if context.transcript is None or (not context.transcript and context.rng.random() < 0.85):
        return None
    said = words_of(context.transcript)
    if context.scene.transcript:
        truth = set(words_of(context.scene.transcript))
        said = [word for word in said if word in truth]
    content = [word for word in said if len(word) > 2] or said
    if content and context.rng.random() < 0.6:
        return Answered(context.rng.choice(wordings("says")).format(w=context.rng.choice(content)), YES)
    for _ in range(5):
        words = words_of(draw_spoken(context.rng, ())[0].text)
        other = context.rng.choice([word for word in words if len(word) > 2] or ["never"])
        if other not in words_of(context.transcript) and other not in words_of(context.scene.transcript or ""):
            return Answered(context.rng.choice(wordings("says")).format(w=other), NO)
    return None


@_family("who", 12.0)
def _who(context: QuestionContext) -> Answered | None:
    if context.speakers is None or not _are_distinguishable(context):
        return None
    question = context.rng.choice(wordings("who"))
    if context.is_unclear(question):
        return None
    return Answered(question, _and(context.speakers) if context.speakers else NOBODY)


def _are_distinguishable(context: QuestionContext) -> bool:
    """Whether the evidence shows who speaks; if nobody does, most questions are left out."""
    if not context.speakers:
        return _keeps_none(context)
    return all(context.probability(_speaker_tag(who)) >= MAYBE for who in context.speakers)


def _speaker_tag(who: str) -> str:
    return f"{who.removeprefix('a ')} speaking"


@_family("is_speaker", 6.0)
def _is_speaker(context: QuestionContext) -> Answered | None:
    if context.speakers is None or not _are_distinguishable(context):
        return None
    # "is it a man?" and "does this sound like a man?" are not only about speech.
    if not context.speakers and context.has_voice:
        return None
    others = context.rng.choice(("a man", "a woman", "a child"))
    who = context.rng.choice(context.speakers) if context.speakers and context.rng.random() < 0.4 else others
    question = context.rng.choice(wordings("is_speaker")).format(who=who)
    return Answered(question, _yes(who in context.speakers))


@_family("speakers", 4.0)
def _speakers(context: QuestionContext) -> Answered | None:
    if context.speaker_count is None or (len(context.speakers or ()) != 1 and not _are_distinguishable(context)):
        return None
    question = context.rng.choice(wordings("speakers"))
    return None if context.is_unclear(question) else Answered(question, context.speaker_count)


@_family("qa", 24.0, repeat_factor=REPEAT_FACTOR_OFTEN)
def _qa(context: QuestionContext) -> Answered | None:
    """Questions that come with a scene; for a drawn one the answer is written as in the simulated transcript."""
    if not context.scene.qa:
        return None
    question, answer = context.rng.choice(context.scene.qa)
    read = context.evidence.transcript if context.evidence else None
    if read is not None and context.scene.transcript and not context.scene.is_recorded and answer != CANT_TELL:
        answer = as_read(answer, context.scene.transcript, read) or CANT_TELL
    return Answered(question, answer)


# --- how many ------------------------------------------------------------------------------------------------------


def _counts(context: QuestionContext) -> dict[str, int]:
    """Countable things of a scene: plural -> number."""
    scene, counts = context.scene, _kinds(context)
    said = None if context.transcript is None else len(words_of(context.transcript))
    truth = None if context.truth is None else len(words_of(context.truth))
    if truth is not None and "count" in scene.attributes:  # single words: they are counted even where they are misread
        said = truth
    if said is not None and said < len(NUMBERS) and said == (truth or 0):
        counts["words"] = said
    notes = scene.attributes.get("notes", scene.attributes.get("pitch"))
    if notes and _notes(context) == notes:
        counts["notes"] = len(notes.split(", "))
    elif "count" in scene.attributes and truth is None:
        counts["notes"] = NUMBERS.index(scene.attributes["count"])
    return {things: count for things, count in counts.items() if count != 1 or context.rng.random() < KEPT_IF_ONE}


def _kinds(context: QuestionContext) -> dict[str, int]:
    """Number of kinds of sound, and of sounds if each kind occurs once; empty if it is not certain."""
    scene = context.scene
    kinds = context.phrases.kinds(scene.tags)
    single = scene.is_recorded and len(scene.tags) == 1
    if kinds is None or not (scene.is_complete or single) or not context.is_seen(*scene.tags):
        return {}
    counts = {"kinds of sound": kinds, "different sounds": kinds}
    if not scene.is_recorded and len(scene.events) == kinds:
        counts["sounds"] = kinds
    return counts


@_family("how_many", 12.0)
def _how_many(context: QuestionContext) -> Answered | None:
    counts = _counts(context)
    if counts.get("words") == 0 and not _keeps_none(context):
        del counts["words"]
    if counts and context.rng.random() < 0.8:
        things = context.rng.choice(list(counts))
        return Answered(_how_many_of(things, context), NUMBERS[counts[things]] if counts[things] else NONE)
    drawn = _present_or_absent(context)
    thing = context.phrases.thing(drawn[0]) if drawn else None
    if drawn is None or thing is None or "'s" in thing:
        return None
    if drawn[1] and not context.is_shown(drawn[0]):
        return None
    many = "several" if is_plural(thing) else "at least one"
    return Answered(_how_many_of(_plural(thing), context), many if drawn[1] else NONE)


def _how_many_of(things: str, context: QuestionContext) -> str:
    return context.rng.choice(wordings("how_many")).format(things=things)


def _plural(thing: str) -> str:
    """ "a dog" -> "dogs", "a wolf" -> "wolves"."""
    noun = re.sub(r"^(a|an|the) ", "", thing)
    if is_plural(thing) or noun in ("sheep", "bison", "road traffic"):
        return noun
    special = {"wolf": "wolves", "mouse": "mice", "goose": "geese", "fox": "foxes", "fly": "flies", "bus": "buses"}
    if noun in special:
        return special[noun]
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


@_family("exactly", 1.5)
def _exactly(context: QuestionContext) -> Answered | None:
    # "one different sound" is no English.
    counts = {things: count for things, count in _counts(context).items() if count and things != "different sounds"}
    if not counts:
        return None
    plural = context.rng.choice(list(counts))
    right = counts[plural]
    wrong = context.rng.choice([number for number in range(1, 6) if number != right])
    number = right if context.rng.random() < 0.5 else wrong
    things = templates.as_many(number, plural)
    question = context.rng.choice(wordings("exactly")).format(
        number=NUMBERS[number], things=things, plural=plural, are="is" if number == 1 else "are"
    )
    return Answered(question, _yes(number == right))


@_family("how_often", 3.0)
def _how_often(context: QuestionContext) -> Answered | None:
    """Only for drawn scenes: a recording of a sound may contain it several times."""
    scene = context.scene
    if scene.is_recorded:
        return None
    question = context.rng.choice(wordings("how_often"))
    if scene.tags and context.rng.random() < 0.95:
        if not (scene.is_timed and scene.is_complete):
            return None
        tag = max(scene.tags, key=lambda tag: (len(scene.of(tag)), context.rng.random()))
        events = _merged(scene.of(tag))
        if len(events) == 1 and context.rng.random() >= KEPT_IF_ONE:
            return None
        found = context.detected(tag)
        if context.phrases.category(tag) == "speech" or (
            context.evidence and (not found or len(separate_spans(found.spans)) != len(events))
        ):
            return None
        return Answered(_about(question, context.phrases.phrase(tag)), _times(len(events)))
    others = context.absent()
    return Answered(_about(question, context.phrases.phrase(others[0])), _TIMES[0]) if others else None


def _times(count: int) -> str:
    if count < len(_TIMES):
        return _TIMES[count]
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} times"


def _merged(events: Sequence[SceneEvent]) -> list[SceneEvent]:
    """Events without those that continue the one before."""
    return [
        event for index, event in enumerate(events) if not index or event.start_s > events[index - 1].end_s + CLEARLY_S
    ]


# --- when, and which is louder -------------------------------------------------------------------------------------


def _share(tag: str, context: QuestionContext) -> float:
    """Share of the recording that the events of a tag cover."""
    return sum(event.end_s - event.start_s for event in context.scene.of(tag)) / context.scene.duration_s


def _is_throughout(event: SceneEvent, context: QuestionContext) -> bool:
    return _share(event.tag, context) >= LASTING_SHARE


def _extents(context: QuestionContext) -> list[SceneEvent]:
    """For each tag one event from its first start to its last end, in order of their starts."""
    extents = []
    for tag in context.scene.tags:
        events = context.scene.of(tag)
        level_db = max(event.level_db for event in events)
        extents.append(SceneEvent(tag, events[0].start_s, max(event.end_s for event in events), level_db))
    return sorted(extents, key=lambda event: event.start_s)


def _comes_after(later: SceneEvent, earlier: SceneEvent, context: QuestionContext) -> bool:
    """Whether a sound starts after another has ended, also in the evidence."""
    return later.start_s >= earlier.end_s - CLEARLY_S / 2 and context.starts_before(earlier.tag, later.tag)


@_family("sequence", 18.0, repeat_factor=REPEAT_FACTOR_OFTEN)
def _sequence(context: QuestionContext) -> Answered | None:
    """Which sound is clearly first or last, and which comes before or after another."""
    if not context.scene.is_timed or len(context.scene.tags) < 2:
        return None
    extents = _extents(context)
    options: list[tuple[Sequence[str], str, str]] = []
    first, last = extents[0], extents[-1]
    if all(_starts_first(first, other, context) for other in extents[1:]):
        options.append((wordings("first"), "", first.tag))
    if all(_starts_first(other, last, context) and last.end_s >= other.end_s + CLEARLY_S for other in extents[:-1]):
        options.append((wordings("last"), "", last.tag))
    if all(later.start_s >= earlier.end_s - CLEARLY_S / 2 for earlier, later in pairwise(extents)):
        for earlier, later in pairwise(extents):
            if context.starts_before(earlier.tag, later.tag):
                options += [
                    (wordings("after"), earlier.tag, later.tag),
                    (wordings("preceding"), later.tag, earlier.tag),
                ]
    options = [option for option in options if context.is_shown(option[-1])]
    if not options:
        return None
    asking, named, answer = context.rng.choice(options)
    wording = context.rng.choice(asking)
    question = _about(wording, context.phrases.phrase(named)) if named else wording
    return Answered(question, context.phrases.phrase(answer))


def _starts_first(earlier: SceneEvent, later: SceneEvent, context: QuestionContext) -> bool:
    """Whether one sound clearly starts before another, also by the evidence if it has the times of both."""
    is_read = context.has_times(earlier.tag, later.tag)
    return later.start_s >= earlier.start_s + CLEARLY_S and (
        not is_read or context.starts_before(earlier.tag, later.tag)
    )


@_family("order", 18.0, repeat_factor=REPEAT_FACTOR_OFTEN)
def _order(context: QuestionContext) -> Answered | None:
    if not context.scene.is_timed:
        return None
    pairs = [
        (earlier, later)
        for earlier, later in combinations(_extents(context), 2)
        if _comes_after(later, earlier, context)
    ]
    if not pairs:
        return None
    first, second = context.rng.choice(pairs)
    earlier, later = context.phrases.phrase(first.tag), context.phrases.phrase(second.tag)
    draw = context.rng.random()
    if draw < 0.35:
        x, y = context.rng.sample([earlier, later], 2)
        asks_first = context.rng.random() < 0.8
        question = _about(context.rng.choice(wordings("which_first" if asks_first else "which_last")), x, y=y)
        return Answered(question, earlier if asks_first else later)
    wording = context.rng.choice(wordings("before"))
    if draw < 0.4 and (others := context.absent()):
        x, y = context.rng.sample([earlier, context.phrases.phrase(others[0])], 2)
        return Answered(_about(wording, x, y=y), NO)
    right = context.rng.random() < 0.54
    return Answered(_about(wording, *((earlier,) if right else (later,)), y=later if right else earlier), _yes(right))


@_family("together", 10.0, repeat_factor=REPEAT_FACTOR_OFTEN)
def _together(context: QuestionContext) -> Answered | None:
    if not context.scene.is_timed or len(context.scene.tags) < 2:
        return None
    one, other = context.rng.sample(context.scene.tags, 2)
    overlaps = [
        min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
        for a in context.scene.of(one)
        for b in context.scene.of(other)
    ]
    if not context.has_times(one, other) or -CLEARLY_S < max(overlaps) < 2 * CLEARLY_S:
        return None
    detected_s = context.overlap_s(one, other)
    if detected_s is not None and (detected_s > OVERLAP_S) != (max(overlaps) > 0):
        return None
    if max(overlaps) < 0 and context.rng.random() < 0.5:  # most pairs do not overlap
        return None
    x, y = context.phrases.phrase(one), context.phrases.phrase(other)
    return Answered(_about(context.rng.choice(wordings("together")), x, y=y), _yes(max(overlaps) > 0))


@_family("throughout", 8.0)
def _throughout(context: QuestionContext) -> Answered | None:
    scene = context.scene
    if not (scene.is_timed and scene.is_complete) or not scene.tags or not context.has_times(*scene.tags):
        return None
    shares = {tag: _share(tag, context) for tag in scene.tags}
    if any(UNCLEAR <= share < LASTING_SHARE for share in shares.values()):
        return None
    lasting = [tag for tag, share in shares.items() if share >= LASTING_SHARE]
    if any(context.is_written_throughout(tag) for tag in scene.tags if tag not in lasting):
        return None
    if context.rng.random() < 0.5:
        tag = context.rng.choice(lasting if lasting and context.rng.random() < 0.5 else scene.tags)
        wording = context.rng.choice(wordings("is_throughout"))
        return Answered(_about(wording, context.phrases.phrase(tag)), _yes(tag in lasting))
    if not all(map(context.is_shown, lasting)) or (not lasting and not _keeps_none(context)):
        return None
    answer = _and([context.phrases.phrase(tag) for tag in lasting]) if lasting else "nothing"
    return Answered(context.rng.choice(wordings("throughout")), answer)


@_family("when", 1.5)
def _when(context: QuestionContext) -> Answered | None:
    """The times in the evidence."""
    if context.evidence is None:
        return None
    if context.rng.random() < 0.2 and (others := context.absent()):
        return Answered(_about(context.rng.choice(wordings("when")), context.phrases.phrase(others[0])), _TIMES[0])
    if not context.scene.tags:
        return None
    tag = context.rng.choice(context.scene.tags)
    found = context.detected(tag)
    if found is None or not context.has_times(tag):
        return None
    phrase, when = context.phrases.phrase(tag), spans_text(found.spans, context.evidence.duration_s)
    if context.rng.random() < 0.65:
        return Answered(_about(context.rng.choice(wordings("when")), phrase), when) if when else None
    start = "0" if when == "throughout" else when.split("-")[0]
    answer = "at the start" if float(start or 0) == 0 else f"at {start} s"
    return Answered(_about(context.rng.choice(wordings("begins")), phrase), answer) if when else None


@_family("louder", 8.0)
def _louder(context: QuestionContext) -> Answered | None:
    """Which of two sounds is louder, if they differ enough."""
    if not context.scene.is_timed or len(context.scene.tags) < 2:
        return None
    by_level = sorted(_extents(context), key=lambda event: event.level_db)
    pairs = [
        (softer, louder)
        for softer, louder in combinations(by_level, 2)
        if louder.level_db - softer.level_db >= LOUDER_DB and context.has_some_times(softer.tag, louder.tag)
    ]
    if not pairs:
        return None
    softer, louder = context.rng.choice(pairs)
    x, y = context.phrases.phrase(louder.tag), context.phrases.phrase(softer.tag)
    if context.rng.random() < 0.5 or not context.has_times(softer.tag, louder.tag):
        first, second = context.rng.sample([x, y], 2)
        return Answered(_about(context.rng.choice(wordings("louder")), first, y=second), x)
    right = context.rng.random() < 0.5
    question = _about(context.rng.choice(wordings("is_louder")), x if right else y, y=y if right else x)
    return Answered(question, _yes(right))


# --- what is measured ----------------------------------------------------------------------------------------------


def _measured(context: QuestionContext, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """The match of the first descriptor that fits a pattern."""
    descriptors = context.evidence.descriptors if context.evidence else ()
    return next((found for text in descriptors if (found := pattern.match(text))), None)


def _notes(context: QuestionContext) -> str | None:
    """The measured notes, or those of the scene if there is no evidence."""
    if context.evidence is None:
        return context.scene.attributes.get("notes", context.scene.attributes.get("pitch"))
    found = _measured(context, _NOTES)
    return found[1] if found else None


@_family("loudness", 0.4)
def _loudness(context: QuestionContext) -> Answered | None:
    found = _measured(context, _LEVEL)
    if found is None:
        return None
    level_db = int(found[1])
    word = next((word for lowest, word in _LOUDNESS if level_db >= lowest), "very quiet")
    if word != "moderately loud" and context.rng.random() < 0.3:
        asked = context.rng.choice(("loud", "quiet"))
        return Answered(context.rng.choice(wordings("is_loud")).format(level=asked), _yes(asked in word))
    return Answered(context.rng.choice(wordings("how_loud")), f"{word}, about {level_db} dBFS")


@_family("course", 0.5)
def _course(context: QuestionContext) -> Answered | None:
    found = _measured(context, _LEVEL)
    if found is None or found[2] not in _COURSES:
        return None
    change, loudest = _COURSES[found[2]]
    if context.rng.random() < 0.5:
        return Answered(context.rng.choice(wordings("course")), change)
    return Answered(context.rng.choice(wordings("loudest")), loudest)


@_family("length", 0.25)
def _length(context: QuestionContext) -> Answered | None:
    if context.evidence is None:
        return None
    return Answered(context.rng.choice(wordings("how_long")), f"{seconds(context.evidence.duration_s)} seconds")


@_family("tempo", 1.0)
def _tempo(context: QuestionContext) -> Answered | None:
    found = _measured(context, _TEMPO)
    return Answered(context.rng.choice(wordings("tempo")), f"about {found[1]} beats a minute") if found else None


@_family("pitch", 8.0)
def _pitch(context: QuestionContext) -> Answered | None:
    question = context.rng.choice(wordings("note"))
    truth = context.scene.attributes.get("notes", context.scene.attributes.get("pitch"))
    measured = _notes(context)
    if truth is not None:
        return Answered(question, truth) if measured == truth else None
    if measured is None and context.evidence is not None and _keeps_none(context):
        return Answered(question, CANT_TELL)
    return None


# --- names: instruments, genres, languages, words, animals ---------------------------------------------------------


@_family("instrument_name", 24.0)
def _instrument(context: QuestionContext) -> Answered | None:
    question = context.rng.choice(wordings("instrument"))
    instrument = context.scene.attributes.get("instrument")
    if instrument is not None:
        tag = next((tag for tag in context.scene.tags if tag == instrument), instrument)
        return Answered(question, context.phrases.phrase(tag)) if context.is_foremost(tag) else None
    return Answered(question, "no instrument") if context.music is False and _keeps_none(context) else None


@_family("genre_name", 12.0)
def _genre(context: QuestionContext) -> Answered | None:
    question = context.rng.choice(wordings("genre"))
    genre = context.scene.attributes.get("genre")
    if genre is not None:
        tag = next((tag for tag in context.scene.tags if tag.startswith(genre)), f"{genre} music")
        return Answered(question, context.phrases.phrase(tag)) if context.is_foremost(tag) else None
    return Answered(question, "There is no music.") if context.music is False and _keeps_none(context) else None


@_family("language_name", 10.0)
def _language(context: QuestionContext) -> Answered | None:
    language = context.scene.attributes.get("language")
    if context.speech is False:
        return Answered(context.rng.choice(wordings("language")), NOTHING_SAID) if _keeps_none(context) else None
    if language is None or not context.is_foremost(language) or not _keeps_language(context):
        return None
    if context.rng.random() < 0.75:
        return Answered(context.rng.choice(wordings("language")), language)
    right = context.rng.random() < 0.5
    others = [name for name in wording_tables().words["language"] if name != language]
    named = language if right else context.rng.choice(others)
    question = context.rng.choice(
        (f"is the speaker speaking {named}?", f"is it {named}?", f"is this {named}?", f"is {named} spoken?")
    )
    return Answered(question, _yes(right))


@_family("word_name", 6.0)
def _word_name(context: QuestionContext) -> Answered | None:
    is_digit = "digit" in context.scene.attributes
    question = context.rng.choice(wordings("digit" if is_digit and context.rng.random() < 0.7 else "keyword"))
    if context.speech is False:
        question = context.rng.choice(wordings("digit") + wordings("keyword"))
        return Answered(question, NOTHING_SAID) if _keeps_none(context) else None
    word = _word(context)
    return Answered(question, word) if word else None


@_family("feeling", 2.0)
def _feeling(context: QuestionContext) -> Answered | None:
    emotion = context.scene.attributes.get("emotion")
    return Answered(context.rng.choice(wordings("feeling")), emotion) if emotion else None


@_family("animal_name", 6.0)
def _animal(context: QuestionContext) -> Answered | None:
    return _named_thing(context, "animal", wordings("animal"), ("dog barking", "birds chirping", "cat meowing"))


@_family("vehicle_name", 2.0)
def _vehicle(context: QuestionContext) -> Answered | None:
    return _named_thing(context, "vehicle", wordings("vehicle"), ("car passing by", "train", "airplane"))


def _named_thing(
    context: QuestionContext, category: str, asking: Sequence[str], usual: Sequence[str]
) -> Answered | None:
    """Which animal, or which vehicle; the answer is "no animal" if the usual ones are certainly absent."""
    things = [context.phrases.thing(tag) for tag in context.shown if context.phrases.category(tag) == category]
    named = [thing for thing in dict.fromkeys(things) if thing and " horn" not in thing and "alarm" not in thing]
    if named:
        return Answered(context.rng.choice(asking), _and(named))
    there = any(context.phrases.category(tag) in (category, "") for tag in context.scene.tags)
    if there or not set(usual) <= set(context.scene.absent) or not _keeps_none(context):
        return None
    return Answered(context.rng.choice(asking), f"no {category}")


# --- descriptions --------------------------------------------------------------------------------------------------


@_family("description", 5.0)
def _description(context: QuestionContext) -> Answered | None:
    text = describe(context)
    return Answered(context.rng.choice(wordings("describe")), text) if text else None


@_family("caption", 5.0)
def _caption(context: QuestionContext) -> Answered | None:
    text = describe(context)
    return Answered(context.rng.choice(templates.PROMPTS["caption"]), text, is_prompt=True) if text else None


def describe(context: QuestionContext) -> str | None:
    """A caption that a person wrote, if the scene has any and the evidence shows all tags; for a scene without captions
    one of the shown tags. None if neither is possible."""
    scene = context.scene
    if scene.captions:
        return context.rng.choice(scene.captions) if len(context.shown) == len(scene.tags) else None
    if not scene.tags:
        return NOTHING_CLEAR if scene.is_complete else None
    extents = [event for event in _extents(context) if event.tag in context.shown]
    if not extents:
        return None
    clauses = [(event, _clause(context, event.tag)) for event in extents]
    lasting = [clause for event, clause in clauses if _is_throughout(event, context)]
    passing = [clause for event, clause in clauses if not _is_throughout(event, context)]
    if not scene.is_timed or not passing or len(lasting) > 1:
        return _sentence(_and([clause for _, clause in clauses]))
    if not _is_sequence([event for event, _ in clauses if not _is_throughout(event, context)]):
        return _sentence(_and(passing) + (f" while {lasting[0]}" if lasting else ""))
    captions = templates.composed_captions(passing, lasting[0] if lasting else None)
    return re.sub(r'([.?!]")\.', r"\1", context.rng.choice(captions))


def _is_sequence(events: Sequence[SceneEvent]) -> bool:
    return all(later.start_s >= earlier.end_s - CLEARLY_S for earlier, later in pairwise(events))


def _sentence(text: str) -> str:
    return re.sub(r'([.?!]")\.', r"\1", f"{text[:1].upper()}{text[1:]}.")


def _clause(context: QuestionContext, tag: str) -> str:
    """A clause about a tag with the details that the evidence shows: "a dog barks", "a cello plays the note C4"."""
    scene = context.scene
    if context.phrases.category(tag) == "speech":
        return _speech_clause(context, tag)
    clause = context.phrases.clause(tag)
    notes = scene.attributes.get("notes", scene.attributes.get("pitch"))
    if scene.attributes.get("instrument") == tag and notes and _notes(context) == notes:
        names = notes.split(", ")
        manner = templates.DYNAMICS.get(scene.attributes.get("dynamics", ""), "") if context.evidence is None else ""
        return f"{clause} the note{'s' if len(names) > 1 else ''} {_and(names)}{' ' + manner if manner else ''}"
    times = len(_merged(scene.of(tag)))
    found = context.detected(tag)
    counted = (
        scene.is_complete
        and not scene.is_recorded
        and times > 1
        and (context.evidence is None or (found and len(separate_spans(found.spans)) == times))
    )
    return f"{clause} {_times(times)}" if counted else clause


def _speech_clause(context: QuestionContext, tag: str) -> str:
    who = (context.speakers or ("a person",))[0] if len(context.speakers or ()) < 2 else tag_speaker(tag)
    if who != "a person" and not context.is_shown(_speaker_tag(who)):
        who = "a person"
    said = _word(context) or context.transcript
    if said and len(said.split()) <= MAX_QUOTED_WORDS and len(context.speakers or ()) < 2:
        return f'{who} says "{said}"'
    language = context.scene.attributes.get("language")
    if language and (context.evidence is None or (language != "English" and context.is_shown(language))):
        return f"{who} speaks {language}"
    return f"{who} is speaking"


def tag_speaker(tag: str) -> str:
    """ "man speaking" -> "a man"."""
    return f"a {tag.removesuffix(' speaking')}" if tag.endswith(" speaking") else "a person"


# --- tasks with fixed prompts, as in the paper ---------------------------------------------------------------------


@_family("events", 8.0)
def _events(context: QuestionContext) -> Answered | None:
    """ "this is a sound of": the labels, the most probable first, or in any order if there is no evidence."""
    if not context.scene.tags or (context.scene.captions and not context.scene.is_recorded):
        return None
    prompt = context.rng.choice(templates.PROMPTS["events"])
    named = context.shown if context.evidence else context.rng.sample(context.shown, len(context.shown))
    return Answered(prompt, templates.events_target(named), is_prompt=True) if named else None


def _attribute(name: str) -> _Ask:
    def ask(context: QuestionContext) -> Answered | None:
        value = context.scene.attributes.get(name)
        if value is None or (name in _DETECTED and not context.is_foremost(_DETECTED[name](value))):
            return None
        if name == "language" and not _keeps_language(context):
            return None
        return Answered(context.rng.choice(templates.PROMPTS[name]), value, is_prompt=True)

    return ask


# Attributes that have tags -> the name of the tag for a value.
_DETECTED: dict[str, Callable[[str], str]] = {
    "instrument": str,
    "genre": lambda value: f"{value} music",
    "language": str,
    "gender": lambda value: f"{GENDERS[value]} speaking" if value in GENDERS else value,
}
for _name in ATTRIBUTE_TASKS:
    _family(_name, 3.0)(_attribute(_name))


@_family("metadata", 0.7)
def _metadata(context: QuestionContext) -> Answered | None:
    text = context.scene.metadata
    return Answered(context.rng.choice(templates.PROMPTS["metadata"]), text, is_prompt=True) if text else None


@_family("scene", 1.5)
def _scene(context: QuestionContext) -> Answered | None:
    if context.scene.domain != "scene" or not context.shown:
        return None
    target = templates.events_target(context.shown)
    return Answered(context.rng.choice(templates.PROMPTS["scene"]), target, is_prompt=True)


@_family("music", 0.7)
def _music(context: QuestionContext) -> Answered | None:
    genre = context.scene.attributes.get("genre")
    if genre is None or not context.is_foremost(f"{genre} music"):
        return None
    target = templates.music_target(context.scene.attributes)
    return Answered(context.rng.choice(templates.PROMPTS["music"]), target, is_prompt=True)


@_family("note", 1.0)
def _note(context: QuestionContext) -> Answered | None:
    attributes = dict(context.scene.attributes)
    if "instrument" not in attributes or not context.is_foremost(attributes["instrument"]):
        return None
    if attributes.get("qualities"):
        qualities = templates.split_events(attributes["qualities"])
        attributes["qualities"] = ", ".join(context.rng.sample(qualities, len(qualities)))
    if context.evidence is not None:
        attributes.pop("dynamics", None)
        if _notes(context) != attributes.get("pitch"):
            attributes.pop("pitch", None)
    return Answered(context.rng.choice(templates.PROMPTS["note"]), templates.note_target(attributes), is_prompt=True)


# --- unanswerable questions ----------------------------------------------------------------------------------------


@_family("unanswerable", 50.0)
def _unanswerable(context: QuestionContext) -> Answered | None:
    """Questions that no recording answers; none if speech or a sound may answer it, or if only a caption is known."""
    scene = context.scene
    if not (scene.tags or scene.attributes or scene.qa or scene.is_complete):
        return None
    kinds = wording_tables().unanswerable
    weights = [0.5 if name in ("prices", "reasons", "maths") else 1.0 for name in kinds]
    name = context.rng.choices(list(kinds), weights)[0]
    wording, things = context.rng.choice(kinds[name].questions), _things(context)
    if not things and "name of {thing}" in wording:  # an instrument does have a name
        return None
    question = filled(wording, things, context.rng)
    return None if _may_be_known(context, name, question) else Answered(question, CANT_TELL)


def _may_be_known(context: QuestionContext, name: str, question: str) -> bool:
    """Whether a question that recordings usually cannot answer may be answered here by speech or by a sound."""
    said = said_answer(name)
    if said is None:
        return False
    texts = (context.truth, context.evidence.transcript if context.evidence else None)
    if context.scene.qa or any(said.search(text) for text in texts if text):
        return True
    if "speaking?" in question and context.speech is False:
        return True
    sounds, answers = " ".join(context.scene.tags), wording_tables().sound_answers
    return any(re.search(asked, question) and re.search(clue, sounds) for asked, clue in answers.items())


def _things(context: QuestionContext) -> list[str]:
    """Things in the scene that a question may be about, such as "the dog"."""
    things = [context.phrases.thing(tag) for tag in context.scene.tags]
    return [re.sub(r"^(a|an) ", "the ", thing) for thing in things if thing and not is_plural(thing)]
