"""The Bento's service: BentoML wiring, and nothing else.

`bentoml serve TAG` starts this. BentoML brings the process, the sockets and the image; every request is answered by our
own application, put in front as a middleware, since BentoML's layers cost ten times the request (metrics and traces are
therefore off, and its index page, which loads outside scripts, is never reached).
"""

from dataclasses import replace
from pathlib import Path

import bentoml
from bentoml._internal.utils.analytics import usage_stats
from starlette.types import ASGIApp, Receive, Scope, Send

from mlplatform.settings import Settings, settings, silence_telemetry
from serving.app import build_app

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


application = build_app(settings().bundle or SOURCE / "bundle", served_settings())


class Front:
    """Hands every HTTP request to our application; the start and end of the process stay BentoML's."""

    def __init__(self, app: ASGIApp) -> None:
        self._behind = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan of the process."""
        answering = application if scope["type"] == "http" else self._behind
        await answering(scope, receive, send)


class Prediction:
    """Answers `POST /predict` with one model version; the API is described at `/docs.json`."""


service = bentoml.service(
    name="prediction",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)(Prediction)
# Mounted too, because BentoML runs the lifespan of what is mounted: that is where the bundle is loaded.
service.mount_asgi_app(application, path="/")
service.add_asgi_middleware(Front)
