"""Answers that follow a JSON schema: validated by jsonschema and pydantic."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
import torch
from pydantic import BaseModel, Field

from helpers import RATE, tiny_model, tone
from helpers.chat import HUM, RAIN, chat_pengi, joined
from pengi import DecodeOptions, Pengi
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.decoding import Hypothesis
from pengi.errors import InputError
from pengi.generation import TextGenerator
from pengi.grammar import JsonSchemas
from pengi.structured import Form

SHORT = DecodeOptions(beams=1, max_tokens=60)
SCENE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "siren": {"type": "boolean"},
        "setting": {"enum": ["indoors", "outdoors"]},
        "main_sound": {"type": "string"},
        "dogs": {"type": "integer", "minimum": 0, "maximum": 9, "description": "how many dogs bark?"},
        "speaker": {"type": "object", "properties": {"woman": {"type": "boolean"}}},
        "levels": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["siren"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine() -> Pengi:
    """The tiny random model."""
    return Pengi(tiny_model(), "tiny", torch.device("cpu"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the language model gets, as they come."""
    prompts: list[str] = []
    read = TextGenerator.read

    def recording(self: TextGenerator, encoded: Any, given: Sequence[str], *rest: Any) -> Any:
        prompts.extend(given)
        return read(self, encoded, given, *rest)

    monkeypatch.setattr(TextGenerator, "read", recording)
    return prompts


def test_every_property_is_asked_for_and_follows_the_schema(engine: Pengi, asked: list[str]) -> None:
    answer = engine.ask((tone(1.0), RATE), "what is it?", schema=SCENE, options=SHORT)
    jsonschema.validate(json.loads(answer.text), SCENE)
    assert list(json.loads(answer.text)) == list(SCENE["properties"])
    assert 0 <= answer.confidence <= 1
    assert [prompt.removeprefix("question: ").removesuffix(" answer:") for prompt in dict.fromkeys(asked)] == [
        "is there siren?",
        "what is the setting?",
        "what is the main sound?",
        "how many dogs bark?",
        "is there speaker woman?",
        "what is the levels?",
    ]


def test_the_only_property_gets_the_question_itself(engine: Pengi, asked: list[str]) -> None:
    schema = {"type": "object", "properties": {"answer": {"enum": ["a dog", "rain"]}}}
    recordings = [(tone(1.0), RATE), (tone(1.0, 880.0), RATE)]
    answers = engine.ask(recordings, ["what barks?", "what falls?"], schema=schema)
    assert {json.loads(answer.text)["answer"] for answer in answers} <= {"a dog", "rain"}
    assert [prompt.split(": ")[1] for prompt in asked] == ["what barks? answer:", "what falls? answer:"]


def test_a_schema_of_pydantic_gives_its_model(engine: Pengi) -> None:
    class Animal(BaseModel):
        kind: Literal["dog", "cat"]

    class Scene(BaseModel):
        animal: Animal
        is_loud: bool | None = Field(None, description="is it loud?")

    answer = engine.ask((tone(1.0), RATE), "what is it?", schema=json.dumps(Scene.model_json_schema()))
    scene = Scene.model_validate_json(answer.text)
    assert scene.animal.kind in ("dog", "cat")
    assert scene.is_loud in (True, False)


def test_a_schema_that_refers_to_itself_has_an_end(engine: Pengi) -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    (field,) = Form(engine._parts.chooser, schema)._fields
    assert field.path == ("next",) * 5


def test_what_is_no_plain_object_is_written_as_one_text(engine: Pengi) -> None:
    schema = {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 2, "maxItems": 2}
    answer = engine.ask((tone(1.0), RATE), "what is it?", schema=schema, options=SHORT)
    jsonschema.validate(json.loads(answer.text), schema)


def test_what_names_tags_is_decided_by_them() -> None:
    kind = {"enum": ["hum", "rain"]}
    schema = {
        "type": "object",
        "properties": {
            "kind": kind,
            "is_rain": {"type": "boolean"},
            "has_hum": {"type": "boolean"},
            "sounds": {"type": "array", "items": {"enum": ["hum", "whistle", "rain"]}},
        },
    }
    engine = chat_pengi()
    recordings = [joined(RAIN), joined(HUM), joined(np.zeros(16_000, np.float32))]
    rain, hum, silence = (json.loads(each.text) for each in engine.ask(recordings, "what is it?", schema=schema))
    assert rain == {"kind": "rain", "is_rain": True, "has_hum": False, "sounds": ["rain"]}
    assert hum == {"kind": "hum", "is_rain": False, "has_hum": True, "sounds": ["hum"]}
    assert silence == {"kind": silence["kind"], "is_rain": False, "has_hum": False, "sounds": []}
    assert silence["kind"] in ("hum", "rain")


@pytest.mark.parametrize(
    ("name", "rules", "is_asked"),
    [("is_rain", {}, False), ("is_rain", {"description": "is it heavy rain?"}, True), ("loud", {}, True)],
)
def test_the_only_boolean_is_decided_by_the_tag_that_it_names(
    name: str, rules: dict[str, str], is_asked: bool, asked: list[str]
) -> None:
    schema = {"type": "object", "properties": {name: {"type": "boolean", **rules}}}
    answers = chat_pengi().ask([joined(RAIN), joined(HUM)], "what is it?", schema=schema)
    assert bool(asked) == is_asked
    if not is_asked:
        assert [json.loads(answer.text) for answer in answers] == [{name: True}, {name: False}]


