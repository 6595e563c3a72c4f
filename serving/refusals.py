"""What refused requests broke, counted: by field and by kind of rule, with names that nobody outside can choose.

The reasons that callers read name values and limits; a figure needs few words. A field that the domain does not declare
is `undeclared`, whatever it is called: who sends nonsense must not fill `/metrics` with it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from mlplatform.domain.domain import Requests

KINDS = ("missing", "null", "type", "range", "value", "pattern", "form", "row_rule", "undeclared")
"""Kinds of rules. `value`: none of those that are allowed; `form`: text or time that is written otherwise."""

_kinds = (
    ("undeclared", re.compile(r"is no field of a request$")),
    ("missing", re.compile(r"is missing$")),
    ("null", re.compile(r"must not be null$")),
    ("type", re.compile(r"expected ")),
    ("value", re.compile(r".* is not one of ", re.DOTALL)),
    ("pattern", re.compile(r".* does not match ", re.DOTALL)),
    ("range", re.compile(r"\S+ is (below|above) the |is beyond |must not be NaN|beyond ")),
)
_row = re.compile(r"rows\[\d+\]\.")


def faults(refused: Iterable[Mapping[str, str]], requests: Requests) -> Counter[tuple[str, str]]:
    """How often each field broke each kind of rule.

    Parameters
    ----------
    refused : of each refused request or row, its fields at fault and why, as callers are told
    requests : what the domain declares

    Examples
    --------
    >>> from mlplatform.domains.synthetic import DOMAIN
    >>> faults([{"district": "is missing", "colour": "is no field of a request"}], DOMAIN.requests)
    Counter({('district', 'missing'): 1, ('undeclared', 'undeclared'): 1})
    """
    columns = {column.name for column in requests.columns} | {"at"}
    rules = {rule.name for rule in requests.rules}
    told: Counter[tuple[str, str]] = Counter()
    for fields in refused:
        for name, reason in fields.items():
            field = _row.sub("", name, count=1)
            kind = next((kind for kind, pattern in _kinds if pattern.match(reason)), "form")
            if field in columns and kind != "undeclared":
                told[field, kind] += 1
            elif field in rules:
                told[field, "row_rule"] += 1
            elif kind == "undeclared":
                told["undeclared", "undeclared"] += 1
            else:
                told["request", "form"] += 1
    return told
