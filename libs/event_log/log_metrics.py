"""What Prometheus is told about a service's log and read models, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from libs.event_log.projection import ProjectionRunner
from libs.event_log.store import EventStore


class LogMetrics(Collector):
    """`projections` None: a service without read models."""

    def __init__(self, store: EventStore, projections: ProjectionRunner | None) -> None:
        self._store = store
        self._projections = projections
        self._first_head = store.head

    def collect(self) -> Iterator[Metric]:
        # The projections' position comes first: read after the head it could lie beyond it.
        position = 0 if self._projections is None else self._projections.position
        head = self._store.head
        yield GaugeMetricFamily("labferry_log_head_position", "Position of the last event.", head)
        yield CounterMetricFamily(
            "labferry_log_appended_events", "Events recorded since the service started.", head - self._first_head
        )
        damaged = GaugeMetricFamily("labferry_log_damaged", "1 when the log is known to be damaged.")
        damaged.add_metric((), float(self._store.damage is not None))
        yield damaged
        if self._projections is not None:
            yield from self._of_projections(self._projections, head - position)

    def _of_projections(self, projections: ProjectionRunner, lag: int) -> Iterator[Metric]:
        behind = GaugeMetricFamily(
            "labferry_projection_lag_events", "Events that a read model is behind the log.", labels=("projection",)
        )
        stopped = GaugeMetricFamily(
            "labferry_projection_stopped", "1 when a read model can't take its next event.", labels=("projection",)
        )
        for name in projections.names:
            behind.add_metric((name,), lag)
            stopped.add_metric((name,), float(projections.failure is not None))
        yield behind
        yield stopped
