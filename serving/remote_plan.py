"""The plan of a service that shares no folder with the platform: taken from where flags are, laid where it is read.

One small process beside the others, kept alive by the supervisor, asks a flag source and writes the plan file of this
host; supervisor and gateway workers follow that file as they do everywhere. So what a plan must be, that the last good
one is kept, also over a restart and without the source, and what an arm costs a request, is the same whatever the
source; and no client library runs where requests are answered.

::

    python -m serving.remote_plan --flags flagd://flags:8015 --model shop/late --home FOLDER --sign FILE

Sources: `flagd://host:port` (`flagds://` with TLS), the sync service of a flagd that serves the platform's plan file;
`file:PATH`, a flag file that something else brings here; `package.module:function`, which gives any OpenFeature
provider, whose object flag `domain/model` has the fields of a `Plan`.

It does not let a foreign provider draw the keys: which share an arm has, and that a growing weight only adds keys, must
be known and not hoped for. The source says how much; who is in is drawn here, as flagd draws.
"""

import argparse
import importlib
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mlplatform.errors import DeclarationError, PlanInvalid, Unavailable
from mlplatform.rollout.plan import Plan, from_file
from mlplatform.rollout.plan_file import WatchedPlan, write_plan
from mlplatform.settings import silence_telemetry
from serving.parent_death import end_with_parent

logger = logging.getLogger(__name__)

Latest = Callable[[], Plan]
"""Gives the plan that a source names now; raises `Unavailable` or `PlanInvalid` where it names none."""

LOOK_SECONDS = 0.2
"""With the look of a gateway worker at the file, less than a second."""

AGAIN_SECONDS = 1.0
"""Until a stream that broke is asked for again."""

LARGEST = 64 << 20
"""Bytes of all flags of a flagd: it serves those of others too."""

KEEPALIVE_MS = 310_000
"""Between two questions whether a silent flagd is there. Servers in Go hang up on who asks within five minutes."""

SYNC = "/flagd.sync.v1.FlagSyncService/SyncFlags"


def latest_of(flags: str, model: str) -> Latest:
    """How the plan of `domain/model` is asked for.

    Raises
    ------
    DeclarationError
        There is no such source, or what it needs is not installed.
    """
    scheme, _, place = flags.partition(":")
    try:
        if scheme == "file":
            return _in_file(Path(place), model)
        if scheme in ("flagd", "flagds") and place.startswith("//"):
            return FlagdSync(place.removeprefix("//"), model, tls=scheme == "flagds").latest
        if place.isidentifier():
            return _of_provider(getattr(importlib.import_module(scheme), place)(), model)
    except (ImportError, AttributeError) as error:
        raise DeclarationError(
            f"MLPLATFORM_FLAGS is {flags!r}, and {error}. Install it where the service runs"
        ) from error
    raise DeclarationError(
        f"MLPLATFORM_FLAGS is {flags!r}. Set it to flagd://host:port, file:PATH or package.module:function, or "
        "leave it unset, and the plan file of the home folder is followed"
    )


def _in_file(path: Path, model: str) -> Latest:
    watched = WatchedPlan(path, model)

    def latest() -> Plan:
        watched.look()
        if watched.plan is None or watched.fault:
            raise Unavailable(watched.fault or f"{path} is not there")
        return watched.plan

    return latest


def _of_provider(provider: Any, model: str) -> Latest:
    from openfeature import api

    api.set_provider(provider)
    client = api.get_client()

    def latest() -> Plan:
        found = client.get_object_details(model, {})
        if found.error_code is not None:
            raise Unavailable(f"flag {model}: {found.error_code} {found.error_message or ''}")
        if not isinstance(found.value, dict):
            raise PlanInvalid(model, "its flag is no object with the fields of a plan")
        try:
            return msgspec.convert({**found.value, "model": model}, type=Plan, strict=False)
        except msgspec.ValidationError as error:
            raise PlanInvalid(model, str(error)) from error

    return latest


