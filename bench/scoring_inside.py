"""Our gateway worker with the scoring inside it: what a batch's way to another process costs, and what it buys.

`python -m bench.scoring_inside --bundle FOLDER --folder FOLDER --port PORT`. Everything else is as it is served; but a
booster that crashes here takes the gateway with it, and a slow batch keeps every request waiting.
"""

import argparse
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlplatform.registry.bundle import load_bundle
from mlplatform.scoring.booster import Matrix, PreparedBooster
from serving import gateway_worker, live_model
from serving.roster import Roster, Version, write_roster
from serving.worker_connections import Scored


class ScoringInside:
    """In the place of `ModelWorkers`: its sockets name the bundle."""

    connected = 1

    def __init__(self, sockets: list[Path], **_: Any) -> None:
        self._bundle = load_bundle(sockets[0])
        self._booster = PreparedBooster(self._bundle.booster)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to leave."""

    async def score_timed(self, matrix: Matrix, *, deadline: float) -> Scored:
        """Scores, at once."""
        del deadline
        began = time.monotonic()
        scores = self._bundle.calibration.apply(self._booster.raw_scores(matrix))
        return Scored(scores, time.monotonic() - began)


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bundle", type=Path, required=True)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--port", type=int, required=True)
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bundle = str(given.bundle)
    version = Version(digest=given.bundle.name, bundle=bundle, sockets=(bundle,), since=datetime.now(UTC).isoformat())
    write_roster(given.folder, Roster(live=version))
    setattr(live_model, "ModelWorkers", ScoringInside)  # noqa: B010 - the one seam that this comparison needs
    listening = socket.create_server(("127.0.0.1", given.port), backlog=2048)
    descriptor = str(listening.detach())
    sys.argv[1:] = ["--listening", descriptor, "--folder", str(given.folder), "--number", "0", "--of", "1"]
    gateway_worker.main()


if __name__ == "__main__":
    main()
