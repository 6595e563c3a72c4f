"""`POST /webhook/data-updated`: somebody says that data has come; kept before it is answered.

202 says that the event is on the disk, and nothing of what becomes of it: that is the pipeline's to decide, and
`mlplatform retrain explain` tells it. Sent again under the same id it is the same event. Whether there is such a
partition is not asked here, for a gateway sees no table.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import msgspec
from starlette.types import Send

from mlplatform.domain.domain import Domain
from mlplatform.errors import InvalidRequest, MalformedBody, Unavailable
from mlplatform.retraining.events import EventWriter, event_folder, understand
from serving.metrics import Metrics
from serving.problem import send_invalid_fields

PATH = "/webhook/data-updated"

Refuse = Callable[..., Awaitable[None]]


class EventIntake:
    """Takes in the events of one gateway worker.

    Parameters
    ----------
    home : under which the logs lie
    now : aware UTC
    """

    def __init__(self, home: Path, now: Callable[[], datetime], metrics: Metrics) -> None:
        self._home, self._now, self._metrics = home, now, metrics
        self._writers: dict[str, EventWriter] = {}

    async def answer(self, domain: Domain, body: bytes, name: str, caller: str, send: Send, refuse: Refuse) -> None:
        """Take in a body and answer.

        Parameters
        ----------
        name : the request's id
        caller : id of the API key: two senders may choose the same event id
        refuse : of the gateway: (send, status, detail, headers=…)
        """
        told = {"X-Request-ID": name}
        try:
            said = understand(body, domain.name, [source.name for source in domain.sources])
            # Nothing is opened before the first append: of two threads the one that is late has made nothing.
            folder = event_folder(self._home, domain.name)
            writer = self._writers.setdefault(domain.name, EventWriter(folder, self._now))
            await asyncio.to_thread(writer.append, f"{caller}:{said.id}" if caller else said.id, said)
        except MalformedBody as error:
            await refuse(send, 400, str(error), headers=told)
        except InvalidRequest as error:
            self._metrics.refused(422)
            await send_invalid_fields(send, error.fields, headers=told)
        except Unavailable as error:
            await refuse(send, 503, str(error), headers={**told, "Retry-After": "1"})
        else:
            content = msgspec.json.encode({"event": said.id, "domain": domain.name})
            lines = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"x-request-id", name.encode()),
            ]
            await send({"type": "http.response.start", "status": 202, "headers": lines})
            await send({"type": "http.response.body", "body": content})
