"""An OpenTelemetry collector on this machine: takes spans over HTTP and keeps them, or hangs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(ThreadingHTTPServer):
    """What it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = threading.Event()
        """Somebody has come."""

        self.takes = threading.Event()
        """Until it is set, who comes waits."""

        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.bytes = b""

    @property
    def url(self) -> str:
        """For `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        collector = self.server
        collector.asked.set()
        collector.takes.wait(60)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            collector.services |= set(named)
            for scope in resource.scope_spans:
                collector.spans += scope.spans
        collector.bytes += body
        self.send_response(200)
        self.end_headers()

    def log_message(self, *told: object) -> None:
        """Say nothing."""


@contextmanager
def collecting(*, hangs: bool = False) -> Iterator[Collector]:
    """A collector that listens."""
    with Collector() as collector:
        if not hangs:
            collector.takes.set()
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            collector.takes.set()
            collector.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, object]:
    """What a span says of itself."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in span.attributes}
