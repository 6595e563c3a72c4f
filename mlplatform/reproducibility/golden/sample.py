"""Which logged requests become golden: few that cover much, drawn by id.

The same log gives the same requests. What a row covers is said in tags (`origin JFK`, `source rules`, `tailnum null`);
each tag gets its first row by the hash of the id, and what room is left is filled by the same order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.scoring.fallback import Answer

rules_at_most = 30
"""Different answers of the rules that are each a tag: more of them are a formula, which any rows show."""


_of_log = ("source", "arm", "degraded")


def tags_of_log(rows: pl.DataFrame, statuses: Mapping[str, pl.Series]) -> list[list[str]]:
    """What each row covers of how it was answered, which no change of code moves.

    Parameters
    ----------
    rows : (n, …) of the log `source`, `arm`, `degraded`
    statuses : by view, (n,) the status of its look-up, null where there was none
    """
    named = {name: rows[name].cast(pl.String) for name in _of_log}
    return _tagged(rows.height, named | {f"view {view}": status for view, status in statuses.items()})


def is_of_log(tag: str) -> bool:
    """Whether a tag is one that `tags_of_log` gives."""
    return tag.partition(" ")[0] in (*_of_log, "view")


def tags_of_code(domain: Domain, model: ModelSpec, rows: pl.DataFrame, rules: Sequence[Answer]) -> list[list[str]]:
    """What each row covers by what the code reads and answers.

    Parameters
    ----------
    rows : (n, …) request columns, `prediction` and `needs_review`
    rules : (n,) what they would have answered
    """
    named = {"needs_review": rows["needs_review"].cast(pl.String)}
    if model.task != "regression":
        named["prediction"] = rows["prediction"]
    for column in domain.requests.columns:
        named[column.name] = pl.Series(
            [None if each else "null" for each in rows[column.name].is_not_null()], dtype=pl.String
        )
    said = [f"{each.prediction if each.probability is None else each.probability}" for each in rules]
    if len(set(said)) <= rules_at_most:
        named["rules"] = pl.Series(said, dtype=pl.String)
    segments = {segment.name: rows[segment.column].cast(pl.String) for segment in model.segments}
    both = zip(_tagged(rows.height, named), _tagged(rows.height, segments), strict=True)
    return [list(dict.fromkeys([*each, *more])) for each, more in both]


def _tagged(height: int, named: Mapping[str, pl.Series]) -> list[list[str]]:
    return [
        [f"{name} {values[row]}" for name, values in named.items() if values[row] is not None] for row in range(height)
    ]


def chosen(ids: Sequence[str], covered: Sequence[Sequence[str]], at_most: int) -> list[int]:
    """Places of the rows that are taken, in the order of their places.

    Examples
    --------
    >>> ids = [f"r{number}" for number in range(100)]
    >>> covered = [["source model"] for _ in range(99)] + [["source rules"]]
    >>> taken = chosen(ids, covered, 5)
    >>> len(taken), taken[-1]
    (5, 99)
    """
    order = sorted(range(len(ids)), key=lambda place: blake2b(ids[place].encode(), digest_size=8).digest())
    rare = Counter(tag for each in covered for tag in each)
    first: dict[str, int] = {}
    for place in order:
        for tag in covered[place]:
            first.setdefault(tag, place)
    taken: dict[int, None] = {}
    have: set[str] = set()
    # The rare ones first: their rows cover the common ones too.
    for tag in sorted(first, key=lambda each: (rare[each], each)):
        if tag not in have and len(taken) < at_most:
            taken[first[tag]] = None
            have.update(covered[first[tag]])
    for place in order:
        if len(taken) >= at_most:
            break
        taken[place] = None
    return sorted(taken)
