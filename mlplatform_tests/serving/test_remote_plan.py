"""A plan that is kept elsewhere: it lies in the home folder a moment later, and stays there whatever comes."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.errors import DeclarationError
from mlplatform.registry.bento import build_bento
from mlplatform.rollout.plan import Plan, from_file, to_file
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform_tests.fakes.bento_server import serving
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package
from mlplatform_tests.fakes.waiting import until
from serving.remote_plan import SYNC, Mirror, flag_configuration, latest_of

MODEL = "harbour/waits"
FULL = Plan(model=MODEL, champion="a" * 64, number=1)
CANARY = Plan(model=MODEL, champion="a" * 64, challenger="b" * 64, mode="canary", weight=500, salt="s", number=2)


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protobuf message with fields of bytes."""
    encoded = b""
    for number, content in fields:
        length, size = b"", len(content)
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        encoded += bytes([number << 3 | 2]) + length + bytes([size]) + content
    return encoded


class Flagd:
    """The sync service of a flagd: streams its flags to whoever comes, and again when they change."""

    def __init__(self) -> None:
        self.port = 0
        self._changed = threading.Condition()
        self._flags: list[bytes] = []
        self._server: Any = None

    def put(self, flags: bytes) -> None:
        """Have other flags."""
        with self._changed:
            self._flags.append(flags)
            self._changed.notify_all()

    def _stream(self, _request: bytes, context: Any) -> Iterator[bytes]:
        sent = 0
        while context.is_active():
            with self._changed:
                if len(self._flags) == sent:
                    self._changed.wait(0.1)
                news = self._flags[sent:][-1:]
                sent = len(self._flags)
            for flags in news:
                yield message((2, b"context"), (1, flags))

    def serve(self) -> None:
        """On a free loopback port; on the same one when it is started again."""
        import grpc  # type: ignore[import-untyped, unused-ignore]

        _, service, method = SYNC.split("/")
        handler = grpc.unary_stream_rpc_method_handler(self._stream)
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """Break what is streamed, and listen no more."""
        self._server.stop(None).wait()


@pytest.fixture
def flagd() -> Iterator[Flagd]:
    """One that streams nothing yet."""
    made = Flagd()
    made.serve()
    yield made
    made.stop()


def followed(home: Path) -> str:
    """Version of the plan that services of this host follow."""
    return from_file(plan_path(home, MODEL).read_bytes(), MODEL).version


def test_a_flagd_is_followed_through_its_end_and_return(flagd: Flagd, tmp_path: Path) -> None:
    """To the same version as that of the file it serves; what is no plan, and silence, leave the last one."""
    mirror = Mirror(latest_of(f"flagd://127.0.0.1:{flagd.port}", MODEL), tmp_path)

    def follows(plan: Plan) -> bool:
        mirror.look()
        return not mirror.fault and followed(tmp_path) == plan.version

    def complains(reason: str) -> bool:
        mirror.look()
        return reason in mirror.fault

    assert complains("it has not answered yet")
    flagd.put(to_file(CANARY))
    until(lambda: follows(CANARY), seconds=20, what="the plan")
    assert not mirror.look(), "it says the same: nothing is written"
    flagd.put(b"nonsense")
    until(lambda: complains("no flag of flagd's"), seconds=20, what="the refusal")
    assert followed(tmp_path) == CANARY.version
    flagd.put(to_file(FULL))
    until(lambda: follows(FULL), seconds=20, what="the next plan")
    flagd.stop()
    until(lambda: complains("flagd at 127.0.0.1"), seconds=20, what="the fault")
    assert followed(tmp_path) == FULL.version
    flagd.put(to_file(CANARY))
    flagd.serve()
    until(lambda: follows(CANARY), seconds=20, what="the plan after its return")


@given(st.lists(st.tuples(st.integers(2, 15), st.binary(max_size=300)), max_size=3), st.binary(max_size=70_000))
def test_the_flags_are_found_among_other_fields(others: list[tuple[int, bytes]], flags: bytes) -> None:
    """Whatever is before and after them, and however long they are."""
    for at in range(len(others) + 1):
        assert flag_configuration(message(*others[:at], (1, flags), *others[at:])) == flags


@given(st.binary(max_size=100))
def test_no_message_raises(content: bytes) -> None:
    """What is no message gives something that is no plan."""
    assert isinstance(flag_configuration(content), bytes)


