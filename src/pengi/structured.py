"""Answers as JSON that follows a schema.

A small language model that was not trained on JSON chooses badly among ``true`` and ``false`` in the middle of an
object. So an object is filled like a form: each property is a question, in words that the model knows, or a choice
among labels. A value that is not an object, or that has rules beyond its properties, is generated as one text under a
grammar that enforces the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import torch

from pengi.decoding import Constraint, DecodeOptions, LabelTrie
from pengi.encoding import Encoded
from pengi.errors import InputError
from pengi.generation import Written, probability_of
from pengi.labelling import MIN_PRESENCE, LabelChooser
from pengi.templates import CANT_TELL, NO, NOTHING_CLEAR, NOTHING_SAID, NUMBERS, YES, is_there

MAX_FIELDS = 50
MAX_DEPTH = 5
"""Maximum depth of nested objects; deeper ones are generated as one text."""
MAX_NUMBER = 1_000_000
_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$defs", "definitions"}
_OF_FORMS = _ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_NULL = {"type": "null"}
_NUMBERS = {"none": 0, "nothing": 0, "nobody": 0, "no": 0} | {word: value for value, word in enumerate(NUMBERS)}
_NO_PARTS = {"none of these", "neither"} | {word for word, value in _NUMBERS.items() if value == 0}
_NO_PARTS |= {answer.casefold().rstrip(".") for answer in (CANT_TELL, NOTHING_SAID, NOTHING_CLEAR)}
"""Answers that mean an empty list."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|[a-z]+")

Value = tuple[Any, float]
"""A value, and its probability."""
Reader = Callable[[Sequence[Encoded], Sequence[str], DecodeOptions], Coroutine[Any, Any, list[Value]]]
"""Returns a value for each recording, given a prompt for each."""


@dataclass(frozen=True)
class Field:
    """One value of a form.

    Attributes:
        path: names of the properties that lead to the value; empty for the whole JSON.
        question: the question for this value; None if it is the question that is asked about the recording.
        read: returns the values.
    """

    path: tuple[str, ...]
    question: str | None
    read: Reader


