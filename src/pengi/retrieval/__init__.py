"""An index of recordings that can be searched by words, by meaning and by sound."""

from __future__ import annotations

from pengi.retrieval.collection import SEARCH_MODES, Collection, Hit
from pengi.retrieval.updating import Changes

__all__ = ["SEARCH_MODES", "Changes", "Collection", "Hit"]
