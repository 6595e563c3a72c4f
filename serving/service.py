"""The Bento's service: BentoML wiring, and nothing else.

`bentoml serve TAG` starts this. BentoML brings the process, the socket and the image. As soon as its worker process is
up, the process turns into our supervisor, with the same id and the same socket: BentoML's layers cost ten times the
request, and in a container it does not start a worker again that has died.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import bentoml
from bentoml._internal.utils.analytics import usage_stats
from starlette.applications import Starlette

from mlplatform.errors import Unavailable
from mlplatform.rollout.plan_file import plan_path
from mlplatform.settings import Settings, child_environment, settings, silence_telemetry

silence_telemetry()
# `bentoml serve` has asked before it imports us, and remembers the answer; without this it would report the start.
usage_stats.do_not_track.cache_clear()

SOURCE = Path(__file__).resolve().parents[1]
"""In a Bento: the folder with the `serving` package, and the bundle beside it."""


def served_settings() -> Settings:
    """The settings, with the home that the Bento lies in where none is given that can be found.

    BentoML changes into the Bento before it imports this, so a home that is not absolute would be looked for inside it.
    A Bento built by the platform lies in `<home>/bentoml/bentos/<name>/<version>/src`.
    """
    told = settings()
    if SOURCE.parts[-5:-3] == ("bentoml", "bentos") and told.home.resolve().is_relative_to(SOURCE.parents[3]):
        return replace(told, home=SOURCE.parents[4])
    return told


def supervisor_command(arguments: list[str], told: Settings) -> list[str]:
    """The command that this process turns into.

    Parameters
    ----------
    arguments : of BentoML's worker process; they name its listening socket

    Raises
    ------
    Unavailable
        BentoML is to do what the supervisor does not.
    """
    if "--ssl-certfile" in arguments:
        raise Unavailable("TLS ends before this service: put a proxy or a load balancer in front, without --ssl-…")
    bundle = told.bundle or SOURCE / "bundle"
    command = [sys.executable, "-m", "serving.supervisor"]
    command += ["--listening", arguments[arguments.index("--fd") + 1], "--bundle", str(bundle)]
    command += ["--bundles", str(told.home / "bundles"), "--gateways", str(told.gateway_workers)]
    # A bundle that was named by hand is what is served.
    if told.bundle is None:
        model = _model(bundle)
        command += ["--plan", str(plan_path(told.home, model)), "--model", model]
        command += ["--flags", told.flags, "--home", str(told.home)] if told.flags else []
    return command


def _model(bundle: Path) -> str:
    """`domain/model` of a bundle; what is wrong with the bundle is told by those who load it."""
    import yaml

    try:
        return str(yaml.safe_load((bundle / "manifest.yaml").read_text())["model"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return "unknown"


@asynccontextmanager
async def become_supervisor(_app: Starlette) -> AsyncIterator[None]:
    """Runs in BentoML's worker process only, when it is about to take requests; it does not return."""
    told = served_settings()
    command = supervisor_command(sys.argv, told)
    environment = child_environment(MLPLATFORM_HOME=str(told.home))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCE), environment.get("PYTHONPATH", "")]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)
    yield  # type: ignore[unreachable]  # a lifespan is a generator


class Prediction:
    """Answers `POST /predict` with one model version; the API is described at `/docs.json`."""


service = bentoml.service(
    name="prediction",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)(Prediction)
# Mounted, because BentoML runs the lifespan of what is mounted.
service.mount_asgi_app(Starlette(lifespan=become_supervisor), path="/")
