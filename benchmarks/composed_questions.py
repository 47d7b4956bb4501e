"""Questions about recordings that were composed of held-out clips, whose answers are true by construction.

    pengi data compose --manifest ../shared/data/manifest.jsonl --split val --count 300 --out runs/composed-val
    python benchmarks/composed_questions.py --manifest runs/composed-val/manifest.jsonl --out results/composed.json

Of every recording one yes-or-no question and one other question are asked, drawn by a seed, and asked once more about
silence: what the wording of a question alone gives away. An answer counts if it is the right one word for word, case,
articles and the full stop aside; of yes-or-no questions the first word counts.
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


def drawn(clips: list[Clip], seed: int) -> list[tuple[Clip, str, str]]:
    """For every clip a yes-or-no question and another one, as far as it has them."""
    rng = random.Random(seed)
    chosen = []
    for clip in clips:
        by_form: dict[bool, list[tuple[str, str]]] = defaultdict(list)
        for asked in clip.qa:
            by_form[asked.answer in ("yes", "no")].append((asked.question, asked.answer))
        chosen += [(clip, *rng.choice(by_form[form])) for form in (True, False) if by_form[form]]
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
    kinds = [kind_of(question, answer) for _, question, answer in asked]
    result: dict[str, Any] = {"model": name, "questions": len(asked), "seed": seed, "kinds": {}}
    credit = {}
    for system, blind in (("heard", False), ("blind", True)):
        said = answers(model, asked, manifest.parent, blind=blind)
        credit[system] = np.array(
            [is_right(text, answer) for text, (_, _, answer) in zip(said, asked, strict=True)], float
        )
    for kind in sorted(set(kinds)):
        rows = np.array([found == kind for found in kinds])
        result["kinds"][kind] = {"n": int(rows.sum())}
        for system, right in credit.items():
            groups = [clip.id for (clip, _, _), own in zip(asked, rows, strict=True) if own]
            interval = share_right(right[rows], groups)
            found = (interval.value, interval.low, interval.high)
            result["kinds"][kind][system] = [round(value, 3) for value in found]
    return result


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
