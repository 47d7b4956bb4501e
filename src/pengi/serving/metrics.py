"""The server's metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server, in their own registry, so that one process can have several servers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter("pengi_requests", "Requests answered.", ("endpoint", "status"), registry=registry)
        self.request_seconds = Histogram(
            "pengi_request_seconds", "First byte to answer.", ("endpoint",), buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "pengi_batch_size", "Recordings in one call of the engine.", ("task",), buckets=_ROWS, registry=registry
        )
        self.step_rows = Histogram(
            "pengi_step_rows", "Rows of a step of the language model.", buckets=_ROWS, registry=registry
        )
        self.engine_seconds = Histogram(
            "pengi_engine_seconds", "One call of the engine.", ("task",), buckets=_SECONDS, registry=registry
        )
        self.waited_seconds = Histogram(
            "pengi_waited_seconds", "Decoded to begun.", ("task",), buckets=_SECONDS, registry=registry
        )
        self.audio_seconds = Counter("pengi_audio_seconds", "Audio that was processed.", ("task",), registry=registry)
        self.dropped = Counter("pengi_dropped", "Requests given up before they were answered.", registry=registry)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed when the metrics are read."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
