"""Answers as JSON that follows a schema.

A small language model that was not trained on JSON chooses badly among ``true`` and ``false`` in the middle of an
object. So an object is filled as a form: each property is a question of its own, asked in the words that the model
knows. What is no object, or has rules beyond its properties, is written as one text that a grammar keeps to the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pengi.decoding import Constraint, DecodeOptions, Hypothesis, LabelTrie
from pengi.encoding import Encoded
from pengi.errors import InputError
from pengi.generation import TextGenerator, Written, probability_of

MAX_FIELDS = 50
MAX_DEPTH = 5
"""Of objects in objects; what is deeper is written as one text."""
_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$defs", "definitions"}
_OF_FORMS = _ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_NULL = {"type": "null"}
_YES_NO, _BOOLEANS = ("yes", "no"), (True, False)


@dataclass(frozen=True)
class Field:
    """One value of a form.

    Attributes:
        path: names of the properties that lead to it; none for the whole.
        description: of the property, which is its question; empty if it has none.
        constraint: what may be written; None for any text, which is the value.
        values: the value of each label of a :class:`LabelTrie`; None where what is written is JSON.
    """

    path: tuple[str, ...]
    description: str
    constraint: Constraint | None
    values: tuple[Any, ...] | None = None

    @property
    def question(self) -> str:
        """What is asked where there are several properties."""
        name = " ".join(self.path).replace("_", " ")
        return self.description or (f"is there {name}?" if self.values == _BOOLEANS else f"what is the {name}?")

    def value(self, hypothesis: Hypothesis, text: str) -> Any:
        """What a text that was written means.

        Raises:
            InputError: if it is JSON that was cut.
        """
        if self.constraint is None:
            return text
        if self.values is not None:
            assert isinstance(self.constraint, LabelTrie)
            return self.values[self.constraint.index(hypothesis.tokens)]
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError("the answer is longer than max_tokens, so that its JSON has no end; allow more") from error


class Form:
    """A JSON schema as questions.

    The question about a property is its ``description``. Without one it is "is there <name>?" of a boolean and "what is
    the <name>?" of anything else; the only property of a form gets the question that is asked about the recording. Of a
    boolean the model chooses "yes" or "no", of an ``enum`` of strings one of these; a string without rules is written
    freely. Every property gets a value, also one that is not required.

    Args:
        generator: writes the values.
        schema: as JSON, or its values.

    Raises:
        InputError: if it is no JSON schema, cannot be followed, or has too many properties.
    """

    def __init__(self, generator: TextGenerator, schema: str | Mapping[str, Any]) -> None:
        self._generator = generator
        text = schema if isinstance(schema, str) else json.dumps(schema)
        generator.json_schemas.constraint(text)  # finds mistakes
        self._root: dict[str, Any] = json.loads(text)
        self._fields = list(self._fields_of((), self._root))
        if len(self._fields) > MAX_FIELDS:
            raise InputError(f"the JSON schema has {len(self._fields)} properties; at most {MAX_FIELDS} are filled")

    def fill(self, encoded: Sequence[Encoded], questions: Sequence[str], options: DecodeOptions) -> list[Written]:
        """JSON about each recording; its probability is that of all values together.

        Args:
            encoded: the recordings.
            questions: one for each.
            options: how to search for each value.
        """
        forms: list[dict[str, Any]] = [{} for _ in encoded]
        probabilities = [1.0] * len(encoded)
        for field in self._fields:
            is_only = len(self._fields) == 1 and not field.description
            asked = questions if is_only else [field.question] * len(encoded)
            prompts = [self._generator.prompting.question(question) for question in asked]
            found = self._generator.generate(encoded, prompts, options, field.constraint)
            for index, (best, *_) in enumerate(found):
                _put(forms[index], ("", *field.path), field.value(best, self._generator.text(best)))
                probabilities[index] *= probability_of(best)
        texts = [json.dumps(form[""], ensure_ascii=False) for form in forms]
        return [Written(*pair) for pair in zip(texts, probabilities, strict=True)]

    def _fields_of(self, path: tuple[str, ...], schema: Any) -> Iterator[Field]:
        """The values of a schema, in order."""
        schema = self._resolved(schema)
        if _is_form(schema) and len(path) < MAX_DEPTH:
            for name, property in schema["properties"].items():
                yield from self._fields_of((*path, name), property)
            return
        description = schema.get("description") or ""
        if schema.get("type") == "boolean":
            yield Field(path, description, self._labels(_YES_NO), _BOOLEANS)
        elif choices := _choices(schema):
            yield Field(path, description, self._labels(choices), choices)
        elif schema.get("type") == "string" and schema.keys() <= _ANNOTATIONS | {"type"}:
            yield Field(path, description, None)
        else:
            shared = {name: self._root[name] for name in ("$defs", "definitions") if name in self._root}
            yield Field(path, description, self._generator.json_schemas.constraint(json.dumps({**shared, **schema})))

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """A schema behind its references, and without the null of a value that may be absent."""
        found: dict[str, Any] = schema if isinstance(schema, dict) else {}
        for _ in range(MAX_FIELDS):  # references may go round in circles
            reference, choices = found.get("$ref"), found.get("anyOf")
            if isinstance(reference, str) and reference.startswith("#/"):
                target = self._pointed(reference)
            elif isinstance(choices, list) and len(present := [part for part in choices if part != _NULL]) == 1:
                target = present[0]
            else:
                break
            kept = {name: value for name, value in found.items() if name in ("description", "title")}
            found = {**(target if isinstance(target, dict) else {}), **kept}
        return found

    def _pointed(self, reference: str) -> Any:
        """The part of the schema that a reference such as "#/$defs/Animal" names."""
        target: Any = self._root
        try:
            for name in reference[2:].split("/"):
                target = target[name.replace("~1", "/").replace("~0", "~")]
        except (KeyError, TypeError) as error:
            raise InputError(f"the JSON schema cannot be followed: it has no '{reference[:80]}'") from error
        return target

    def _labels(self, labels: Sequence[str]) -> LabelTrie:
        model = self._generator.model
        return LabelTrie([model.target_ids(label)[:-1] for label in labels], model.language_model.end_id)


def _is_form(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is an object without rules beyond its properties."""
    return schema.get("type") == "object" and bool(schema.get("properties")) and schema.keys() <= _OF_FORMS


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The strings of an ``enum``, each once; none of anything else."""
    given = schema.get("enum") or []
    return tuple(dict.fromkeys(given)) if all(isinstance(choice, str) and choice.strip() for choice in given) else ()


def _put(form: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value inside nested objects, which are made where there are none."""
    for name in path[:-1]:
        form = form.setdefault(name, {})
    form[path[-1]] = value
