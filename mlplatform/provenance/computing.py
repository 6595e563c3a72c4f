"""What decides the bits of an answer here: interpreter, libraries, machine, locked environment.

A log keeps it beside each answer, so that one who computes the answer again knows whether the same bits can be asked
for. It names what is really loaded, not what should be: a service started from another environment says so. It judges
nothing and compares nothing.
"""

import json
import os
import platform
from functools import cache
from pathlib import Path

from mlplatform.provenance.environment import installed_versions, lock_hash

_source = Path(__file__).resolve().parents[2]

_locks = ("serving/requirements.lock", "requirements-gpu.lock", "requirements.lock")
"""Where a checkout and a Bento keep the lock file of the serving host, which is what both answer under. A Bento holds
it beside its packages, under the name that tells its device."""


@cache
def computing() -> dict[str, str]:
    """What computes in this process; constant in it. What is not there is left out.

    Returns
    -------
    facts : `python`, `xgboost`, `polars` and `numpy` (versions), `machine` (the processor's family and, since NumPy
        takes other instructions for `exp` on other processors, the widest ones it found), `libc`, and `lock` (hash of
        the serving host's lock file, or of what is installed where there is none)
    """
    versions = installed_versions(("xgboost", "xgboost-cpu", "polars", "numpy"))
    # The same library under two names, one of them without CUDA.
    without_cuda = versions.pop("xgboost-cpu", None)
    if without_cuda is not None:
        versions.setdefault("xgboost", without_cuda)
    found = {
        "python": platform.python_version(),
        **versions,
        "machine": " ".join([platform.machine(), *_instructions()]),
        "libc": _libc(),
        "lock": lock_hash(next((path for each in _locks if (path := _source / each).is_file()), None)),
    }
    return {name: fact for name, fact in found.items() if fact}


@cache
def computing_text() -> str:
    """The same as one line of JSON with sorted keys, as logs hold it."""
    return json.dumps(computing(), sort_keys=True, separators=(",", ":"))


def _instructions() -> list[str]:
    import numpy as np

    shown = np.show_config(mode="dicts")
    return [str(each) for each in shown.get("SIMD Extensions", {}).get("found", [])[-1:]]


def _libc() -> str | None:
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return None  # not a GNU system: the machine and Python say what there is to say
    return os.confstr("CS_GNU_LIBC_VERSION")