class Form:
    """A JSON schema as questions.

    The question about a property is its ``description``. Without one it is "is there <name>?" for a boolean and "what
    is the <name>?" for anything else. If a form has a single property, it gets the question that is asked about the
    recording.

    - For a boolean the model chooses "yes" or "no". If it has no description and its name is that of a tag, the tag
      decides instead; "yes" and "no" are never tags here.
    - A string of an ``enum`` is chosen as by :class:`pengi.calls.Classify`, by tags if the strings name tags. A list of
      such strings has all whose independent probability is high enough. If "yes" or "no" is among the strings, the
      question decides.
    - A string without rules is the answer, a list of strings the parts of the answer (none if nothing is there), and a
      number the first number in the answer that follows the rules.
    - Everything else, and a number if the answer has none, is generated under a grammar.

    Every property gets a value, even if it is not required.

    Args:
        chooser: chooses among labels; its generator writes the other values.
        schema: a JSON schema, as JSON text or as a dictionary.

    Raises:
        InputError: if it is not a JSON schema, cannot be followed, or has too many properties.
    """

    def __init__(self, chooser: LabelChooser, schema: str | Mapping[str, Any]) -> None:
        self._chooser, self._generator = chooser, chooser.generator
        text = schema if isinstance(schema, str) else json.dumps(schema)
        self._generator.json_schemas.constraint(text)  # raises the errors of the schema
        self._root: dict[str, Any] = json.loads(text)
        parts = list(self._parts((), self._root))
        if len(parts) > MAX_FIELDS:
            raise InputError(f"the JSON schema has {len(parts)} properties; at most {MAX_FIELDS} are filled")
        self._fields = [self._field(path, part, is_only=len(parts) == 1) for path, part in parts]

    async def fill(self, encoded: Sequence[Encoded], questions: Sequence[str], options: DecodeOptions) -> list[Written]:
        """JSON about each recording; its probability is that of all values together.

        Args:
            encoded: the recordings.
            questions: one for each.
            options: how to search for each value.
        """
        forms: list[dict[str, Any]] = [{} for _ in encoded]
        probabilities = [1.0] * len(encoded)
        for field in self._fields:
            asked = questions if field.question is None else [field.question] * len(encoded)
            prompts = [self._generator.prompting.question(question) for question in asked]
            for index, (value, probability) in enumerate(await field.read(encoded, prompts, options)):
                _put(forms[index], ("", *field.path), value)
                probabilities[index] *= probability
        texts = [json.dumps(form[""], ensure_ascii=False) for form in forms]
        return [Written(*pair) for pair in zip(texts, probabilities, strict=True)]

    def _parts(self, path: tuple[str, ...], schema: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
        """Path and schema of every value, in order."""
        schema = self._resolved(schema)
        if _is_form(schema) and len(path) < MAX_DEPTH:
            for name, property in schema["properties"].items():
                yield from self._parts((*path, name), property)
        else:
            yield path, schema

    def _field(self, path: tuple[str, ...], schema: Mapping[str, Any], *, is_only: bool) -> Field:
        name = " ".join(path).replace("_", " ")
        question: str | None = schema.get("description")
        if schema.get("type") != "boolean":
            return Field(path, question or (None if is_only else f"what is the {name}?"), self._reader(schema))
        noun = _noun(name)
        if not question and noun.casefold() not in (YES, NO) and not self._chooser.needs_likelihood([noun]):
            return Field(path, is_there(noun), partial(self._is_there, noun))
        return Field(path, question or (None if is_only else is_there(noun)), self._yes_or_no)

    def _reader(self, schema: Mapping[str, Any]) -> Reader:
        """The reader for the values of a schema that is neither a form nor a boolean."""
        rules = schema.keys() - _ANNOTATIONS - {"type"}
        if choices := _choices(schema):
            return partial(self._one_of, choices)
        if schema.get("type") == "string" and not rules:
            return self._text
        if schema.get("type") == "array" and rules == {"items"}:
            items = self._resolved(schema["items"])
            if choices := _choices(items):
                return partial(self._some_of, choices)
            if items.get("type") == "string" and not items.keys() - _ANNOTATIONS - {"type"}:
                return self._list
        is_number = schema.get("type") in ("integer", "number") and not rules - {"minimum", "maximum"}
        # Without bounds the model may write digits without end.
        bounds = {"minimum": -MAX_NUMBER, "maximum": MAX_NUMBER} if is_number and not rules else {}
        shared = {name: self._root[name] for name in ("$defs", "definitions") if name in self._root}
        constraint = self._generator.json_schemas.constraint(json.dumps({**shared, **bounds, **schema}))
        if is_number:
            return partial(self._number, schema, constraint)
        return partial(self._json, constraint)

    async def _written(
        self, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[Written]:
        found = await self._generator.generate(encoded, prompts, options)
        return [Written(self._generator.text(best), probability_of(best)) for best, *_ in found]

    async def _text(self, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions) -> list[Value]:
        return [astuple(written) for written in await self._written(encoded, prompts, options)]

    async def _list(self, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions) -> list[Value]:
        return [(_parts_of(each.text), each.probability) for each in await self._written(encoded, prompts, options)]

    async def _number(
        self, schema: Mapping[str, Any], constraint: Constraint, encoded: Sequence[Encoded], prompts: Sequence[str],
        options: DecodeOptions,
    ) -> list[Value]:  # fmt: skip
        found = []
        texts = await self._written(encoded, prompts, options)
        for recording, prompt, written in zip(encoded, prompts, texts, strict=True):
            number = _number_in(written.text, schema)
            if number is None:
                found += await self._json(constraint, [recording], [prompt], options)
            else:
                found.append((number, written.probability))
        return found

    async def _json(
        self, constraint: Constraint, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[Value]:
        """JSON that is generated under a grammar.

        Raises:
            InputError: if it is cut off.
        """
        found = await self._generator.generate(encoded, prompts, options, constraint)
        try:
            return [(json.loads(self._generator.text(best)), probability_of(best)) for best, *_ in found]
        except ValueError as error:
            raise InputError(
                "the answer is longer than max_tokens, so its JSON is incomplete; increase max_tokens"
            ) from error

    async def _yes_or_no(
        self, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[Value]:
        chosen = await self._answered((YES, NO), encoded, prompts, options)
        return [(label == YES, probability) for label, probability in chosen]

    async def _is_there(
        self, label: str, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[Value]:
        probabilities = self._chooser.presence(encoded, [label])[:, 0].tolist()
        return [(value >= MIN_PRESENCE, max(value, 1 - value)) for value in probabilities]

    async def _one_of(
        self, choices: Sequence[str], encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[Value]:
        # As labels, "yes" and "no" would be the spoken words.
        if {choice.casefold() for choice in choices} & {YES, NO}:
            return await self._answered(choices, encoded, prompts, options)
        found: list[Value] = []
        for recording, prompt in zip(encoded, prompts, strict=True):
            if recording.is_silent:  # it has no tags
                found += await self._answered(choices, [recording], [prompt], options)
            else:
                (chosen,) = await self._chooser.choose("likelihood", [recording], list(choices), prompt)
                found.append((chosen.label, chosen.scores[0].probability))
        return found

    async def _answered(
        self, choices: Sequence[str], encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[tuple[str, float]]:
        """The choice that the language model writes, with its probability, for each recording."""
        model = self._generator.model
        trie = LabelTrie([model.target_ids(choice)[:-1] for choice in choices], model.language_model.end_id)
        found = await self._generator.generate(encoded, prompts, options, trie)
        return [(choices[trie.index(best.tokens)], probability_of(best)) for best, *_ in found]

    async def _some_of(
        self, choices: Sequence[str], encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[Value]:
        found: list[Value] = []
        for presence_L in self._chooser.presence(encoded, choices):
            there = [
                choice for choice, probability in zip(choices, presence_L, strict=True) if probability >= MIN_PRESENCE
            ]
            found.append((there, float(torch.maximum(presence_L, 1 - presence_L).prod())))
        return found

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """A schema with its references resolved, and without the null of a value that may be absent."""
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


def _is_form(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is an object without rules beyond its properties."""
    return schema.get("type") == "object" and bool(schema.get("properties")) and schema.keys() <= _OF_FORMS


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The strings of an ``enum``, each once; empty for any other schema."""
    given = schema.get("enum") or []
    return tuple(dict.fromkeys(given)) if all(isinstance(choice, str) and choice.strip() for choice in given) else ()


def _noun(name: str) -> str:
    """The noun in the name of a boolean: "speech" for "is speech" and "has speech"."""
    return re.sub(r"^(is|has|contains) (?=.)", "", name)


def _parts_of(text: str) -> list[str]:
    """The items of an answer that is a list, each once; none if the answer is that nothing is there or clear."""
    text = text.strip().rstrip(".")
    if text.casefold() in _NO_PARTS:
        return []
    parts = re.split(r",\s*(?:and\s+)?|;\s*|\s+and\s+", text)
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _number_in(text: str, schema: Mapping[str, Any]) -> float | None:
    """The first number of a text that follows a schema; None if there is none."""
    is_whole = schema["type"] == "integer"
    for word in _NUMBER.findall(text.casefold()):
        number = _NUMBERS.get(word, None if word[-1].isalpha() else float(word))
        if number is None or (is_whole and number != int(number)):
            continue
        if schema.get("minimum", number) <= number <= schema.get("maximum", number):
            return int(number) if is_whole or number == int(number) else number
    return None


def _put(form: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value inside nested objects; missing objects are made."""
    for name in path[:-1]:
        form = form.setdefault(name, {})
    form[path[-1]] = value
