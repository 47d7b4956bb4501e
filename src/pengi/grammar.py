"""Texts that follow a JSON schema: llguidance computes which tokens may come next.

Even a language model that was not trained on JSON writes valid JSON, since nothing else is allowed. Names of properties
and punctuation are forced, and the model chooses the values. If it would end the text inside a string, the string ends.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from pengi.decoding import Constraint
from pengi.errors import InputError, how_to_install

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MAX_SCHEMA = 20_000  # characters
_SPACING: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_SCHEMAS_KEPT = 8


class JsonSchemas:
    """Compiles JSON schemas for a tokenizer.

    Args:
        tokenizer: of the language model.
        end_id: the token that ends a text.

    Raises:
        InputError: if llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, end_id: int) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise InputError(f"a JSON schema needs llguidance; {how_to_install('serve')}") from error
        self._matchers = llguidance.LLMatcher
        self._tokens = llguidance.LLTokenizer(tokenizer.to_str(), eos_token=end_id)
        self._end_id, self._quote_id = end_id, tokenizer.token_to_id('"')
        self.constraint = lru_cache(_SCHEMAS_KEPT)(self._constraint)

    def _constraint(self, schema: str) -> JsonText:
        """The texts that follow a schema, given as JSON.

        Raises:
            InputError: if it is not a JSON schema, or uses a keyword that llguidance does not support.
        """
        if len(schema) > MAX_SCHEMA:
            raise InputError(f"the JSON schema is longer than {MAX_SCHEMA} characters")
        try:
            grammar = self._matchers.grammar_from_json_schema(schema, defaults=_SPACING)
            problem = self._matchers.validate_grammar(grammar, self._tokens)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise InputError(f"the JSON schema cannot be followed: {' '.join(problem.split())[:200]}")
        return JsonText(self._matchers(self._tokens, grammar), self._tokens.vocab_size, self._end_id, self._quote_id)


class JsonText(Constraint):
    """The texts that follow one schema; made by :class:`JsonSchemas`.

    Args:
        matcher: of llguidance, before the first token.
        vocabulary: number of tokens.
        end_id: the token that ends a text.
        quote_id: the token that ends a string, if there is one.
    """

    def __init__(self, matcher: Any, vocabulary: int, end_id: int, quote_id: int | None) -> None:
        self.end_id, self._quote_id, self._vocabulary = end_id, quote_id, vocabulary
        self._start = matcher
        self._reached: dict[tuple[int, ...], Any] = {}

    def allowed(self, tokens: tuple[int, ...]) -> NDArray[np.int64]:
        """See :class:`pengi.decoding.Constraint`."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(1, self._vocabulary)
        fill_next_token_bitmask(self._matcher(tokens), bits)
        return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocabulary])

    def process_scores(self, log_probs_V: Tensor, tokens: tuple[int, ...]) -> Tensor:
        """See :class:`pengi.decoding.Constraint`. Where a string may end and the text may not, the probability that the
        text ends counts for the end of the string."""
        score_V = super().process_scores(log_probs_V, tokens)
        quote_id = self._quote_id
        if quote_id is not None and score_V[self.end_id] == -torch.inf and score_V[quote_id] > -torch.inf:
            score_V[quote_id] = torch.logaddexp(log_probs_V[quote_id], log_probs_V[self.end_id])
        return score_V

    def _matcher(self, tokens: tuple[int, ...]) -> Any:
        """The matcher after the first tokens of a text. Those of the last two lengths are cached, since a search
        continues from them."""
        if not tokens:
            return self._start
        if tokens not in self._reached:
            matcher = self._matcher(tokens[:-1]).deep_copy()
            matcher.consume_token(tokens[-1])
            self._reached = {key: kept for key, kept in self._reached.items() if len(tokens) - len(key) in (0, 1)}
            self._reached[tokens] = matcher
        return self._reached[tokens]
