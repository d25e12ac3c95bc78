"""What /metrics says, in the text format of Prometheus. All times are in seconds."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bac.report import Latencies

#: how a request can end
OUTCOMES = ("answered", "malformed", "refused", "busy", "too_fast", "failed", "gone", "slow", "shutting_down")
#: why a connection is not accepted
REJECTIONS = ("unauthorised", "full", "shutting_down")
RELOADS = ("done", "failed")
_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()


class Times:
    """A summary: percentiles of the last 10,000, sum and count of all."""

    def __init__(self, deadline_ms: float | None = None):
        self.latencies, self.seconds = Latencies(deadline_ms), 0.0

    def add(self, seconds: float) -> None:
        self.latencies.add(seconds * 1e3)
        self.seconds += seconds


class Metrics:
    """Counts since the start. They are written by the event loop alone."""

    def __init__(self, deadline_ms: float | None = None):
        self.requests, self.rejected, self.reloads = Counter(), Counter(), Counter()
        self.clients = self.waiting = 0
        self.chunk, self.request = Times(), Times(deadline_ms)

    def text(self, info: Mapping[str, Any]) -> str:
        """Everything, one metric after the other; `info` are labels of the policy that is served."""
        return "\n".join([*self._lines(info), ""])

    def _lines(self, info: Mapping[str, Any]) -> Iterator[str]:
        yield from _metric("bac_info", "gauge", "the policy that is served", {_labels(info): 1})
        yield from _counts("bac_requests_total", "requests, by how they ended", "outcome", OUTCOMES, self.requests)
        yield from _counts(
            "bac_rejected_connections_total", "connections not accepted", "reason", REJECTIONS, self.rejected
        )
        yield from _counts("bac_reloads_total", "reloads of the checkpoint", "outcome", RELOADS, self.reloads)
        yield from _metric("bac_clients", "gauge", "clients that are connected", {"": self.clients})
        yield from _metric(
            "bac_waiting", "gauge", "requests that wait for the policy or are computed", {"": self.waiting}
        )
        yield from _summary("bac_chunk_seconds", "computing an action chunk", self.chunk)
        yield from _summary("bac_request_seconds", "a request from its arrival to its answer", self.request)
        missed = self.request.latencies
        if missed.deadline_ms is not None:
            words = f"requests that took longer than {missed.deadline_ms:g} ms"
            yield from _metric("bac_deadline_missed_total", "counter", words, {"": missed.missed})
        if _STATM.exists():
            resident = int(_STATM.read_text().split()[1]) * _PAGE
            yield from _metric("process_resident_memory_bytes", "gauge", "resident memory", {"": resident})


def _metric(name: str, kind: str, words: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{labels} {value:.9g}" if isinstance(value, float) else f"{name}{labels} {value}"


def _counts(name: str, words: str, label: str, known: tuple[str, ...], counted: Counter[str]) -> Iterator[str]:
    return _metric(name, "counter", words, {_labels({label: item}): counted[item] for item in known})


def _summary(name: str, words: str, times: Times) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} summary"
    for quantile, milliseconds in (times.latencies.percentiles() or {}).items():
        share = {"p50": "0.5", "p95": "0.95", "p99": "0.99", "max": "1"}[quantile]
        yield f'{name}{{quantile="{share}"}} {milliseconds / 1e3:.9g}'
    yield f"{name}_sum {times.seconds:.9g}"
    yield f"{name}_count {times.latencies.timed}"


def _labels(labels: Mapping[str, Any]) -> str:
    escaped = {
        name: str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
