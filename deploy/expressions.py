"""Expressions over the metrics that gateways export, made from the declarations in `serving.metrics`.

A name, a label or a state that the code does not have is an error when the files are made, not a rule that never fires.
"""

from serving.metrics import BREAKER_STATES, FAMILIES, PHASES, Family
from serving.refusals import KINDS

_families = {family.name: family for family in FAMILIES}
_values = {"state": BREAKER_STATES, "phase": PHASES, "rule": KINDS}

SERVICE = "job, instance"
"""What tells services apart: one model is served by one instance, whatever number of gateway workers it has."""


def series(name: str, where: str = "", *, bucket: bool = False, **labels: str) -> str:
    """A selector, by the family's name in `FAMILIES` and without what Prometheus hangs on it.

    Parameters
    ----------
    where : matchers on labels that Prometheus adds, such as `instance=~"$instance"`
    bucket : of a histogram: its buckets instead of its count
    labels : label -> matcher with its operator, such as `!="model"`

    Raises
    ------
    ValueError
        There is no such family, label or value.

    Examples
    --------
    >>> series("mlplatform_predictions", source='!="model"')
    'mlplatform_predictions_total{source!="model"}'
    >>> series("mlplatform_request_seconds")
    'mlplatform_request_seconds_count'
    """
    family = _families.get(name)
    if family is None:
        raise ValueError(f"serving.metrics has no {name}; there is {', '.join(_families)}")
    for label, matcher in labels.items():
        if label not in family.labels:
            raise ValueError(f"{name} has no label {label}; it has {', '.join(family.labels) or 'none'}")
        told = matcher.lstrip("=!~").strip('"').split("|")
        if unknown := [each for each in told if label in _values and each not in _values[label]]:
            raise ValueError(f"{label} is never {', '.join(unknown)}; it is one of {', '.join(_values[label])}")
    matchers = ", ".join([*(f"{label}{matcher}" for label, matcher in labels.items()), *filter(None, [where])])
    return _shown(family, bucket=bucket) + (f"{{{matchers}}}" if matchers else "")


def _shown(family: Family, *, bucket: bool) -> str:
    if family.kind == "histogram":
        return f"{family.name}_{'bucket' if bucket else 'count'}"
    return f"{family.name}_total" if family.kind == "counter" else family.name


def per_second(selector: str, window: str, by: str = SERVICE) -> str:
    """Events per second, summed."""
    return f"sum by ({by}) (rate({selector}[{window}]))"


def all_requests(answered: str, refused: str, window: str) -> str:
    """Requests per second, whether they were answered or not; a counter of refusals is there from the first one on."""
    asked = per_second(answered, window)
    return f"({asked} + ({per_second(refused, window)} or {asked} * 0))"


def quantile(share: float, buckets: str, window: str, by: str = SERVICE) -> str:
    """A quantile of a histogram, from the selector of its buckets."""
    kept = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) (rate({buckets}[{window}])))"