class FlagdSync:
    """The flags of a flagd, as its sync service streams them: at once, and whenever they change.

    Parameters
    ----------
    address : host:port
    model : `domain/model`, the name of the flag
    """

    def __init__(self, address: str, model: str, *, tls: bool) -> None:
        import grpc  # type: ignore[import-untyped, unused-ignore]

        self._model = model
        self._address = address
        self._found: Plan | PlanInvalid | None = None
        self._broken = "it has not answered yet"
        options = [("grpc.max_receive_message_length", LARGEST), ("grpc.max_reconnect_backoff_ms", 5_000)]
        options += [("grpc.keepalive_time_ms", KEEPALIVE_MS), ("grpc.http2.max_pings_without_data", 0)]
        channel = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
            if tls
            else grpc.insecure_channel(address, options)
        )
        # The message has two fields and we need one: that spares the host flagd's own client, whose protobuf is
        # newer than the pipeline can have.
        self._sync = channel.unary_stream(SYNC, request_serializer=bytes, response_deserializer=flag_configuration)
        self._error: type[grpc.RpcError] = grpc.RpcError
        threading.Thread(target=self._listen, daemon=True).start()

    def latest(self) -> Plan:
        """The plan as it was streamed last."""
        if self._broken:
            raise Unavailable(f"flagd at {self._address}: {self._broken}")
        if not isinstance(self._found, Plan):
            raise self._found or Unavailable(f"flagd at {self._address} has sent nothing yet")
        return self._found

    def _listen(self) -> None:
        while True:
            try:
                for content in self._sync(b"", wait_for_ready=True):
                    self._found, self._broken = self._read(content), ""
                self._broken = "it has ended the stream"
            except self._error as error:
                self._broken = " ".join(str(error.details()).split())
            threading.Event().wait(AGAIN_SECONDS)

    def _read(self, content: bytes) -> Plan | PlanInvalid:
        try:
            return from_file(content, self._model)
        except PlanInvalid as error:
            return error


def flag_configuration(message: bytes) -> bytes:
    """Field 1 of a `SyncFlagsResponse`, JSON; a message that is cut off gives what is no JSON.

    References
    ----------
    https://protobuf.dev/programming-guides/encoding/
    """
    at, found = 0, b""
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 != 2:
            return b""  # all its fields are of this kind
        length, at = _varint(message, at)
        if tag >> 3 == 1:
            found = message[at : at + length]
        at += length
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits to a byte, and where it ends."""
    value = shift = 0
    while at < len(message):
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80 or shift > 56:
            break
        shift += 7
    return value, at


class Mirror:
    """Lays what a source says where the service reads it.

    Parameters
    ----------
    home : folder of the service's state
    """

    def __init__(self, latest: Latest, home: Path) -> None:
        self.fault = ""
        """Why the source is not followed."""
        self._latest = latest
        self._home = home

    def look(self) -> bool:
        """Ask once; whether the file changed. What is wrong is said when it begins and when it is over."""
        try:
            changed, fault = write_plan(self._home, self._latest()), ""
        except (Unavailable, PlanInvalid, OSError) as error:
            changed, fault = False, str(error)
        if fault != self.fault:
            self.fault = fault
            logger.warning("%s", f"{fault}. The last plan stays in force" if fault else "flags are followed again")
        return changed


def main() -> None:
    """Run as `python -m serving.remote_plan`."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--flags", required=True)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--home", type=Path, required=True)
    arguments.add_argument("--sign", type=Path, required=True)
    given = arguments.parse_args()
    silence_telemetry()
    end_with_parent(signal.SIGTERM)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        mirror = Mirror(latest_of(given.flags, given.model), given.home)
    except DeclarationError as error:
        sys.exit(str(error))
    while True:
        mirror.look()
        given.sign.touch()
        threading.Event().wait(LOOK_SECONDS)


if __name__ == "__main__":
    main()
