"""Integrity: whether the file of a revision still is what was written.

The name of a file tells the hash of its bytes, and the log of a table tells the name: one bit turned over shows, and
nothing is read of a damaged file, which can end a process. The log tells the content hash and the provenance of each
revision too, and the file holds both beside its rows; where they disagree, the log was altered. Files of before have no
hash in their name: their rows are hashed anew.

A revision that was removed by policy has no rows, and says so in the listing.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from mlplatform.errors import DeclarationError
from mlplatform.features.revision import Revision
from mlplatform.features.revision_files import (
    hash_of_bytes,
    partition_columns,
    promised_bytes,
    provenance_columns,
)
from mlplatform.features.stage import Stage
from mlplatform.provenance.content_hash import content_hash

unreadable = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What reading a file raises that is gone or damaged. Polars panics over some damage, which is no `Exception`."""

revisions_remembered = 100_000
"""Of which a process knows that they are whole: the views of some years."""

_files_at_once = 8
"""An object store answers in 20 ms, whatever it is asked beside."""

_whole: dict[tuple[str, Revision, object], None] = {}


def altered(stage: Stage, revisions: Iterable[Revision]) -> dict[tuple[str, int], str]:
    """What is wrong with the files of some revisions of a table; nothing where all are what was written, or removed.

    A file that was found whole is not read again by this process, unless its time or size is another.

    Parameters
    ----------
    revisions : as the table lists them

    Returns
    -------
    faults : partition and number -> what is wrong, with the name of the file
    """
    held = [revision for revision in revisions if not revision.removed]
    known = [(stage.uri, revision, _stamp(stage.address(revision))) for revision in held]
    unknown = [each for each in known if each not in _whole]
    if not unknown:
        return {}
    faults = {}
    with ThreadPoolExecutor(_files_at_once) as pool:
        found = pool.map(lambda each: _fault(stage, each[1]), unknown)
        for each, fault in zip(unknown, found, strict=True):
            if fault:
                faults[each[1].partition, each[1].number] = fault
                continue
            while len(_whole) >= revisions_remembered:
                del _whole[next(iter(_whole))]
            _whole[each] = None
    return faults


def _fault(stage: Stage, revision: Revision) -> str:
    """What is wrong with one; empty where nothing is."""
    file, promised = stage.address(revision), promised_bytes(revision.path)
    try:
        if promised and hash_of_bytes(stage.content(revision)) != promised:
            return f"the file {file} holds other bytes than were written"
        held = stage.file(revision)
        rows = held.drop([*provenance_columns, *partition_columns], strict=False)
        found = content_hash(rows)
    except FileNotFoundError:
        return f"the file {file} is gone"
    except (*unreadable, DeclarationError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        return f"the file {file} cannot be read ({told[:200]})"
    if held.height != revision.rows:
        return f"the file {file} holds {held.height} rows, the log of its table says {revision.rows}"
    if found != revision.content_hash:
        if promised or (held.height and _said(held, "_content_hash") == found):
            return (
                f"the log of {stage.name} says that {file} has the content {revision.content_hash}, but what was "
                f"written has {found}: the log was altered"
            )
        return f"the file {file} holds other content ({found}) than was written ({revision.content_hash})"
    of_log = {
        "_content_hash": found,
        "_known_at": revision.known_at,
        "_code_version": revision.code_version,
        "_environment": revision.environment,
        "_inputs": json.dumps(revision.inputs),
        "_run_id": revision.run_id,
        "_partition": revision.partition,
        "_revision": revision.number,
    }
    for name, value in of_log.items() if held.height else ():
        if (said := _said(held, name)) != value:
            told = f"the file {file} says {name[1:]} {said} of itself, the log of {stage.name} says {value}"
            return f"{told}: the log was altered" if promised else told
    return ""


def _said(held: pl.DataFrame, name: str) -> object:
    """What a file says of its revision; None where its rows do not agree, or say nothing."""
    said = held.get_column(name).unique() if name in held.columns else pl.Series([])
    return said[0] if len(said) == 1 else None


def _stamp(address: str) -> object:
    """Tells a file of this machine that was touched since; of an object store nothing is asked."""
    try:
        found = Path(address).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