def test_a_boolean_named_yes_is_the_answer_and_not_the_spoken_word() -> None:
    engine = chat_pengi()
    engine.model.set_vocabulary(Vocabulary((Tag("yes", "keyword"),)))
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
    assert Form(engine._parts.chooser, schema)._fields[0].question is None


def test_choices_of_yes_and_no_answer_the_question(engine: Pengi, asked: list[str]) -> None:
    schema = {"enum": ["Yes", "no", "unsure"], "description": "is it raining?"}
    assert json.loads(engine.ask((tone(1.0), RATE), "what is it?", schema=schema).text) in schema["enum"]
    assert asked == ["question: is it raining? answer:"]


@pytest.mark.parametrize(
    ("text", "rules", "number"),
    [
        ("moderately loud, about -24 dBFS", {}, -24),
        ("two dogs", {}, 2),
        ("none", {}, 0),
        ("about 2.5 s", {"type": "number"}, 2.5),
        ("about 2.5 s, or 3", {}, 3),
        ("in 12 of 30", {"minimum": 20}, 30),
        ("I can't tell from the sound.", {}, None),
        ("40", {"maximum": 9}, None),
    ],
)
def test_numbers_are_read_out_of_answers(
    engine: Pengi, monkeypatch: pytest.MonkeyPatch, text: str, rules: dict[str, Any], number: float | None
) -> None:
    monkeypatch.setattr(TextGenerator, "text", lambda self, hypothesis: text if not hypothesis.tokens else "7")
    monkeypatch.setattr(TextGenerator, "generate", answers_without_tokens)
    found = json.loads(engine.ask((tone(1.0), RATE), "how many?", schema={"type": "integer", **rules}).text)
    assert found == (7 if number is None else number)


async def answers_without_tokens(
    self: TextGenerator, encoded: Any, prompts: Any, options: Any, constraint: Any = None
) -> list[list[Hypothesis]]:
    """An answer of no tokens where any may be written, and of one where a grammar decides."""
    return [[Hypothesis((1,) if constraint else (), (), True)] for _ in encoded]


def test_a_list_of_strings_holds_the_parts_of_the_answer(engine: Pengi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextGenerator, "text", lambda *_: "a dog barking, rain, and a dog barking.")
    schema = {"type": "object", "properties": {"sounds": {"type": "array", "items": {"type": "string"}}}}
    answer = engine.ask((tone(1.0), RATE), "what is it?", schema=schema)
    assert json.loads(answer.text) == {"sounds": ["a dog barking", "rain"]}


@pytest.mark.parametrize("text", ["I can't tell from the sound.", "Nothing is said.", "None.", "no", "nobody"])
def test_an_answer_that_nothing_is_there_gives_an_empty_list(
    engine: Pengi, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(TextGenerator, "text", lambda *_: text)
    schema = {"type": "object", "properties": {"words": {"type": "array", "items": {"type": "string"}}}}
    assert json.loads(engine.ask((tone(1.0), RATE), "what is said?", schema=schema).text) == {"words": []}


def test_silence_is_answered_in_json_too(engine: Pengi) -> None:
    schema = {"type": "object", "properties": {"siren": {"type": "boolean"}}}
    answer = engine.ask((np.zeros(RATE, np.float32), RATE), "what is it?", schema=schema)
    assert json.loads(answer.text)["siren"] in (True, False)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "sound"}, "cannot be followed"),
        ("nonsense", "cannot be followed"),
        ("[]", "cannot be followed"),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.org/a"}}}, "cannot be followed"),
        ({"type": "object", "properties": {str(n): {"type": "null"} for n in range(51)}}, "51 properties"),
        (json.dumps({"type": "string", "description": "a" * 30_000}), "longer than"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(engine: Pengi, schema: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        engine.ask("never-read.wav", "what is it?", schema=schema)


def test_json_that_is_cut_is_an_error(engine: Pengi) -> None:
    schema = {"type": "array", "items": {"enum": [1234567]}, "minItems": 3}
    with pytest.raises(InputError, match="max_tokens"):
        engine.ask((tone(1.0), RATE), "what is it?", schema=schema, options=DecodeOptions(beams=1, max_tokens=4))


def test_an_explanation_of_a_form_is_refused(engine: Pengi) -> None:
    with pytest.raises(InputError, match="explanation"):
        engine.ask("never-read.wav", "what is it?", schema=SCENE, explain=True)


def test_a_text_that_would_end_inside_a_string_ends_the_string(engine: Pengi) -> None:
    lm = engine.model.language_model
    text = JsonSchemas(lm.tokenizer, lm.end_id).constraint('{"type": "string"}')
    quote, begun = lm.encode('"')[0], tuple(lm.encode('"dog'))
    log_probs_V = torch.full((lm.tokenizer.get_vocab_size(),), -10.0)
    log_probs_V[lm.end_id] = -0.1
    score_V = text.process_scores(log_probs_V, begun)
    assert score_V[lm.end_id] == -math.inf
    assert int(score_V.argmax()) == quote
    closed_V = text.process_scores(log_probs_V, (*begun, quote))
    assert closed_V[lm.end_id] == pytest.approx(-0.1)
    assert (closed_V > -math.inf).sum() == 1
