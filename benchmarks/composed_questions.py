"""Questions about recordings that were composed of held-out clips, whose answers are true by construction.

    pengi data compose --manifest ../shared/data/manifest.jsonl --split val --count 300 --out runs/composed-val
    python benchmarks/composed_questions.py --manifest runs/composed-val/manifest.jsonl --out results/composed.json

Of every recording one yes-or-no question and one other question are asked, drawn by a seed, what they ask for before
how (there are many questions about order), and asked once more about silence: what the wording of a question alone
gives away. An answer counts if it is the right one word for word, case, articles and the full stop aside; of
yes-or-no questions the first word counts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from pengi import Pengi, templates
from pengi.data.manifest import Clip, read_manifest
from pengi.decoding import DecodeOptions
from pengi.evaluation.statistics import share_right

CLIPS_PER_CALL = 16
GREEDY = DecodeOptions(beams=1, max_tokens=20)
SILENCE = (np.zeros(80_000, dtype=np.float32), 16_000)
YES_NO_KINDS = {
    "yes or no: exactly so many": r"exactly",
    "yes or no: one before the other": r" before |first and then| after ",
    "yes or no: together": r"same time|together",
    "yes or no: louder": r"louder",
}
KINDS = {
    "count": r"how many",
    "loudness": r"loud|quieter|softer",
    "order": r"first|earlier|before|after|follow|comes right|later|last|order",
}


def kind_of(question: str, answer: str) -> str:
    """What a question asks for."""
    if answer in ("yes", "no"):
        return "yes or no"
    return next((kind for kind, words in KINDS.items() if re.search(words, question)), "which sound")


def form_of(question: str, answer: str) -> str:
    """What a question asks for, yes-or-no questions and those that name what to choose from told apart."""
    kind = kind_of(question, answer)
    if kind == "yes or no":
        found = (name for name, words in YES_NO_KINDS.items() if re.search(words, question))
        return next(found, "yes or no: there")
    return f"{kind}: named" if kind in ("order", "which sound") and " or " in question else kind


def drawn(clips: list[Clip], seed: int) -> list[tuple[Clip, str, str]]:
    """For every clip a yes-or-no question and another one, as far as it has them."""
    rng = random.Random(seed)
    chosen = []
    for clip in clips:
        for yes_no in (True, False):
            by_form: dict[str, list[tuple[str, str]]] = defaultdict(list)
            for asked in clip.qa:
                if (asked.answer in ("yes", "no")) == yes_no:
                    by_form[form_of(asked.question, asked.answer)].append((asked.question, asked.answer))
            if by_form:
                chosen.append((clip, *rng.choice(by_form[rng.choice(sorted(by_form))])))
    return chosen


def normal(text: str) -> str:
    """Words in lower case, without articles and punctuation."""
    return " ".join(word for word in re.findall(r"[a-z0-9']+", text.lower()) if word not in ("a", "an", "the"))


def is_right(said: str, answer: str) -> bool:
    """Whether a text is the answer."""
    words = normal(said).split()
    return words[:1] == [answer] if answer in ("yes", "no") else words == normal(answer).split()


def answers(model: Pengi, asked: list[tuple[Clip, str, str]], root: Path, *, blind: bool) -> list[str]:
    """What the model says to each question."""
    said: list[str] = []
    for start in range(0, len(asked), CLIPS_PER_CALL):
        part = asked[start : start + CLIPS_PER_CALL]
        audio = [SILENCE if blind else root / clip.audio for clip, _, _ in part]
        prompts = [templates.question_prompt(question) for _, question, _ in part]
        said += [found.text for found in model.generate(audio, prompts, options=GREEDY)]
    return said


def measure(manifest: Path, name: str, seed: int) -> dict[str, Any]:
    """Share of right answers of each kind of question, with 95 % intervals, heard and blind."""
    model = Pengi.from_pretrained(name)
    asked = drawn(read_manifest(manifest), seed)
    result: dict[str, Any] = {"model": name, "questions": len(asked), "seed": seed}
    credit = {}
    for system, blind in (("heard", False), ("blind", True)):
        said = answers(model, asked, manifest.parent, blind=blind)
        credit[system] = np.array(
            [is_right(text, answer) for text, (_, _, answer) in zip(said, asked, strict=True)], float
        )
    for part, named in (("kinds", kind_of), ("forms", form_of)):
        result[part] = by_kind([named(question, answer) for _, question, answer in asked], asked, credit)
    return result


def by_kind(
    kinds: list[str], asked: list[tuple[Clip, str, str]], credit: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
) -> dict[str, Any]:
    """Share of right answers and its interval, for every kind and system."""
    found: dict[str, Any] = {}
    for kind in sorted(set(kinds)):
        rows = np.array([own == kind for own in kinds])
        groups = [clip.id for (clip, _, _), own in zip(asked, rows, strict=True) if own]
        found[kind] = {"n": int(rows.sum())}
        for system, right in credit.items():
            interval = share_right(right[rows], groups)
            found[kind][system] = [round(value, 3) for value in (interval.value, interval.low, interval.high)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.manifest, options.model, options.seed), indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
