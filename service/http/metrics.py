"""Prometheus metrics of one API process: requests as they end, the queue as it is at the scrape.

Each app has a registry of its own, so two in one process (tests) do not mix.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.errors import MeshpressError
from service.jobs.queue import JobQueue
from service.jobs.states import JobState

log = structlog.get_logger("api")

LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class RequestMetrics:
    """Counts and times requests by method, route template and status."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._seconds = Histogram(
            "meshpress_http_request_seconds",
            "Time from a request's headers to the end of its answer.",
            labels,
            registry=self.registry,
            buckets=LATENCY_BUCKETS,
        )
        self._bytes_in = Counter(
            "meshpress_http_request_body_bytes",
            "Bytes of request bodies that arrived.",
            ("route",),
            registry=self.registry,
        )
        self._bytes_out = Counter(
            "meshpress_http_response_body_bytes",
            "Bytes of response bodies that were sent.",
            ("route",),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def observe(
        self,
        method: str,
        route: str,
        status: int,
        *,
        seconds: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        self._seconds.labels(method, route, str(status)).observe(seconds)
        self._bytes_in.labels(route).inc(bytes_in)
        self._bytes_out.labels(route).inc(bytes_out)


class QueueCollector(Collector):
    """Jobs by state, queue depth and workers by state, read when scraped. Blocks on the queue."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def describe(self) -> list[Metric]:
        return []  # registering must not read the queue

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("meshpress_queue_up", "1 when the job database answers.")
        jobs = GaugeMetricFamily("meshpress_jobs", "Jobs by state.", labels=["state"])
        depth = GaugeMetricFamily("meshpress_queue_depth", "Jobs waiting for a worker.")
        workers = GaugeMetricFamily(
            "meshpress_workers", "Workers by device and state.", labels=["device", "state"]
        )
        try:
            counts = self._queue.counts()
            alive = self._queue.workers()
        except MeshpressError as error:
            log.warning("metrics_without_queue", reason=error.message)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        for state, count in counts.items():
            jobs.add_metric([state], count)
        depth.add_metric([], counts[JobState.QUEUED])
        tally: dict[tuple[str, str], int] = {}
        for worker in alive:
            tally[worker.device, worker.state] = tally.get((worker.device, worker.state), 0) + 1
        for labels, count in sorted(tally.items()):
            workers.add_metric(labels, count)
        yield from (up, jobs, depth, workers)
