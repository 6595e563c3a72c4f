"""A service on simulated time: the real gateway, asked as HTTP would ask it, and real model workers behind it.

Requests bring their own time (`MLPLATFORM_CLOCK=request`), so that a day passes in a second and is logged as that day.
It stands in for the supervisor alone: it starts and ends the workers of the versions that the plan names.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from bench.replay_domain import MODEL, NAME
from mlplatform.monitoring.pickup import pick_up
from mlplatform.provenance.platform import Platform
from mlplatform.registry.api_keys import ApiKeys, keys_folder
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.pointing import plan_of
from mlplatform.settings import Settings
from serving.access import Access
from serving.api_page import ARROW
from serving.gateway import Gateway
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.roster import Roster, Version, write_roster

AT_ONCE = 16
"""Requests under way together, so that they meet in batches."""

WAIT_SECONDS = 60.0


class Service:
    """One gateway worker, and a model worker for each version; made by `serving_model`."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        told = Settings(
            home=platform.home,
            clock="request",
            events=None,
            bundle=None,
            mlflow_uri=platform.mlflow_uri,
            tables=platform.tables,
            landings=platform.landings,
            online_store=platform.online_store,
            gateway_workers=1,
            keys="off",
            rate_limits="memory",
            s3_endpoint=None,
            s3_region=None,
            traces=False,
        )
        self._platform, self._folder = platform, folder
        self.metrics = Metrics(folder / "metrics")
        self.log = LogWriter(platform.home, self.metrics)
        self._gateway = Gateway(
            folder,
            told,
            access=Access(ApiKeys(keys_folder(platform.home)), required=False),
            metrics=self.metrics,
            log=self.log,
            now=platform.clock,
        )
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._started = False

    async def follow(self) -> None:
        """Go by the plan that there is now: workers, roster, and the gateway's own look at both."""
        model = f"{NAME}/{MODEL}"
        plan = plan_of(model, Ledger(self._platform).entries(model))
        assert plan is not None
        versions = {digest: self._version(digest) for digest in (plan.champion, plan.challenger) if digest}
        for version in versions.values():
            await _until(Path(version.sockets[0]).exists, f"the worker of {version.digest[:12]}")
        challenger = versions.get(plan.challenger or "")
        write_roster(self._folder, Roster(live=versions[plan.champion], challenger=challenger))
        if not self._started:
            self._started = True
            await self._gateway.start()

        async def followed() -> bool:
            said = json.loads(await self._called("GET", "/model", b"", {}))
            told = said["plan"]
            is_open = told["challenger_open"] == (plan.challenger is not None)
            return bool(said["digest"] == plan.champion and told["version"] == plan.version and is_open)

        until = time.monotonic() + WAIT_SECONDS
        while not await followed():
            assert time.monotonic() < until, "the gateway does not follow its plan"
            await asyncio.sleep(0.05)

    def _version(self, digest: str) -> Version:
        bundle, socket = self._platform.bundles / digest, self._folder / digest[:12]
        if digest not in self._workers:
            command = [sys.executable, "-m", "serving.model_worker", "--bundle", str(bundle), "--socket", str(socket)]
            self._workers[digest] = subprocess.Popen(command)
        return Version(digest=digest, bundle=str(bundle), sockets=(str(socket),), since=datetime.now(UTC).isoformat())

    def kill_workers(self) -> None:
        """All model workers gone, and nobody who brings them back."""
        for worker in self._workers.values():
            worker.kill()
            worker.wait()

    async def ask(self, requests: pl.DataFrame, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The answers to requests with `at`, each asked by its id."""
        bodies = [json.dumps(row, default=_told).encode() for row in requests.iter_rows(named=True)]
        found: list[dict[str, Any]] = []
        for start in range(0, len(bodies), AT_ONCE):
            asked = zip(bodies[start : start + AT_ONCE], ids[start : start + AT_ONCE], strict=True)
            calls = (self._called("POST", "/predict", body, {"x-request-id": name}) for body, name in asked)
            found += [json.loads(answer) for answer in await asyncio.gather(*calls)]
        return found

    async def ask_as_list(self, requests: pl.DataFrame, name: str) -> list[dict[str, Any]]:
        """The same as one JSON list."""
        body = json.dumps(requests.rows(named=True), default=_told).encode()
        said = await self._called("POST", "/predict/batch", body, {"x-request-id": name})
        answers: list[dict[str, Any]] = json.loads(said)["answers"]
        return answers

    async def ask_as_table(self, requests: pl.DataFrame, name: str) -> list[dict[str, Any]]:
        """The same as an Arrow stream, which tells no time: it is asked now."""
        body = requests.drop("at").write_ipc_stream(None).getvalue()
        said = await self._called("POST", "/predict/batch", body, {"x-request-id": name, "content-type": ARROW})
        return pl.read_ipc_stream(said).rows(named=True)

    async def shadow_rows(self, count: int) -> None:
        """Wait until so many rows were scored in the shadow since the service began."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            told = (await self._called("GET", "/metrics", b"", {})).decode().splitlines()
            lines = [line.rpartition(" ") for line in told if line.startswith("mlplatform_shadow_rows_total")]
            if (scored := sum(float(value) for _, _, value in lines)) == count:
                return
            assert scored < count and time.monotonic() < until, f"{scored:.0f} rows in the shadow, not {count}"
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End all, and have the log picked up."""
        await self._gateway.stop()
        self.kill_workers()
        self.log.close()
        self.metrics.close()

    async def _called(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """What ASGI gives to a request."""
        said: list[Any] = []
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await self._gateway(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in said[1:])
        assert said[0]["status"] == 200, answer
        return answer


@asynccontextmanager
async def serving_model(platform: Platform, domain: Any, folder: Path) -> AsyncIterator[Service]:
    """The service of the plan; when it ends, its log is picked up."""
    folder.mkdir(parents=True)
    service = Service(platform, folder)
    try:
        await service.follow()
        yield service
    finally:
        await service.close()
    pick_up(platform, domain)


async def _until(holds: Any, what: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < until, f"waited in vain for {what}"
        await asyncio.sleep(0.05)


def _told(value: Any) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()
