"""Access: keys, limits, body sizes and request ids, on the raw messages of ASGI."""

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage
from starlette.requests import ClientDisconnect

from mlplatform.errors import Unavailable
from mlplatform.registry.api_keys import ApiKeys
from serving.access import NOBODY, Access, Refused, keys_required, read_body, request_id
from serving.problem import send_problem
from serving.rate_limit import SHARED_AGAIN, RateLimits, rate_limits

Header = tuple[bytes, bytes]


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    """No keys yet."""
    return ApiKeys(tmp_path, clock=ever_later())


def ever_later() -> Callable[[], float]:
    """A clock that is a minute later at each look, so that every change is seen at once."""
    told = iter(range(0, 10**9, 60))
    return lambda: next(told)


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock of the library, which takes none as an argument: the one number is its time."""
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def admitted(access: Access, *headers: Header) -> str | Refused:
    """What access says to a request."""
    return asyncio.run(access.admit(headers))


def bearer(token: str) -> Header:
    """A token where the standard puts it."""
    return (b"authorization", b"Bearer " + token.encode())


@pytest.mark.parametrize(
    ("told", "host", "required"),
    [
        ("auto", "127.0.0.1", False),
        ("auto", "127.8.9.1", False),
        ("auto", "::1", False),
        ("auto", "[::1]", False),
        ("auto", "localhost", False),
        ("auto", "0.0.0.0", True),
        ("auto", "::", True),
        ("auto", "10.0.0.1", True),
        ("auto", "", True),
        ("auto", "localhost.example.org", True),
        ("off", "0.0.0.0", False),
        ("required", "127.0.0.1", True),
    ],
)
def test_keys_are_required_where_others_can_reach_the_service(
    told: Literal["auto", "off", "required"], host: str, required: bool
) -> None:
    """An address that is not surely this machine's own counts as reachable."""
    assert keys_required(told, host) is required


def test_the_key_is_taken_from_either_header(keys: ApiKeys) -> None:
    """Our own header counts before the general one, which a proxy may need for itself."""
    key_id, token = keys.create("shop")
    access = Access(keys, required=True)
    basic = (b"authorization", b"Basic c2hvcDpmcm9udA==")
    assert admitted(access, (b"host", b"here"), bearer(token)) == key_id
    assert admitted(access, (b"authorization", b"bearer " + token.encode())) == key_id
    assert admitted(access, basic, (b"x-api-key", token.encode())) == key_id
    assert admitted(access, bearer("mlp_wrong"), (b"x-api-key", token.encode())) == key_id
    assert admitted(access, (b"x-api-key", token.encode()), bearer("mlp_wrong")) == key_id


def test_without_a_usable_key_the_answer_is_401(keys: ApiKeys) -> None:
    """None, another scheme, an unknown one, a revoked one; a sent token is told apart from none, as RFC 6750 has it."""
    key_id, token = keys.create("shop")
    keys.revoke(key_id)
    access = Access(keys, required=True)
    for headers in ((), (bearer(""),), ((b"authorization", b"Basic " + token.encode()),)):
        refused = admitted(access, *headers)
        assert isinstance(refused, Refused)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="mlplatform"')
    for headers in ((bearer(token),), (bearer("\xff\x00"),), ((b"x-api-key", b"a" * 100_000),)):
        refused = admitted(access, *headers)
        assert isinstance(refused, Refused) and refused.status == 401
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
        assert token not in refused.detail


def test_a_key_is_good_for_what_it_was_made_for(keys: ApiKeys, minute: list[float]) -> None:
    """403 and the command that makes another; what is refused is not counted against the key's limit."""
    asks_id, asks = keys.create("shop", requests_per_minute=1)
    sends_id, sends = keys.create("courier", may=["facts"])
    access = Access(keys, required=True)
    for _ in range(3):
        refused = asyncio.run(access.admit([bearer(asks)], "facts"))
        assert isinstance(refused, Refused) and refused.status == 403
        assert "`mlplatform keys create NAME --may facts`" in refused.detail
    assert admitted(access, bearer(asks)) == asks_id
    assert asyncio.run(access.admit([bearer(sends)], "facts")) == sends_id
    refused = admitted(access, bearer(sends))
    assert isinstance(refused, Refused) and refused.status == 403
    assert asyncio.run(Access(keys, required=False).admit([bearer(asks)], "facts")) == NOBODY