def test_a_flag_file_is_followed(tmp_path: Path) -> None:
    """One that something else brings here, a mounted configuration map for example, among flags of others."""
    source, home = tmp_path / "flags.json", tmp_path / "home"
    mirror = Mirror(latest_of(f"file:{source}", MODEL), home)
    assert (mirror.look(), "is not there" in mirror.fault) == (False, True)
    flags = json.loads(to_file(CANARY))
    flags["flags"]["banner"] = {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"}
    source.write_text(json.dumps(flags))
    assert (mirror.look(), mirror.fault, followed(home)) == (True, "", CANARY.version)
    source.write_text("")
    assert (mirror.look(), "last good" in mirror.fault, followed(home)) == (False, True, CANARY.version)
    # Somebody else wrote the file of this host: the source has the word.
    source.write_bytes(to_file(FULL))
    write_plan(home, CANARY)
    assert (mirror.look(), followed(home)) == (True, FULL.version)


PROVIDER = """
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

FLAGS = {}


def provider():
    return InMemoryProvider(FLAGS)


def flag(value):
    FLAGS["harbour/waits"] = InMemoryFlag("on", {"on": value})
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that makes an OpenFeature provider."""
    (tmp_path / "house_flags.py").write_text(PROVIDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    import house_flags  # type: ignore[import-not-found]  # made just now

    yield house_flags
    from openfeature import api

    api.clear_providers()
    del sys.modules["house_flags"]


def test_any_openfeature_provider_may_say_the_plan(house: Any, tmp_path: Path) -> None:
    """By an object flag with the fields of a plan; numbers come as JSON has them."""
    said = {"champion": CANARY.champion, "challenger": CANARY.challenger, "mode": "canary", "salt": "s", "number": 2}
    house.flag({**said, "weight": 500.0})
    mirror = Mirror(latest_of("house_flags:provider", MODEL), tmp_path)
    until(mirror.look, seconds=20, what="the plan")
    assert (mirror.fault, followed(tmp_path)) == ("", CANARY.version)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"mode": "full"}, "champion"),
        ({"champion": "a", "mode": "blue"}, "blue"),
        ({"champion": "a", "challenger": "a"}, "the same manifest"),
        ({"champion": "../x"}, "no digest"),
        (["a"], "no object"),
        (None, "flag harbour/waits: "),
    ],
)
def test_what_a_provider_says_is_looked_at_before_it_is_gone_by(
    house: Any, tmp_path: Path, value: Any, reason: str
) -> None:
    """As a file is: refused in words, and the plan of before stays."""
    write_plan(tmp_path, FULL)
    if value is not None:
        house.flag(value)
    mirror = Mirror(latest_of("house_flags:provider", MODEL), tmp_path)

    def complains() -> bool:
        mirror.look()
        return reason in mirror.fault

    until(complains, seconds=20, what="the refusal")
    assert followed(tmp_path) == FULL.version


@pytest.mark.parametrize("flags", ["flagd:8015", "consul://x", "nowhere.at_all:provider", "json:nothing", "plan.json"])
def test_a_source_that_there_is_not_is_told(flags: str) -> None:
    """With what may be set instead, or what is missing."""
    with pytest.raises(DeclarationError, match="MLPLATFORM_FLAGS"):
        latest_of(flags, MODEL)


def test_the_process_brings_the_plan_and_shows_that_it_lives(tmp_path: Path) -> None:
    """As the supervisor starts it."""
    source, sign, home = tmp_path / "flags.json", tmp_path / "sign", tmp_path / "home"
    source.write_bytes(to_file(FULL))
    command = [sys.executable, "-m", "serving.remote_plan", "--flags", f"file:{source}", "--model", MODEL]
    process = subprocess.Popen([*command, "--home", str(home), "--sign", str(sign)])
    try:
        until(sign.exists, seconds=30, what="a sign of life")
        assert followed(home) == FULL.version
        write_plan(tmp_path, replace(CANARY, number=3))
        plan_path(tmp_path, MODEL).rename(source)
        until(lambda: followed(home).startswith("3-"), seconds=10, what="the next plan")
    finally:
        process.terminate()
        process.wait()


@pytest.mark.end_to_end
def test_a_service_whose_settings_name_a_flagd_goes_by_it(flagd: Flagd, tmp_path: Path) -> None:
    """It starts without a plan and takes that of flagd; the process that asks is killed, and the next plan comes."""
    publish(tmp_path)
    champion = bundle_of(tmp_path / "bundles", write_package(tmp_path / "package"))
    environment = {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLPLATFORM_HOME": str(tmp_path),
        "MLPLATFORM_FLAGS": f"flagd://127.0.0.1:{flagd.port}",
    }
    before = set(psutil.Process().children(recursive=True))
    with serving(build_bento(champion.folder, home=tmp_path), folder=tmp_path, environment=environment) as server:
        server.wait_until_ready()
        assert server.ask("/model").json["plan"]["version"] == ""

        def follows(plan: Plan) -> bool:
            return bool(server.ask("/model").json["plan"]["version"] == plan.version)

        plan = replace(FULL, champion=champion.digest)
        flagd.put(to_file(plan))
        until(lambda: follows(plan), seconds=20, what="the plan")
        ours = set(psutil.Process().children(recursive=True)) - before
        (source,) = [each for each in ours if "serving.remote_plan" in each.cmdline()]
        source.kill()
        plan = replace(plan, number=2)
        flagd.put(to_file(plan))
        until(lambda: follows(plan), seconds=20, what="the next plan")
