"""What is said in a recording: Whisper's decoder behind the frozen encoder, with guards against invented text.

A recording is cut at its pauses into chunks of at most ``MAX_CHUNK_S``. A chunk in which the audio tagger detects
speech is encoded and decoded greedily; the others are skipped, since Whisper writes text about any sound. Text that
repeats itself, that is longer than anyone speaks, or of which the decoder itself is unsure is dropped.

    waveform -> chunks at pauses -> speech? -> encoder -> decoder -> guards -> segments

Whisper was trained on windows of 30 s. Here a chunk is followed by silence up to the next of ``WINDOWS_S`` only:
``benchmarks/transcription.py`` measures what that costs and saves.

Shape suffixes: B chunks, S samples, T tokens of one call, P encoder positions of 20 ms, D width, V vocabulary, N rows.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from pengi.audio.windows import at_pauses
from pengi.decoding import DecodeOptions, Hypothesis, generate
from pengi.encoders.whisper import SAMPLE_RATE, WhisperEncoder
from pengi.encoders.yamnet import YamnetTagger
from pengi.results import Transcript, TranscriptSegment