def test_where_keys_are_off_no_header_is_looked_at(keys: ApiKeys) -> None:
    """A proxy's own Authorization header does not shut its clients out."""
    assert admitted(Access(keys, required=False), bearer("not one of ours")) == NOBODY


def test_a_key_meets_its_own_limit_and_no_other_key_does(keys: ApiKeys, minute: list[float]) -> None:
    """429 tells when to ask again, and then it may. A key without a limit has none."""
    slow_id, slow = keys.create("slow", requests_per_minute=3)
    other_id, other = keys.create("other", requests_per_minute=3)
    fast_id, fast = keys.create("fast")
    access = Access(keys, required=True)
    assert [admitted(access, bearer(slow)) for _ in range(3)] == [slow_id] * 3
    refused = admitted(access, bearer(slow))
    assert isinstance(refused, Refused) and refused.status == 429
    assert admitted(access, bearer(other)) == other_id
    assert {admitted(access, bearer(fast)) for _ in range(100)} == {fast_id}
    seconds = int(refused.headers["Retry-After"])
    assert 1 <= seconds <= 61
    minute[0] += seconds
    assert admitted(access, bearer(slow)) == slow_id


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 12)), min_size=1, max_size=8), st.integers(1, 10))
def test_who_asks_again_when_told_to_is_let_in_and_a_second_earlier_is_not(
    bursts: list[tuple[float, int]], per_minute: int
) -> None:
    """Whatever was asked before, in whatever rhythm."""
    now = 1_800_000_000.0
    limits = RateLimits()

    def seconds() -> int:
        return asyncio.run(limits.wait("key", per_minute))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: now)
        for pause, asked in bursts:
            now += pause
            for _ in range(asked):
                wait = seconds()
                if wait > 1:
                    now += wait - 1.01
                    assert seconds() > 0
                    now += 1.01
                    assert seconds() == 0


def passed(limits: RateLimits, per_minute: int, *, asked: int) -> int:
    """How many of some requests at once may pass."""

    async def ask() -> int:
        return sum([await limits.wait("key", per_minute) == 0 for _ in range(asked)])

    return asyncio.run(ask())


def test_the_workers_share_a_limit_that_is_counted_in_memory(minute: list[float]) -> None:
    """Each lets its part pass, at least one; rounded up, so that a small limit does not starve."""
    assert passed(RateLimits(workers=4), 100, asked=50) == 25
    assert passed(RateLimits(workers=4), 3, asked=5) == 1


class Failing(MemoryStorage):
    """A shared store that can be taken away."""

    def __init__(self) -> None:
        super().__init__(wrap_exceptions=True)
        self.there, self.asked = True, 0

    async def acquire_sliding_window_entry(self, *arguments: Any, **named: Any) -> bool:
        """Raise what the library's own error wrapping wraps."""
        self.asked += 1
        if not self.there:
            raise ValueError("redis://:password@cache:6379 is not there")
        return await super().acquire_sliding_window_entry(*arguments, **named)


class Hanging(MemoryStorage):
    """A shared store that never answers."""

    async def acquire_sliding_window_entry(self, *arguments: Any, **named: Any) -> bool:
        """Wait for ever."""
        await asyncio.Event().wait()
        return True


def test_a_limit_that_is_counted_for_all_holds_over_all(minute: list[float]) -> None:
    """Two workers with one store let the limit pass, not their shares."""
    store = MemoryStorage()
    first, second = (RateLimits(workers=2, shared=store) for _ in range(2))
    assert passed(first, 10, asked=6) == 6
    assert passed(second, 10, asked=6) == 4


