"""Evaluation: benchmarks, metrics with confidence intervals, and reports."""

from __future__ import annotations
