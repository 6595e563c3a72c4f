"""Traces: a span for each request to `POST /predict`, with the phases of its batch, for an OpenTelemetry collector.

Phases belong to a batch and not to a request, so their spans are made afterwards, from the figures that the batch has
kept. A span goes on where the caller's `traceparent` stands. What is sampled, and where it is sent, is told by the
standard variables (`OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_…`), which OpenTelemetry's own library reads.

Spans wait in a bounded queue for a thread that sends them: a collector that is down, or hangs, costs spans and never an
answer. It refuses to tell values: neither what was asked nor features stand in a span.

It is imported only where an endpoint is configured: the libraries beneath cost 0.2 s and some megabytes.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Message, Receive, Scope, Send

from serving.access import request_id
from serving.batch import Batch
from serving.live_model import LiveModel

CLOSE_SECONDS = 2.0
"""For the spans that still wait when the process ends; those of a collector that does not take them are lost."""

Route = Callable[[Scope, Receive, Send], Awaitable[None]]
Log = Callable[[LiveModel, Batch], None]

_propagator = TraceContextTextMapPropagator()


@dataclass
class _Request:
    """A request that has a span and no answer yet."""

    span: Span
    began: float
    answered: "_Answered | None" = None
    status: int | None = None
    """Of the response; None: there was nobody to send it to."""


@dataclass(frozen=True)
class _Answered:
    """Where the answer to a request stands."""

    live: LiveModel
    batch: Batch
    row: int
    started: float
    """When the batch did, on the clock."""


class Traces:
    """The spans of one gateway worker.

    Parameters
    ----------
    provider : as OpenTelemetry's library makes it
    clock : that which requests are stamped by
    """

    def __init__(self, provider: TracerProvider, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("mlplatform")
        self._clock = clock
        self._epoch = time.time_ns() - round(1e9 * clock())
        # By request id, which a caller may use twice at the same time.
        self._open: dict[str, list[_Request]] = {}

    def around(self, route: Route) -> Route:
        """A route whose requests have spans."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            name, began = request_id(scope["headers"]), self._clock()
            span = self._tracer.start_span(
                "POST /predict",
                context=_callers(scope["headers"]),
                kind=SpanKind.SERVER,
                attributes={"http.request.method": "POST", "http.route": "/predict", "mlplatform.request_id": name},
                start_time=self._instant(began),
            )
            if not span.is_recording():  # not sampled
                await route(scope, receive, send)
                return
            request = _Request(span, began)

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.status = message["status"]
                await send(message)

            self._open.setdefault(name, []).append(request)
            try:
                # Its batch is known by its id, so that the route must not make up another one.
                await route({**scope, "headers": [(b"x-request-id", name.encode()), *scope["headers"]]}, receive, sent)
            finally:
                self._open[name].remove(request)
                if not self._open[name]:
                    del self._open[name]
                self._finish(request)

        return traced

    def noting(self, log: Log) -> Log:
        """A log that also notes which batch has answered which request."""

        def logged(live: LiveModel, batch: Batch) -> None:
            log(live, batch)
            if not self._open or batch.asks.route[0].arm == "shadow":
                return
            started = batch.queue + min(batch.asks.received)
            for row, (name, received) in enumerate(zip(batch.asks.request_id, batch.asks.received, strict=True)):
                # Nothing awaits between the beginning of a span and the stamp of its request: the last to have begun.
                begun = [each for each in self._open.get(name, ()) if each.began <= received]
                if begun:
                    begun[-1].answered = _Answered(live, batch, row, started)

        return logged

    def close(self) -> None:
        """Send what waits, within `CLOSE_SECONDS`."""
        # Its own limit is half a minute, in which the process would answer nobody and not end.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _finish(self, request: _Request) -> None:
        span, answered = request.span, request.answered
        if answered is not None:
            self._tell(span, answered)
        if request.status is not None:
            span.set_attribute("http.response.status_code", request.status)
            if request.status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end(self._instant(self._clock()))

    def _tell(self, span: Span, answered: _Answered) -> None:
        batch, manifest = answered.batch, answered.live.predictor.bundle.manifest
        source = batch.answers.source[answered.row]
        span.set_attributes(
            {
                "mlplatform.model": manifest.model,
                "mlplatform.model_version": manifest.model_version,
                "mlplatform.manifest": answered.live.predictor.bundle.digest,
                "mlplatform.source": source,
                "mlplatform.degraded": source != "model" or not batch.complete,
                "mlplatform.batch_rows": len(batch.asks),
            }
        )
        within = set_span_in_context(span, Context())
        for name, start, end in _phases(answered):
            phase = self._tracer.start_span(name, context=within, start_time=self._instant(start))
            phase.end(self._instant(end))

    def _instant(self, on_clock: float) -> int:
        """Nanoseconds since the epoch."""
        return self._epoch + round(1e9 * on_clock)


def open_traces() -> Traces:
    """Traces as the environment says. The service is called `mlplatform` unless `OTEL_SERVICE_NAME` says otherwise."""
    named = Resource.create({SERVICE_NAME: "mlplatform"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


def _callers(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """What the caller says of the span that it asks from (W3C Trace Context)."""
    told = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _propagated}
    return _propagator.extract(told, Context())


_propagated = frozenset(name.encode() for name in _propagator.fields)


def _phases(answered: _Answered) -> Iterator[tuple[str, float, float]]:
    """Name, start and end of the phases that there were. Of the hop only the sum is known: it lies before the score."""
    batch = answered.batch
    queue = answered.started - batch.asks.received[answered.row]
    start = answered.started - queue
    for name, took in (("queue", queue), ("features", batch.computing), ("hop", batch.hop), ("score", batch.scoring)):
        if took > 0:
            yield name, start, start + took
        start += took
