"""The breaker log's end in a gateway worker: each transition of a breaker becomes a line, written by a thread.

It never waits and never fails: what cannot be written is counted, in the log.
"""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlplatform.monitoring.breaker_log import BreakerLog, BreakerTransition, breaker_folder
from mlplatform.registry.bundle import Bundle
from serving.circuit_breaker import Transition

logger = logging.getLogger(__name__)


class BreakerWriter:
    """Takes the transitions of all breakers of one process.

    Parameters
    ----------
    home : the platform's; files lie in `breaker/<domain>` below it, where the sensor finds them
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._gateway = f"{os.uname().nodename}-{os.getpid()}"
        # Breakers are on a monotonic clock; what people read is on the wall's.
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._logs: dict[str, BreakerLog] = {}
        self._lost = 0
        # Started with the first transition.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="breaker-log")

    def __call__(self, bundle: Bundle, transition: Transition) -> None:
        """Have a transition written."""
        told = BreakerTransition(
            model=bundle.manifest.model,
            model_version=bundle.manifest.model_version,
            manifest=bundle.digest,
            gateway=self._gateway,
            breaker=transition.name,
            before=transition.before,
            after=transition.after,
            reason=transition.reason,
            at=self._epoch + round(1e9 * transition.at),
        )
        self._thread.submit(self._write, bundle.domain.name, told)

    def close(self) -> None:
        """Write what there is, and leave the files."""
        self._thread.shutdown()
        for log in self._logs.values():
            log.close()

    def _write(self, domain: str, told: BreakerTransition) -> None:
        log = self._logs.get(domain)
        if log is None:
            log = self._logs[domain] = BreakerLog(breaker_folder(self._home, domain))
        try:
            log.append(told)
        except OSError as error:
            self._lost += 1
            logger.warning(
                "a transition of the breaker was not recorded (%s), %d so far. Look at the disk", error, self._lost
            )
