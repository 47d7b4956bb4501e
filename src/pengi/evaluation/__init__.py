"""Measuring: clips and a task in, one report out, with its protocol and a confidence interval."""

from __future__ import annotations
