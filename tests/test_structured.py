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
from pengi import DecodeOptions, Pengi
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
    generate = TextGenerator.generate

    def recording(self: TextGenerator, encoded: Any, given: Sequence[str], *rest: Any) -> Any:
        prompts.extend(given)
        return generate(self, encoded, given, *rest)

    monkeypatch.setattr(TextGenerator, "generate", recording)
    return prompts


def test_every_property_is_asked_for_and_follows_the_schema(engine: Pengi, asked: list[str]) -> None:
    answer = engine.ask((tone(1.0), RATE), "what is it?", schema=SCENE, options=SHORT)
    jsonschema.validate(json.loads(answer.text), SCENE)
    assert list(json.loads(answer.text)) == list(SCENE["properties"])
    assert 0 <= answer.confidence <= 1
    assert [prompt.removeprefix("question: ").removesuffix(" answer:") for prompt in asked] == [
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
    (field,) = Form(engine._generator, schema)._fields
    assert field.path == ("next",) * 5


def test_what_is_no_plain_object_is_written_as_one_text(engine: Pengi) -> None:
    schema = {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 2, "maxItems": 2}
    answer = engine.ask((tone(1.0), RATE), "what is it?", schema=schema, options=SHORT)
    jsonschema.validate(json.loads(answer.text), schema)


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
    steered_V = text.steered(log_probs_V, begun)
    assert steered_V[lm.end_id] == -math.inf
    assert int(steered_V.argmax()) == quote
    closed_V = text.steered(log_probs_V, (*begun, quote))
    assert closed_V[lm.end_id] == pytest.approx(-0.1)
    assert (closed_V > -math.inf).sum() == 1
