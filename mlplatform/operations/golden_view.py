"""The answers of `mlplatform golden`, for people and for scripts."""

from collections.abc import Sequence
from functools import partial

import msgspec
from rich.console import Console

from mlplatform.domains.registered import registered_domain
from mlplatform.reproducibility.golden.check import Checked, check
from mlplatform.reproducibility.golden.golden import Golden
from mlplatform.reproducibility.golden.record import Recorded

changes_shown = 3
"""Of what was moved on purpose, the newest; `changes.json` has all."""

rows_shown = 10
"""Requests that are named on a terminal; `--json` has all."""


def checked(folder: Golden) -> Checked:
    """A stored folder beside the domain as it is registered."""
    return check(folder, registered_domain(folder.domain))


def as_json(found: Sequence[Checked]) -> str:
    """For scripts."""
    told = [
        {
            **msgspec.to_builtins(each),
            "rows_moved": each.rows_moved,
            "rows_answered_otherwise": each.rows_answered_otherwise,
            "largest_difference": each.largest,
            "summary": each.summary(),
        }
        for each in found
    ]
    return msgspec.json.format(msgspec.json.encode(told), indent=1).decode()


def show(found: Sequence[Checked], console: Console) -> None:
    """For people."""
    plain = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    for each in found:
        of = f"{each.folder}: {each.model} {each.manifest[:12]}"
        for note in each.notes:
            plain(f"  {note}")
        for change in each.changes[-changes_shown:]:
            plain(f"  moved on purpose on {change.at[:10]} by {change.by}: {change.reason}")
        if not each.moved:
            plain(f"{of}: all {each.rows} requests are answered as they were")
            continue
        plain(f"{of}: {_headline(each)}", style="red")
        for line in each.summary():
            plain(f"  {line}")
        named = list(dict.fromkeys(moved.request_id for moved in each.moved if moved.request_id))
        if named:
            plain(f"  requests: {', '.join(named[:rows_shown])}" + ("" if len(named) <= rows_shown else ", …"))
        plain(
            f"  If that is meant, say so: `mlplatform golden record {each.model} --again --into {each.folder} --reason "
            "TEXT`, and commit it with the code. If not, mend the code"
        )


def _headline(found: Checked) -> str:
    inputs = found.rows_moved - found.rows_answered_otherwise
    if found.rows_answered_otherwise:
        by = f", by up to {found.largest:.3g}" if found.largest else ""
        more = f"; of {inputs} more an input moved and no answer" if inputs else ""
        return f"{found.rows_answered_otherwise} of {found.rows} requests are answered otherwise{by}{more}"
    if inputs:
        return f"an input of {inputs} of {found.rows} requests moved, and no answer did"
    return f"all {found.rows} requests are answered as they were, but what is held beside them moved"


def show_recorded(recorded: Recorded, console: Console) -> None:
    """For people."""
    plain = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    golden, told = recorded.golden, recorded.golden.told
    if recorded.unmoved:
        plain(f"{golden.folder}: nothing has moved, and nothing was written")
        return
    size = sum(path.stat().st_size for path in golden.folder.rglob("*") if path.is_file())
    plain(f"{golden.folder}: {told.rows} requests of {told.model} {told.manifest[:12]}, {size / 1000:.0f} kB")
    plain(f"  {told.as_logged} of them are answered as it was logged, to the bit")
    if told.trees is not None:
        plain(f"  with all of the booster, that is: its first {told.trees} rounds are stored, and answer from now on")
    plain(f"  they cover {', '.join(f'{tag} ({rows})' for tag, rows in told.covered.items())}")
    if recorded.left_out:
        plain(f"  {recorded.left_out} logged requests were left out: the tables do not give the vector that was logged")
    for line in recorded.change.moved if recorded.change else ():
        plain(f"  moved: {line}")
