"""Caption metrics by pycocoevalcap, and the similarity of a text to its references by a sentence encoder.

The scores are computed on Penn Treebank tokens, as in the captioning literature. The tokenizer, METEOR and SPICE need
Java. SPICE also needs the CoreNLP models, which pycocoevalcap would download when it is first used. This module
downloads nothing; a metric that cannot run says why.

Shape suffixes: N items, R references, D features.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pengi.errors import how_to_install
from pengi.evaluation.systems import embed_texts

PTB, PLAIN = "Penn Treebank (Java)", "plain (no Java): not comparable with published numbers"
_SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
Captions = dict[str, list[str]]


@dataclass(frozen=True)
class CaptionScore:
    """A metric over all items and for each item; ``not_run`` is the reason if ``value`` is None."""

    value: float | None
    per_item: tuple[float, ...] = ()
    not_run: str | None = None


def caption_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, CaptionScore], str]:
    """BLEU-1 to 4, METEOR, ROUGE-L, CIDEr-D, SPICE, SPIDEr and similarity, and the name of the tokenization.

    SPIDEr is the mean of CIDEr-D and SPICE (Liu et al. 2017). Similarity is the cosine in the space of
    all-MiniLM-L6-v2, averaged over a text's references.
    """
    package = _package_folder()
    scores = {"similarity": similarity(texts, references)}
    if package is None:
        names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "meteor", "spice", "spider")
        reason = f"pycocoevalcap is not installed; {how_to_install('eval')}"
        return scores | {name: CaptionScore(None, not_run=reason) for name in names}, PLAIN
    java = shutil.which("java") is not None
    tokenise = ptb_tokens if java else plain_tokens
    found = tokenise({str(index): [text] for index, text in enumerate(texts)})
    wanted = tokenise({str(index): list(refs) for index, refs in enumerate(references)})
    scores |= _without_java(wanted, found)
    scores["meteor"] = _meteor(wanted, found) if java else CaptionScore(None, not_run="needs Java")
    scores["spice"] = _spice(wanted, found, package, java)
    scores["spider"] = _spider(scores["cider_d"], scores["spice"])
    return scores, PTB if java else PLAIN


def similarity(texts: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScore:
    """Mean cosine of each text with its references."""
    texts_ND = embed_texts(texts)
    per_item = tuple(
        float((embed_texts(list(refs)) @ text_D).mean()) for text_D, refs in zip(texts_ND, references, strict=True)
    )
    return CaptionScore(float(np.mean(per_item)), per_item)


def ptb_tokens(texts: Mapping[str, Sequence[str]]) -> Captions:
    """Penn Treebank tokens without punctuation, lower case, by Stanford's tokenizer."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokens: Captions = PTBTokenizer().tokenize(
        {key: [{"caption": text} for text in many] for key, many in texts.items()}
    )
    return tokens


def plain_tokens(texts: Mapping[str, Sequence[str]]) -> Captions:
    """Words in lower case: similar to Penn Treebank tokens, but not the same."""
    return {key: [" ".join(re.findall(r"[\w']+", text.lower())) for text in many] for key, many in texts.items()}


def _package_folder() -> Path | None:
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _without_java(wanted: Captions, found: Captions) -> dict[str, CaptionScore]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, bleu_each = Bleu(4).compute_score(wanted, found, verbose=0)
    scores = {f"bleu_{n}": _score(value, each) for n, (value, each) in enumerate(zip(bleu, bleu_each, strict=True), 1)}
    return scores | {
        "rouge_l": _score(*Rouge().compute_score(wanted, found)),
        "cider_d": _score(*Cider().compute_score(wanted, found)),
    }


def _meteor(wanted: Captions, found: Captions) -> CaptionScore:
    from pycocoevalcap.meteor.meteor import Meteor

    return _score(*Meteor().compute_score(wanted, found))


def _spice(wanted: Captions, found: Captions, package: Path, java: bool) -> CaptionScore:
    if not java:
        return CaptionScore(None, not_run="needs Java")
    folder = package / "spice" / "lib"
    absent = [name for name in _SPICE_MODELS if not (folder / name).is_file()]
    if absent:
        return CaptionScore(None, not_run=f"needs {' and '.join(absent)} in pycocoevalcap/spice/lib")
    from pycocoevalcap.spice.spice import Spice

    value, each = Spice().compute_score(wanted, found)
    # SPICE returns the items sorted by their ids as strings.
    of_item = dict(zip(sorted(wanted), (item["All"]["f"] for item in each), strict=True))
    return _score(value, [of_item[key] for key in wanted])


def _spider(cider: CaptionScore, spice: CaptionScore) -> CaptionScore:
    if cider.value is None or spice.value is None:
        return CaptionScore(None, not_run=f"is the mean of CIDEr-D and SPICE, and SPICE {spice.not_run}")
    each = [(one + other) / 2 for one, other in zip(cider.per_item, spice.per_item, strict=True)]
    return _score((cider.value + spice.value) / 2, each)


def _score(value: Any, each: Any) -> CaptionScore:
    return CaptionScore(float(value), tuple(float(score) for score in each))
