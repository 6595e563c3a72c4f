"""What strangers send: refused in the one form that refusals have, by a worker that lives on and stays as it was.

The document that the service publishes is held against what it does, and what no document foresees is sent by hand.
"""

import io
import json
import random
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection

from mlplatform.domain.column import Column
from mlplatform.errors import InvalidRequest, MalformedBody
from mlplatform.scoring.request import read_request
from mlplatform.scoring.request_decoder import RequestDecoder
from mlplatform_tests.fakes.bento_server import serving
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from serving.api_page import ARROW
from serving.arrow_stream import MAX_MESSAGES, examine
from serving.bulk import MAX_ROWS
from serving.http_protocol import HEADER_BYTES
from serving.json_body import MAX_BYTES, decode_object

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"berth": "north", "length": 250.0, "flag": "NO"}
GOOD = json.dumps(REQUEST).encode()
MEGABYTE = 1_000_000
TOLERANCE = 6 * MEGABYTE
"""By which a worker may be larger after hundreds of rounds: what allocators keep. One body of the large ones kept is
more than that, and so is a kilobyte of each of the small ones."""


@dataclass
class Service:
    """A running service with one gateway worker."""

    client: httpx.Client
    address: tuple[str, int]
    worker: psutil.Process

    def post(self, path: str, body: bytes | Iterable[bytes], kind: str = "application/json") -> httpx.Response:
        """What is answered to a body."""
        return self.client.post(path, content=body, headers={"Content-Type": kind})

    def size(self) -> int:
        """Bytes of memory that the gateway worker has, once it has let go of what it answered last."""
        assert self.post("/predict", GOOD).status_code == 200
        return int(self.worker.memory_info().rss)

    def say(self, said: bytes, *, closes: bool = False) -> bytes:
        """What comes back for some bytes, up to the end of the connection where the service or `closes` ends it."""
        with socket.create_connection(self.address, timeout=20) as connection, suppress(ConnectionError):
            connection.sendall(said)
            if closes:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(65_536)
        return b""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, from the source tree."""
    home = tmp_path_factory.mktemp("home")
    publish(home)
    environment = {
        "PYTHONPATH": str(ROOT),
        "MLPLATFORM_HOME": str(home),
        "MLPLATFORM_BUNDLE": str(bundle_of(home / "bundles", write_package(home / "package")).folder),
        "MLPLATFORM_GATEWAY_WORKERS": "1",
        "MLPLATFORM_CLOCK": "request",
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    before = {child.pid for child in psutil.Process().children()}
    with serving("serving.service:service", folder=home, environment=environment) as server:
        server.wait_until_ready()
        (served,) = [child for child in psutil.Process().children() if child.pid not in before]
        (worker,) = [each for each in served.children(recursive=True) if "serving.gateway_worker" in each.cmdline()]
        host, _, port = server.url.removeprefix("http://").partition(":")
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield Service(client, (host, int(port)), worker)


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The same one for all tests; right afterwards the same worker answers a good request with the model."""
    yield running
    answer = running.client.post("/predict", content=GOOD)
    assert (answer.status_code, answer.json()["source"]) == (200, "model")
    assert running.worker.is_running()


