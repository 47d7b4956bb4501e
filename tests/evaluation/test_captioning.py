"""Our caption metrics are pycocoevalcap's own, and what cannot run says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from pengi.evaluation import captioning
from pengi.evaluation.captioning import PLAIN, PTB, caption_scores, plain_tokens

TEXTS = ["A dog barks, twice.", "rain falls on a tin roof", "somebody is talking", "an engine", "a dog barks"]
REFERENCES = [
    ["A dog is barking.", "dogs bark twice", "a dog barks two times"],
    ["Rain is falling on a roof.", "heavy rain on a tin roof", "it rains"],
    ["A man talks", "a man is talking in a room", "somebody speaks"],
    ["wind blows", "a strong wind", "the wind howls"],
    ["An engine starts and a dog barks.", "a dog barks near an engine", "barking"],
]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not here")


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning.shutil, "which", lambda program: None)


def packages_own(tokens: Callable[[dict[str, list[str]]], dict[str, list[str]]]) -> dict[str, float]:
    found = tokens({str(index): [text] for index, text in enumerate(TEXTS)})
    wanted = tokens({str(index): texts for index, texts in enumerate(REFERENCES)})
    bleu, _ = Bleu(4).compute_score(wanted, found, verbose=0)
    own = {f"bleu_{n}": value for n, value in enumerate(bleu, start=1)}
    own["rouge_l"], _ = Rouge().compute_score(wanted, found)
    own["cider_d"], _ = Cider().compute_score(wanted, found)
    return own


@pytest.mark.usefixtures("no_java")
def test_without_java_the_numbers_are_the_packages_on_plain_tokens() -> None:
    scores, tokens = caption_scores(TEXTS, REFERENCES)
    assert tokens == PLAIN
    for name, value in packages_own(plain_tokens).items():
        assert scores[name].value == pytest.approx(value, abs=1e-6)
    for name in ("meteor", "spice"):
        assert (scores[name].value, scores[name].not_run) == (None, "needs Java")
    assert scores["spider"].not_run == "is the mean of CIDEr-D and SPICE, and SPICE needs Java"


@needs_java
def test_with_java_the_numbers_are_the_packages_on_treebank_tokens() -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    scores, tokens = caption_scores(TEXTS, REFERENCES)
    assert tokens == PTB
    for name, value in packages_own(captioning.ptb_tokens).items():
        assert scores[name].value == pytest.approx(value, abs=1e-6)
    found = captioning.ptb_tokens({str(index): [text] for index, text in enumerate(TEXTS)})
    wanted = captioning.ptb_tokens({str(index): texts for index, texts in enumerate(REFERENCES)})
    assert found["0"] == ["a dog barks twice"]
    meteor, each = Meteor().compute_score(wanted, found)
    assert scores["meteor"].value == pytest.approx(meteor, abs=1e-6)
    assert scores["meteor"].per_item == pytest.approx(each)
    spice = scores["spice"]
    assert spice.value is not None or "stanford-corenlp" in str(spice.not_run)


@pytest.mark.usefixtures("no_java")
def test_items_keep_their_order() -> None:
    scores, _ = caption_scores(TEXTS, REFERENCES)
    assert scores["rouge_l"].per_item[3] == 0.0  # "an engine" shares nothing with its references
    assert np.argmax(scores["cider_d"].per_item) in (0, 1, 4)
    assert len(scores["similarity"].per_item) == len(TEXTS)


def test_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning, "_package_folder", lambda: None)
    scores, _ = caption_scores(TEXTS, REFERENCES)
    assert scores["cider_d"].not_run == (
        "pycocoevalcap is not installed; in the cloned folder of pengi, run: pip install -c constraints.txt '.[eval]'"
    )
    assert scores["similarity"].value is not None
