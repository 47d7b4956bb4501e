"""Evaluation: benchmarks, metrics with confidence intervals, and reports."""
