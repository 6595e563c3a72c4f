"""The file that a plan lies in: written whole, and watched by every process of a service.

The ledger is the truth, and lies in Delta Lake; this file repeats its last word where a service can read it without
Delta Lake (`pointing` writes it). It is replaced as a whole, so a reader sees the old plan or the new one.

What it refuses: to let go of a plan. Whoever watches keeps the last good one, whatever becomes of the file, and says
what is wrong with it.
"""

import os
from contextlib import suppress
from pathlib import Path

from mlplatform.errors import PlanInvalid
from mlplatform.provenance.files import write_whole
from mlplatform.rollout.plan import Plan, from_file, to_file

LARGEST = 1 << 20
"""Bytes of a plan file that are read: ours have less than a thousand."""


def plan_path(home: Path, model: str) -> Path:
    """Where the plan of `domain/model` lies."""
    return home / "serving" / f"{model}.json"


def write_plan(home: Path, plan: Plan) -> bool:
    """Replace the file of a plan's model, where it says anything else; gives whether it did.

    Whoever derives the plan from something that others change holds a lock around both, as `pointing.point` does.
    """
    path, content = plan_path(home, plan.model), to_file(plan)
    # One that is not there, or is no file, is replaced.
    with suppress(OSError):
        if _read(path) == content:
            return False
    write_whole(path, content)
    return True


class WatchedPlan:
    """The plan of a model as its file says, looked at again and again.

    Parameters
    ----------
    path : of the file; it need not be there yet
    model : `domain/model`
    """

    def __init__(self, path: Path, model: str) -> None:
        self.plan: Plan | None = None
        """The last good one; None: there has not been any."""
        self.fault = ""
        """Why the file is not gone by; empty where it is, or where there has not been any."""
        self._path = path
        self._model = model
        self._seen: tuple[int, ...] | None = None
        """What the file looked like when it was read; None: it is read anew."""

    def look(self) -> bool:
        """Read the file if it is another one than last time; whether the plan changed. Raises nothing."""
        try:
            # Before it is read: what is written meanwhile looks different the next time.
            found = self._path.stat()
            seen = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return False
            plan = from_file(_read(self._path), self._model)
        except FileNotFoundError:
            self._seen = None
            self.fault = f"{self._path} is gone. The last good plan is in force" if self.plan else ""
            return False
        except OSError as error:
            self._seen = None
            self.fault = f"{self._path} cannot be read ({error}). The last good plan is in force"
            return False
        except PlanInvalid as error:
            self._seen, self.fault = seen, str(error)
            return False
        self._seen, self.fault = seen, ""
        if plan == self.plan:
            return False
        self.plan = plan
        return True


def _read(path: Path) -> bytes:
    """What a file holds; a pipe is not waited for, and no disk's worth is loaded."""
    # Opened by `open` itself, which closes again what turns out to be a folder: this is asked five times a second.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        return file.read(LARGEST) or b""
