"""The benchmark ``val-open``: families of questions as a new user might ask them.

The right answers follow from labels or from the generation of a recording, so they are certain.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle, islice, zip_longest
from operator import attrgetter
from typing import Any

from pengi.data.compose import Composed
from pengi.data.label_overlap import may_hold
from pengi.data.manifest import Clip
from pengi.data.phrases import GENDERS
from pengi.evaluation import patterns
from pengi.evaluation.patterns import FALSE, NO, NONE, REFUSAL, TRUE, UNSAID, YES, naming, number
from pengi.evaluation.questions import (
    SEED,
    LabelledClips,
    LabelNames,
    Question,
    is_steady,
    made_clip,
    note_question,
    spec,
)  # fmt: skip

_LOUDER_DB = 8.0  # a clear difference for every listener
_FAINT_BACKGROUND_DB = -6.0  # relative to the softest part; a softer background may be inaudible
_SEVERAL_PEOPLE = r"and (?:an?|the|one|another)|people|men|women|both|several|many|two|three|four"
_WHO = {
    "man": "m[ae]n|male|guy|gentleman|he",
    "woman": "wom[ae]n|female|lady|girl|she",
    "child": "child|children|kid|boy|girl",
}


def open_questions(source: LabelledClips) -> list[Question]:
    """The questions of ``val-open``, by family."""
    asker = _Asker(source)
    for ask in (
        asker.presence, asker.speech, asker.words, asker.speakers, asker.counts, asker.choices, asker.kinds,
        asker.attributes, asker.time, asker.negations, asker.unanswerable, asker.made,
    ):  # fmt: skip
        ask()
    return asker.questions


class _Asker:
    """Collects questions; each method adds the questions of related families."""

    def __init__(self, source: LabelledClips) -> None:
        self.questions: list[Question] = []
        self.spec = spec()
        self.names = LabelNames(source.labels)
        self.labels = source.labels
        self.composed = [example for example in source.composed() if example.composition.kind == "sounds"]
        self.counted = [example for example in source.composed() if example.composition.kind != "sounds"]
        clips = [clip for clip in source.clips if clip.group not in self.spec["doubtful"]]
        self.sounds = [clip for clip in clips if clip.source in self.spec["sounds"] and len(clip.events) == 1]
        self.notes = [clip for clip in clips if clip.source in self.spec["notes"] and (clip.duration_s or 0.0) > 0.7]
        self.spoken = [clip for clip in clips if clip.source in self.spec["speech"]]
        self.music = [clip for clip in clips if clip.attributes.get("genre") in self.spec["genres"]]
        self.voiceless = [clip for clip in self.sounds if clip.events[0] in self.spec["voiceless"]] + self.notes
        self.all_sounds = self.sounds + self.notes
        self.confusable = [clip for clip in self.all_sounds if self._confused(clip)]
        self._wordings = {family: cycle(texts) for family, texts in self.spec["wordings"].items()}

    def ask(self, family: str, clip: Clip, answer: str, *accepted: str, wording: str = "", **words: str) -> None:
        """Add a question in the next wording of its family, or of the family ``wording``."""
        text = next(self._wordings[wording or family]).format(**words)
        self.questions.append(
            Question(clip, family, text[:1].upper() + text[1:] if "?" in text else text, answer, accepted)
        )

    def presence(self) -> None:
        """Sounds that are there, and absent sounds that are easily confused with them."""
        for clip in _spread("present", self.all_sounds, 32):
            label = clip.events[0]
            self.ask("present", clip, "yes", YES, self.names.one(label, ()), phrase=self.names.phrase(label))
        for clip in _spread("absent", self.confusable, 40):
            self.ask("absent", clip, "no", NO, wording="present", phrase=self._rng(clip).choice(self._confused(clip)))

    def speech(self) -> None:
        """Whether anybody speaks."""
        for clip in _spread("speech", self.spoken, 12, _source):
            self.ask("speech present", clip, "yes", YES, naming("speech|speaks?|speaking|talk\\w*|says?|voice"))
        for clip in _spread("no speech", self.voiceless, 16):
            self.ask("speech absent", clip, "no", NO, wording="speech present")

    def words(self) -> None:
        """What is said (also where nothing is), and whether a given word is said."""
        said = [
            clip for clip in self.spoken if _word(clip) or clip.attributes.get("transcript") in self.spec["sentences"]
        ]
        for clip in _spread("said", said, 26, _transcript):
            self.ask("what is said", clip, _transcript(clip), self._saying(clip))
        for clip in _spread("nothing", self.voiceless, 20):
            self.ask("nothing is said", clip, "nothing", UNSAID)
        words = sorted({_word(clip) for clip in self.spoken} - {""})
        for index, clip in enumerate(_spread("says", said, 28, _transcript)):
            spoken = self.spec["said_words"].get(clip.attributes.get("transcript"), [_word(clip)])
            others = [word for word in words if not re.search(self.spec["heard_as"].get(word, word), " ".join(spoken))]
            word = self._rng(clip).choice(others if index % 2 else spoken)
            # The word itself may be "yes" or "no", so an answer must begin with the right one of them.
            right: tuple[str, ...] = ("no", NO, r"no\b(?!,? (?:yes|or|idea|way|telling)\b)")
            if not index % 2:
                right = ("yes", YES, naming(re.escape(word)), rf"yes\b(?! (?:and|or) no\b).*\b{re.escape(word)}\b")
            self.ask("is it said", clip, *right, word=word)

    def speakers(self) -> None:
        """Who speaks and how many people do."""
        voices = [clip for clip in self.spoken if clip.attributes.get("gender") in GENDERS]
        for clip in _spread("who", voices, 12, _gender):
            who = GENDERS[_gender(clip)]
            self.ask(
                "who speaks", clip, who, naming(_WHO[who], *(words for name, words in _WHO.items() if name != who))
            )
        for clip in _spread("nobody", self.voiceless, 10):
            self.ask("who speaks", clip, "nobody", NONE)
        for index, clip in enumerate(_spread("voice", voices, 15, _gender)):
            who = GENDERS[_gender(clip)]
            other = "woman" if who == "man" else "man"
            if index % 3:
                asked = ("child", other)[index % 3 - 1]
                self.ask("voice of", clip, "no", NO, naming(_WHO[who], _WHO[other], "child"), who=f"a {asked}")
            else:
                self.ask("voice of", clip, "yes", YES, naming(_WHO[who]), who=f"a {who}")
        for clip in _spread("speakers", [clip for clip in self.spoken if not _word(clip)], 10, _source):
            self.ask(
                "how many speak",
                clip,
                "one",
                number(1),
                naming(r"(?:a|the) (?:man|woman|person)", _SEVERAL_PEOPLE),
            )
        for clip in _spread("no speakers", self.voiceless, 10):
            self.ask("how many speak", clip, "none", number(0))

    def counts(self) -> None:
        """How many words or notes there are, and how many (none) of absent things."""
        for example in self.counted:
            clip, composition = example.clip, example.composition
            count = len(composition.parts)
            phrase = self.names.phrase(composition.parts[0].clip.events[0])
            if sum(asked.family == "how many" for asked in self.questions) < 24:
                wording = f"how many {composition.kind}"
                self.ask("how many", clip, patterns.NUMBER_WORDS[count], number(count), wording=wording, phrase=phrase)
        for things, labels in self.spec["uncountable"].items():
            without = [clip for clip in self.all_sounds if clip.events[0] in labels]
            for clip in _spread(things, without, 2):
                self.ask("how many, none", clip, "none", number(0), plural=things)

    def choices(self) -> None:
        """Which of several sounds it is; the right one may not be among them."""
        for count, family in ((20, "which of these"), (16, "none of these")):
            for clip in _spread(family, self.sounds, count):
                rng, label, others = self._rng(clip), clip.events[0], self._others(clip)
                if len(others) < 3:
                    continue
                wrong = rng.sample(others, 3)
                right = self.names.one(label, wrong)
                shown = rng.sample([label, *wrong[:2]], 3) if family == "which of these" else wrong
                options = f"{', '.join(map(self.names.phrase, shown[:-1]))} or {self.names.phrase(shown[-1])}"
                if family == "which of these":
                    self.ask(family, clip, self.names.phrase(label), right, options=options)
                else:
                    self.ask(family, clip, "none of them", NONE, right, options=options)

    def kinds(self) -> None:
        """Which animal or instrument it is (or none), and whether it is speech, music or something else."""
        spec = self.spec
        for clip in _spread("animal", [clip for clip in self.sounds if clip.events[0] in spec["animals"]], 20):
            self.ask("animal", clip, spec["animal_names"][clip.events[0]], self.names.one(clip.events[0], ()))
        for clip in _spread("instrument", [clip for clip in self.notes if clip.events[0] in spec["instruments"]], 22):
            self.ask("instrument", clip, clip.events[0], self.names.one(clip.events[0], ()))
        no_animals = [clip for clip in self.sounds if clip.events[0] in spec["voiceless"] and clip.domain != "animal"]
        for clip in _spread("no animal", no_animals, 9):
            self.ask("no animal", clip, "none", NONE)
        no_instruments = [clip for clip in self.voiceless if clip.source in spec["sounds"]]
        for clip in _spread("no instrument", no_instruments, 9):
            self.ask("no instrument", clip, "none", NONE)
        kinds = {
            "speech": (self.spoken, naming(r"speech|talk\w*|speak\w*|voice", "music")),
            "music": (self.music, naming(r"music\w*|song", "speech")),
            "something else": (
                no_instruments,
                rf"(?!{REFUSAL})(?!.*(?<!neither )(?<!nor )(?<!not )(?<!no )(?<!or )\b(?:speech|music)\b)"
                r"(?=.*\b(?:else|other|another|effects?|neither|sounds?)\b)",
            ),
        }
        for answer, (clips, accepted) in kinds.items():
            for clip in _spread(answer, clips, 5, _domain if answer == "music" else _source):
                self.ask("speech, music or else", clip, answer, accepted, self.names.one(clip.events[0], ()))

    def attributes(self) -> None:
        """Genre, language, digit, note."""
        spec = self.spec
        for clip in _spread("genre", self.music, 12, lambda clip: clip.attributes["genre"]):
            genre = str(clip.attributes["genre"])
            self.ask("genre", clip, genre, naming(spec["genres"][genre]))
        with_language = [clip for clip in self.spoken if clip.attributes.get("language") in spec["languages"]]
        with_language.sort(key=lambda clip: -(clip.duration_s or 0.0))  # a longer word has more evidence
        for clip in _spread("", with_language, 12, _language):
            language = _language(clip)
            self.ask("language", clip, language, naming(spec["languages"][language]))
        for clip in _spread("", [clip for clip in with_language if _language(clip) in spec["foreign"]], 6, _language):
            self.ask("is it English", clip, "no", NO, naming(spec["languages"][_language(clip)]))
        english = [clip for clip in self.spoken if clip.source in ("librispeech", "speech-to-intent")]
        for clip in _spread("english", english, 5, _source):
            self.ask("is it English", clip, "yes", YES, naming("english"))
        digits = [clip for clip in self.spoken if clip.source == "fsdd"]
        for clip in _spread("digit", digits, 10, _word):
            self.ask("digit", clip, _word(clip), self._saying(clip))
        for clip in _spread("note", [clip for clip in self.notes if is_steady(clip, spec["notes"])], 12):
            self.questions.append(note_question(clip, next(self._wordings["note"])))

    def time(self) -> None:
        """Before, first, last, at the same time, throughout, louder: about composed recordings."""
        plain = [
            example
            for example in self.composed
            if example.composition.background is None and len(example.composition.parts) > 1
        ]
        over = [
            example
            for example in self.composed
            if (background := example.composition.background) is not None
            and background.level_db >= min(part.level_db for part in example.composition.parts) + _FAINT_BACKGROUND_DB
        ]
        for index, example in enumerate(plain[:14]):
            early, late = (self._phrases(example)[at] for at in (0, -1))
            answer, accepted, (a, b) = [("yes", YES, (early, late)), ("no", NO, (late, early))][index % 2]
            self.ask("before", example.clip, answer, accepted, a=a, b=b)
        for family, at, examples in (("first", 0, plain[20:34]), ("last", -1, plain[34:46])):
            for example in examples:
                labels = [part.clip.events[0] for part in example.composition.parts]
                a, b = self._rng(example.clip).sample([self.names.phrase(labels[0]), self.names.phrase(labels[-1])], 2)
                self.ask(
                    family, example.clip, self.names.phrase(labels[at]), self.names.one(labels[at], labels), a=a, b=b
                )
        for example in over[:8]:
            self.ask("same time", example.clip, "yes", YES, a=self._phrases(example)[0], b=self._phrases(example)[-1])
        for example in plain[46:54]:
            self.ask("same time", example.clip, "no", NO, a=self._phrases(example)[0], b=self._phrases(example)[1])
        for example in over[8:18]:
            *others, label = (part.clip.events[0] for part in example.composition.all_parts)
            self.ask("throughout", example.clip, self.names.phrase(label), self.names.one(label, others))
        self._louder([example for example in self.composed if len(example.composition.all_parts) > 1])

    def _louder(self, examples: Sequence[Composed]) -> None:
        found = []
        for example in examples:
            softest, *_, loudest = sorted(example.composition.all_parts, key=lambda part: part.level_db)
            if loudest.level_db - softest.level_db >= _LOUDER_DB:
                found.append((example.clip, loudest.clip.events[0], softest.clip.events[0]))
        for clip, loud, soft in found[:10]:
            a, b = self._rng(clip).sample([self.names.phrase(loud), self.names.phrase(soft)], 2)
            self.ask("louder", clip, self.names.phrase(loud), self.names.one(loud, (soft,)), a=a, b=b)

    def negations(self) -> None:
        """Questions that say "not"."""
        for clip in _spread("is it not", self.all_sounds, 8):
            label = clip.events[0]
            phrase = self.names.phrase(label)
            self.ask("negated", clip, "yes", YES, self.names.one(label, ()), wording="is it not", phrase=phrase)
        for clip in _spread("is it", self.confusable, 8):
            phrase = self._rng(clip).choice(self._confused(clip))
            self.ask("negated", clip, "no", NO, wording="is it not", phrase=phrase)
        for clip in _spread("is not", self.confusable, 8):
            phrase = self._rng(clip).choice(self._confused(clip))
            self.ask("negated", clip, "yes, it is not there", TRUE, wording="not there", phrase=phrase)
        for clip in _spread("is", self.all_sounds, 6):
            label = clip.events[0]
            right = self.names.one(label, ())
            self.ask("negated", clip, "no", FALSE, right, wording="not there", phrase=self.names.phrase(label))
        for clip in _spread("nobody is", self.voiceless, 6):
            self.ask("negated", clip, "yes, nobody speaks", TRUE, wording="nobody speaks")
        for clip in _spread("somebody is", self.spoken, 6, _source):
            self.ask("negated", clip, "no", FALSE, naming("speak\\w*|talk\\w*|says?|voice"), wording="nobody speaks")

    def unanswerable(self) -> None:
        """Questions that the sound cannot answer."""
        kinds = {
            "any": [*self.sounds, *self.notes, *self.spoken, *self.music], "sound": self.sounds, "note": self.notes,
            "speech": self.spoken, "music": self.music,
        }  # fmt: skip
        for topic, asked in self.spec["unanswerable"].items():
            for kind, text in asked:
                clips = kinds[kind] if kind in kinds else [clip for clip in self.sounds if clip.events[0] == kind]
                for clip in _spread(text, clips, 1, _domain):
                    self.questions.append(Question(clip, topic, text, "I can't tell from the sound.", (REFUSAL,)))

    def made(self) -> None:
        """Silence and noise."""
        for name, asked in self.spec["made"].items():
            family = "noise" if "noise" in name else "silence"
            for text, answer, accepted in asked:
                self.questions.append(Question(made_clip(name), family, text, answer, tuple(accepted)))

    def _saying(self, clip: Clip) -> str:
        """The pattern of an answer that says what is said in a clip."""
        word = _word(clip)
        if not word:
            sentence: str = self.spec["sentences"][clip.attributes["transcript"]]
            return sentence
        return rf"(?!.*\bor\b)(?=.*\b(?:{self.spec['heard_as'].get(word, re.escape(word))})\b)"

    def _confused(self, clip: Clip) -> list[str]:
        found: list[str] = self.spec["absent"].get(clip.events[0], [])
        return found

    def _others(self, clip: Clip) -> list[str]:
        """Labels that are certainly not in a clip and share no name with its labels or with each other."""
        label = self.labels[clip.events[0]]
        others = [self.labels[name] for name in sorted({other.events[0] for other in self.sounds})]
        return [
            other.label
            for other in others
            if not (may_hold(label, other) or may_hold(other, label) or self._alike(label.label, other.label))
        ]

    def _alike(self, one: str, other: str) -> bool:
        pairs = ((one, other), (other, one))
        return any(re.search(rf"\b(?:{self.names.of(a)})\b", self.names.phrase(b).lower()) for a, b in pairs)

    def _phrases(self, example: Composed) -> list[str]:
        """The phrases of the parts in order; that of the background last."""
        return [self.names.phrase(part.clip.events[0]) for part in example.composition.all_parts]

    @staticmethod
    def _rng(clip: Clip) -> random.Random:
        return random.Random(f"{SEED} {clip.id}")


def _label(clip: Clip) -> str:
    return clip.events[0]


_source, _domain = attrgetter("source"), attrgetter("domain")


def _gender(clip: Clip) -> str:
    return str(clip.attributes["gender"])


def _language(clip: Clip) -> str:
    return str(clip.attributes["language"])


def _word(clip: Clip) -> str:
    """The only word, or short name, that is said in a clip; empty if more is said."""
    return str(clip.attributes.get("keyword", clip.attributes.get("digit", "")))


def _transcript(clip: Clip) -> str:
    return _word(clip) or str(clip.attributes["transcript"])


def _spread(seed: str, clips: Sequence[Clip], count: int, key: Callable[[Clip], Any] = _label) -> list[Clip]:
    """``count`` clips, taken in turn from the groups of a key; shuffled if there is a seed."""
    drawn = list(clips)
    if seed:
        drawn = sorted(drawn, key=lambda clip: clip.id)
        random.Random(f"{SEED} {seed}").shuffle(drawn)
    groups: defaultdict[Any, list[Clip]] = defaultdict(list)
    for clip in drawn:
        groups[key(clip)].append(clip)
    rounds = zip_longest(*groups.values())
    return list(islice((clip for row in rounds for clip in row if clip is not None), count))