def test_without_the_shared_store_the_shares_are_counted_in_memory(
    minute: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again after a second, not by every request; no log line holds its password."""
    clock, store = [0.0], Failing()
    limits = RateLimits(workers=2, shared=store, clock=lambda: clock[0])
    store.there = False
    assert passed(limits, 10, asked=10) == 5
    assert store.asked == 1
    assert "counted in memory" in caplog.text and "password" not in caplog.text
    store.there = True
    clock[0] += SHARED_AGAIN
    assert passed(limits, 10, asked=12) == 10


def test_a_shared_store_that_hangs_holds_up_one_request_only(minute: list[float]) -> None:
    """For as long as one waits for it at most; the others are counted at once."""
    assert passed(RateLimits(shared=Hanging(), clock=lambda: 0.0), 5, asked=9) == 5


def test_a_place_to_count_in_that_is_none_is_refused_without_its_password() -> None:
    """When the service starts, not with its first request."""
    place = "redis://:hidden@cache:port"
    with pytest.raises(Unavailable, match="MLPLATFORM_RATE_LIMITS") as refused:
        rate_limits(place, workers=1)
    assert "hidden" not in "".join(traceback.format_exception(refused.value))


def test_an_id_that_may_go_into_logs_is_kept_and_any_other_replaced() -> None:
    """A made-up id is one too, and never twice the same."""
    assert request_id([(b"host", b"here"), (b"x-request-id", b"order-17:a.b_c")]) == "order-17:a.b_c"
    for wrong in (b"", b"a b", b"a\nb", b'a"', b"\xff", b"a" * 129):
        made = request_id([(b"x-request-id", wrong)])
        assert made != wrong.decode("latin-1")
        assert request_id([(b"x-request-id", made.encode())]) == made
    assert len({request_id([]) for _ in range(1000)}) == 1000


def body_of(*chunks: bytes, headers: tuple[Header, ...] = (), ends: str = "whole") -> bytes | Refused:
    """What is read of a body that comes in chunks and may hold ten bytes."""

    async def read() -> bytes | Refused:
        messages = [
            {"type": "http.request", "body": chunk, "more_body": ends != "whole" or number < len(chunks) - 1}
            for number, chunk in enumerate(chunks)
        ]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            if ends == "gone":
                return {"type": "http.disconnect"}
            assert ends == "slow", "read beyond the end of the body, or beyond the limit"
            await asyncio.Event().wait()
            raise AssertionError

        return await read_body(headers, receive, at_most=10, within=0.01 if ends == "slow" else 60)

    return asyncio.run(read())


def test_a_body_is_read_up_to_its_limit() -> None:
    """In one piece or in many, with what it says of its length or without."""
    assert body_of(b"") == b""
    assert body_of(b"0123456789") == b"0123456789"
    assert body_of(b"01234", b"", b"56789") == b"0123456789"
    for told, chunks in (((), (b"0123456789a",)), ((), (b"012345", b"6789a", b"b")), ((b"11",), ())):
        refused = body_of(*chunks, headers=tuple((b"content-length", length) for length in told))
        assert isinstance(refused, Refused)
        assert (refused.status, refused.headers) == (413, {"Connection": "close"})


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """408 after its time; a client that is gone needs no answer."""
    refused = body_of(b"01", ends="slow")
    assert isinstance(refused, Refused) and refused.status == 408
    with pytest.raises(ClientDisconnect):
        body_of(b"01", ends="gone")


def test_slow_bodies_do_not_take_others_with_them_and_a_cancelled_reader_stays_cancelled() -> None:
    """The one that is overdue is refused, the one beside it read; who is stopped from outside gets no answer."""

    async def read_three() -> tuple[bytes | Refused | BaseException, ...]:
        late = asyncio.Event()

        async def in_time() -> dict[str, Any]:
            await late.wait()
            return {"type": "http.request", "body": b"here"}

        async def never() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        slow, other, stopped = (
            asyncio.create_task(read_body([], receive, at_most=10, within=within))
            for receive, within in ((never, 0.01), (in_time, 60), (never, 60))
        )
        await slow
        late.set()
        stopped.cancel()
        return await asyncio.gather(slow, other, stopped, return_exceptions=True)

    slow, other, stopped = asyncio.run(read_three())
    assert isinstance(slow, Refused) and slow.status == 408
    assert other == b"here"
    assert isinstance(stopped, asyncio.CancelledError)


def test_a_refusal_is_sent_as_problem_json() -> None:
    """Its headers, and a length that fits."""
    detail = "ask again – later"
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(send_problem(send, 429, detail, headers={"Retry-After": "3"}, limit=5))
    start, body = sent
    headers = dict(start["headers"])
    assert (start["type"], start["status"]) == ("http.response.start", 429)
    assert headers[b"content-type"] == b"application/problem+json" and headers[b"retry-after"] == b"3"
    assert int(headers[b"content-length"]) == len(body["body"])
    told = {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": detail,
        "limit": 5,
    }
    assert msgspec.json.decode(body["body"]) == told