def refused(answer: httpx.Response, *statuses: int) -> bool:
    """Whether an answer is a refusal, in the one form, with one of some statuses."""
    assert answer.status_code in (statuses or range(400, 500)), (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code and told["title"] and told["detail"]
    return True


# What the document says

ASKED = ["/predict", "/predict/batch"]
SHOWN = ["/model", "/metrics", "/livez", "/readyz", "/docs.json", "/"]


def keeps_its_document(service: Service, path: str, mode: schemathesis.GenerationMode, examples: int) -> None:
    """Ask what the document allows, or does not, and hold every answer against it."""
    url = str(service.client.base_url)
    document = schemathesis.openapi.from_url(f"{url}/docs.json")
    operation = document[path]["POST" if path in ASKED else "GET"]
    # In a batch the row alone is refused, so the answer to a wrong one is 200.
    excluded: list[schemathesis.CheckFunction] = [negative_data_rejection] if path == "/predict/batch" else []
    answered = set()

    # The same cases each time: this holds a document against a service, and is no hunt.
    @settings(max_examples=examples, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def held(case: schemathesis.Case[Any]) -> None:
        assume(not rounded_into_range(case.body))
        answer = case.call_and_validate(excluded_checks=excluded)
        answered.add(answer.status_code)
        assert answer.status_code < 500

    held()
    assert (200 in answered) == (mode.is_positive or path == "/predict/batch")


def rounded_into_range(body: object) -> bool:
    """Whether a length is beyond its bounds by less than a Float32 tells; they are compared as the pipeline does."""
    length = body.get("length") if isinstance(body, dict) else None
    near = isinstance(length, float) and (0 < length < 1 or 400 < length < 401)
    return near and bool(1 <= np.float32(length) <= 400)


@pytest.mark.end_to_end
@pytest.mark.parametrize("path", [*ASKED, *SHOWN])
def test_what_the_document_allows_is_answered_as_it_says(service: Service, path: str) -> None:
    """Status, content type and every field of the answer; no request that it allows is refused."""
    keeps_its_document(service, path, schemathesis.GenerationMode.POSITIVE, 50)


@pytest.mark.end_to_end
@pytest.mark.parametrize("path", ASKED)
def test_what_the_document_does_not_allow_is_refused_as_it_says(service: Service, path: str) -> None:
    """No request that it forbids is answered."""
    keeps_its_document(service, path, schemathesis.GenerationMode.NEGATIVE, 60)


# JSON

DEEP = [*range(960, 1000), 2_000, 15_000]
"""Around the depth at which parsers give up, each a little earlier or later than the other, and beyond."""

ODD_OBJECTS = {
    "not a number": b'{"berth": "north", "length": NaN}',
    "infinite": b'{"berth": "north", "length": -Infinity}',
    "beyond a float": b'{"berth": "north", "length": 1e999}',
    "a huge integer": b'{"berth": "north", "length": %s}' % (b"9" * 5_000),
    "a large integer": b'{"berth": "north", "length": %s}' % (b"9" * 4_000),
    "unknown columns": b"{%s}" % b",".join(b'"a%d": 1' % number for number in range(4_000)),
    "a name twice": b'{"berth": "north", "length": 3, "length": 3}',
    "every name twice": b"{%s}" % b",".join(b'"a%d":1' % (number // 2) for number in range(6_000)),
    "an escaped name twice": rb'{"berth": "north", "length": 3, "\u006cength": 3}',
    "no UTF-8": b'{"berth": "\xff", "length": 3}',
    "UTF-16": '{"berth": "north", "length": 3}'.encode("utf-16"),
    "half a character": rb'{"berth": "north", "length": 3, "flag": "\ud800"}',
    "cut off": GOOD[:-1],
    "something after it": GOOD + b"{}",
    "an instant in no year": b'{"berth": "north", "length": 3, "at": "0001-01-01T00:00:00+23:59"}',
    **{f"{depth} deep": b'{"length": %s1%s}' % (b"[" * depth, b"]" * depth) for depth in DEEP},
    **{f"{depth} objects deep": b'{"x":' * depth + b"1" + b"}" * depth for depth in DEEP[:-1]},
}

ODD_LISTS = {
    "an object": GOOD,
    "no rows": b"[]",
    "nothing": b"",
    "blanks": b" " * MEGABYTE,
    "cut off": b"[%s, %s" % (GOOD, GOOD[:-3]),
    "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "one deep row": b"[%s]" % (b'{"x":' * 100_000),
    "too many rows": b"[%s1]" % (b"1," * MAX_ROWS),
    "far too many": b"[%s1]" % (b"1," * 20 * MEGABYTE),
}


@pytest.mark.end_to_end
@pytest.mark.parametrize("body", ODD_OBJECTS.values(), ids=ODD_OBJECTS)
def test_an_odd_object_is_refused(service: Service, body: bytes) -> None:
    """By 400 or 422; where nothing but one field is odd, in a batch too, alone."""
    assert len(body) > MAX_BYTES or refused(service.post("/predict", body), 400, 422)


@pytest.mark.end_to_end
@pytest.mark.parametrize("body", ODD_LISTS.values(), ids=ODD_LISTS)
def test_an_odd_list_is_refused(service: Service, body: bytes) -> None:
    """Before anything is made of its rows."""
    assert refused(service.post("/predict/batch", body), 400)


@pytest.mark.end_to_end
def test_odd_rows_are_refused_alone(service: Service) -> None:
    """Twice named, no objects, too long, too deep, of a hundred thousand names: the rows beside them are answered."""
    names = b"{%s}" % b",".join(b'"a%d":1' % (number // 2) for number in range(100_000))
    padded = GOOD[:-1] + b" " * MAX_BYTES + b"}"
    odd = [
        padded,
        b"1",
        b"null",
        b'{"a": 1, "a": 1}',
        b'{"x": %s}' % (b"[" * 900 + b"]" * 900),
        names,
        GOOD[:-1] + b', "x": 1}',
    ]
    answer = service.post("/predict/batch", b"[%s]" % b",".join([GOOD, *odd, GOOD]))
    assert answer.status_code == 200
    told = answer.json()["answers"]
    assert [sorted(each) == ["errors"] for each in told] == [False, *[True] * len(odd), False]


@pytest.mark.end_to_end
def test_a_field_that_many_rows_break_is_counted_once_for_the_request(service: Service) -> None:
    """What it is held to is the number of requests: one body of bad rows is one client, and no alarm."""

    def counted() -> float:
        sign = 'mlplatform_refused_fields_total{field="berth",rule="missing"} '
        told = service.client.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(sign)) for line in told if line.startswith(sign))

    before, bad = counted(), b'{"length": 250.0, "flag": "NO"}'
    assert service.post("/predict/batch", b"[%s]" % b",".join([bad, GOOD, bad, bad])).status_code == 200
    assert counted() - before == 1


@pytest.mark.end_to_end
@pytest.mark.parametrize("at", ["0145-06-11T06:23:32+20:15", "4507-01-03T02:18:27.7-17:38", "9999-12-31T23:59:59Z"])
def test_a_time_of_its_own_may_be_of_any_year(service: Service, at: str) -> None:
    """Also of one that the log's nanoseconds do not reach: it is answered and logged all the same."""
    body = GOOD[:-1] + b', "at": "%s"}' % at.encode()
    assert service.post("/predict", body).status_code == 200
    assert service.post("/predict/batch", b"[%s]" % body).status_code == 200


@pytest.mark.end_to_end
@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("kind", ["", ";;", "image/png", "text/plain; charset=none", f"{ARROW}; x", "a" * 8_000])
def test_a_wrong_content_type_makes_no_garbage_right(service: Service, path: str, kind: str) -> None:
    """Whatever it says, the body is looked at."""
    assert refused(service.post(path, b"\x89PNG\r\n\x1a\n", kind), 400)


# Large ones


@pytest.mark.end_to_end
def test_large_bodies_leave_no_trace(service: Service) -> None:
    """50 MB, told beforehand or not, in any form: 413 or 400, and the worker is not larger than before."""
    large = 50 * MEGABYTE

    def pieces() -> Iterator[bytes]:
        return iter([bytes(MEGABYTE)] * 50)

    def all_of_them() -> None:
        assert refused(service.post("/predict", b" " * large), 413)
        assert refused(service.post("/predict", pieces()), 413)
        assert refused(service.post("/predict/batch", b" " * 70 * MEGABYTE), 413)
        assert refused(service.post("/predict/batch", b"[" * large), 400)
        assert refused(service.post("/predict/batch", b"1," * (large // 2)), 400)
        assert refused(service.post("/predict/batch", bytes(large), ARROW), 400)

    for _ in range(2):
        all_of_them()
    before = service.size()
    for _ in range(4):
        all_of_them()
    assert service.size() - before < TOLERANCE


# Arrow


def stream(table: pa.Table, **options: Any) -> bytes:
    """A table as Arrow's own library writes it."""
    written = io.BytesIO()
    with pa.ipc.new_stream(written, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return written.getvalue()


def table(**columns: Any) -> pa.Table:
    """Requests, some of whose columns are odd."""
    plain = {"berth": ["north", "south"], "length": pa.array([10.0, 20.0], pa.float32()), "flag": ["NO", None]}
    return pa.table({**plain, **columns})


def with_number(body: bytes, old: int, new: int) -> bytes:
    """A stream that says one number instead of another."""
    assert struct.pack("<q", old) in body
    return body.replace(struct.pack("<q", old), struct.pack("<q", new))


def nested(depth: int) -> pa.Table:
    """A list of lists of lists."""
    kind = pa.int8()
    for _ in range(depth):
        kind = pa.list_(kind)
    return pa.schema([("berth", kind)]).empty_table()


def views_of_one_text(rows: int) -> pa.Table:
    """Rows that all name the same 8 MB."""
    text = b"x" * 8 * MEGABYTE
    view = np.zeros(rows, dtype=[("length", "<u4"), ("prefix", "S4"), ("buffer", "<u4"), ("offset", "<u4")])
    view["length"], view["prefix"] = len(text), text[:4]
    buffers = [None, pa.py_buffer(view.tobytes()), pa.py_buffer(text)]
    texts = pa.Array.from_buffers(pa.string_view(), rows, buffers)
    return pa.table({"berth": ["north"] * rows, "length": pa.array([9.0] * rows, pa.float32()), "flag": texts})


FLAT = stream(pa.table({"length": pa.array(np.zeros(77_777), pa.float32())}))
NULLS = stream(pa.table({name: pa.nulls(12_345) for name in ("berth", "length", "flag")}))
PACKED = stream(pa.table({"length": pa.array(np.zeros(100_000), pa.float32())}), compression="zstd")
PIECES = pa.Table.from_batches(table().to_batches() * (MAX_MESSAGES + 1))

ODD_STREAMS = {
    "nothing": b"",
    "JSON": GOOD,
    "a file": b"ARROW1\0\0" + stream(table()),
    "nothing but marks": b"\xff" * 64,
    "metadata without an end": struct.pack("<II", 0xFFFFFFFF, 0x7FFFFFFF) + bytes(64),
    "metadata before its start": struct.pack("<Ii", 0xFFFFFFFF, -16) + bytes(64),
    "metadata of zeros": struct.pack("<II", 0xFFFFFFFF, 64) + bytes(64),
    "cut off": stream(table())[:-40],
    "a schema alone": stream(table().slice(0, 0)),
    "a billion rows of nothing": with_number(NULLS, 12_345, 10**9),
    "no end of rows": with_number(FLAT, 77_777, 2**62),
    "rows below zero": with_number(FLAT, 77_777, -1),
    "a buffer beyond the body": with_number(FLAT, 4 * 77_777, 2**40),
    "a buffer below zero": with_number(FLAT, 4 * 77_777, -8),
    "a gigabyte in 30 kB": stream(pa.table({"length": np.zeros(250 * MEGABYTE, np.float32)}), compression="zstd"),
    "a terabyte in 400 bytes": with_number(PACKED, 400_000, 2**40),
    "compressed": stream(table(), compression="lz4"),
    "a dictionary": stream(table(flag=pa.array(["NO", "NO"]).dictionary_encode())),
    "lists 1,000 deep": stream(nested(1_000)),
    "bytes as text": stream(table(flag=[b"\xff\xfe", b"\x80"])),
    "an object of Python": stream(
        pa.schema(
            [pa.field("flag", pa.binary(16), metadata={"ARROW:extension:name": "POLARS_EXTENSION_TYPE"})]
        ).empty_table()
    ),
    "a text that many rows name": stream(views_of_one_text(1_000)),
    "too many batches": stream(PIECES),
    "no UTF-8": stream(table(flag=["NOR", "OBY"])).replace(b"NOROBY", b"N\xffR\xc3(Y"),
    "unknown columns": stream(table(**{f"x{number}": [1, 2] for number in range(900)})),
    "100,000 columns": stream(pa.table({f"x{number}": [1] for number in range(100_000)})),
    "the same column twice": stream(pa.Table.from_arrays([pa.array(["north"])] * 2, ["berth", "berth"])),
    "a column missing": stream(table().drop_columns(["length"])),
    "numbers as text": stream(table(length=["ten", "twenty"])),
    "an extension": stream(
        pa.schema([pa.field("flag", pa.string(), metadata={"ARROW:extension:name": "who.knows"})]).empty_table()
    ),
}


@pytest.mark.end_to_end
@pytest.mark.parametrize("body", ODD_STREAMS.values(), ids=ODD_STREAMS)
def test_an_odd_stream_is_refused(service: Service, body: bytes) -> None:
    """Whatever it asks to be made: nothing of that is made."""
    before = service.size()
    assert refused(service.post("/predict/batch", body, ARROW), 400, 422)
    assert service.size() - before < 100 * MEGABYTE


@pytest.mark.end_to_end
def test_odd_rows_of_a_stream_are_refused_alone(service: Service) -> None:
    """NaN, infinities, what is no berth, a text that is too long."""
    lengths = [10.0, float("nan"), float("inf"), 10.0, 10.0, None]
    sent = pl.DataFrame(
        {
            "berth": ["north", "north", "north", "nowhere", "south", "south"],
            "length": pl.Series(lengths, dtype=pl.Float32),
            "flag": ["NO", None, None, None, "x" * 300, None],
        }
    )
    answer = service.post("/predict/batch", sent.write_ipc_stream(None).getvalue(), ARROW)
    assert answer.status_code == 200
    told = pl.read_ipc_stream(io.BytesIO(answer.content))
    assert told["error"].is_null().to_list() == [True, False, False, False, False, False]
    assert told["source"].is_null().to_list() == [False, True, True, True, True, True]


@pytest.mark.end_to_end
def test_torn_and_altered_streams_are_refused_or_answered(service: Service) -> None:
    """Cut anywhere, and with bytes changed anywhere: an answer or a refusal, by the same worker."""
    plain, chance = stream(table()), random.Random(5)
    for cut in range(0, len(plain), 16):
        assert service.post("/predict/batch", plain[:cut], ARROW).status_code in (200, 400, 422)
    for _ in range(300):
        altered = bytearray(plain)
        for _ in range(chance.randrange(1, 5)):
            altered[chance.randrange(len(altered))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        assert service.post("/predict/batch", bytes(altered), ARROW).status_code in (200, 400, 422)


@settings(max_examples=500)
@given(st.binary(max_size=80), st.integers(0, 400), st.integers(0, 3))
def test_a_stream_is_taken_or_refused(bytes_: bytes, at: int, marks: int) -> None:
    """Arbitrary bytes, alone and in place of those of a good stream: nothing but `MalformedBody` is raised."""
    plain = stream(table())
    for body in (struct.pack("<Ii", 0xFFFFFFFF, 8 * marks) + bytes_, plain[:at] + bytes_ + plain[at + len(bytes_) :]):
        with suppress(MalformedBody):
            examine(body, max_rows=10, max_columns=5)


# HTTP

HEAD = b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n" % len(GOOD)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "value",
    [b"a\r\nSet-Cookie: b=1", b"a\rSet-Cookie: b=1", b"a\nSet-Cookie: b=1", b"a\r\n Set-Cookie: b=1", b"a\0b", b"\xff"],
    ids=["a line", "half a line", "the other half", "a folded line", "a zero", "no ASCII"],
)
def test_an_id_brings_no_header_of_its_own(service: Service, value: bytes) -> None:
    """What follows a line's end in it is no header of the answer: a new id is made, or nobody is answered."""
    said = service.say(HEAD + b"X-Request-ID: " + value + b"\r\n\r\n" + GOOD)
    assert said == b"" or said.split()[1] in (b"200", b"400")
    assert b"set-cookie" not in said.lower() and b"\xff" not in said and b"\0" not in said


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", [b"X-Request-ID", b"X-API-Key", b"Content-Type", b"Cookie"])
def test_a_header_of_64_kilobytes_harms_nobody(service: Service, name: bytes) -> None:
    """It is a header like any other; nothing of it comes back."""
    said = service.say(HEAD + name + b": " + b"a" * 65_536 + b"\r\n\r\n" + GOOD)
    assert said.split()[1] == b"200" and b"aaaa" not in said


@pytest.mark.end_to_end
def test_headers_without_an_end_are_not_kept(service: Service) -> None:
    """One line or many, or the address itself: the connection is closed, and the worker is not larger than before."""
    endless = [b"GET /livez HTTP/1.1\r\nA: ", b"GET /livez HTTP/1.1\r\n", b"GET /"]

    def flood() -> None:
        for start in endless:
            piece = (b"a: b\r\n" if start == endless[1] else b"aaaaaa") * 10_000
            assert service.say(start + piece * (100 * HEADER_BYTES // len(piece)))[:12] in (b"", b"HTTP/1.1 431")

    flood()
    before = service.size()
    for _ in range(3):
        flood()
    assert service.size() - before < TOLERANCE


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "said",
    [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", HEAD + b"a: \x7f\r\n\r\n"],
    ids=["TLS", "9.9", "DEL"],
)
def test_what_is_no_http_is_refused_in_the_same_form(service: Service, said: bytes) -> None:
    """400 as `application/problem+json`, and the connection ends."""
    head, _, body = service.say(said).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in head and b"connection: close" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.end_to_end
def test_half_a_body_is_waited_for_and_then_forgotten(service: Service) -> None:
    """Whoever sends less than was promised and goes gets no answer."""
    for half in (HEAD + b"\r\n" + GOOD[:5], HEAD.replace(b"Length: ", b"Length: 5") + b"\r\n" + GOOD):
        assert service.say(half, closes=True) == b""


# For long


@pytest.mark.end_to_end
def test_thousands_of_them_leave_the_worker_as_it_was(service: Service) -> None:
    """Every small one of the above again and again: the worker's memory does not grow."""
    objects = [body for body in ODD_OBJECTS.values() if len(body) < 10_000]
    lists = [body for body in ODD_LISTS.values() if len(body) < 10_000]
    streams = [body for name, body in ODD_STREAMS.items() if len(body) < 10_000]
    posts = [
        *(("/predict", body, "application/json") for body in objects),
        *(("/predict/batch", body, "application/json") for body in lists),
        *(("/predict/batch", body, ARROW) for body in streams),
    ]

    def rounds(count: int) -> int:
        for _ in range(count):
            for path, body, kind in posts:
                assert 400 <= service.post(path, body, kind).status_code < 500
        return service.size()

    before, after = rounds(10), rounds(30)
    assert after - before < TOLERANCE


# The decoder

COLUMNS = (
    Column(name="number", dtype=pl.Float64(), meaning="bounded", minimum=-1.5, maximum=2.5),
    Column(name="whole", dtype=pl.Int16(), meaning="bounded by its type", nullable=True),
    Column(name="yes", dtype=pl.Boolean(), meaning="one or the other", nullable=True),
    Column(name="code", dtype=pl.String(), meaning="patterned", pattern="[A-Z]{1,4}"),
    Column(name="when", dtype=pl.Datetime("us", "UTC"), meaning="an instant", nullable=True),
    Column(name="day", dtype=pl.Date(), meaning="a day", nullable=True),
)
VALID = (
    b'{"number": 2.5e0, "whole": -3, "yes": true, "code": "AB", "when": "2024-05-01T12:00:00Z", "day": "2024-05-01"}'
)
TYPES: tuple[Any, ...] = (float, int, bool, str, int, int)
PIECES_OF_JSON = [b'"', b"\\", b"\\u", b"{", b"}", b"[", b"]", b",", b":", b"null", b"NaN", b"1e400", b"9" * 30, b"-0"]
change = st.tuples(
    st.integers(0, len(VALID)), st.integers(0, 6), st.binary(max_size=3) | st.sampled_from(PIECES_OF_JSON)
)


def altered(changes: list[tuple[int, int, bytes]]) -> bytes:
    """The valid body with some bytes replaced by others."""
    body = VALID
    for at, length, other in changes:
        body = body[:at] + other + body[at + length :]
    return body


@settings(max_examples=1_000)
@given(
    st.binary(max_size=200) | st.lists(change, max_size=3).map(altered) | st.integers(900, 1_100).map(b'{"a":'.__mul__)
)
@example(VALID)
@example(b'{"number": ' + b"[" * 994 + b"]" * 994 + b"}")
def test_bytes_are_typed_values_or_refused(body: bytes) -> None:
    """Whatever they are: `MalformedBody`, `InvalidRequest`, or values of the declared types, the same on both ways."""
    quick = RequestDecoder(COLUMNS)(body)
    try:
        values = read_request(decode_object(body), COLUMNS)
    except (MalformedBody, InvalidRequest):
        assert quick is None
        return
    assert quick in (None, values)
    pairs = zip(values, COLUMNS, TYPES, strict=True)
    assert all(type(value) is kind or (value is None and column.nullable) for value, column, kind in pairs)
