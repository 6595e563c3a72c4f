"""The manifest: the whole serving configuration of one model version, immutable, named by its own hash.

Deploying is pointing at a digest, so whatever changes an answer stands here: the files with their hashes, the view
versions, the order of the features, the thresholds, the device. The file is YAML for people; its canonical form (sorted
keys, block style, ASCII) is what is hashed, so `sha256sum manifest.yaml` gives the digest.

It refuses to be read from anything but its canonical form: one content, one digest.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import yaml

from mlplatform.errors import BundleCorrupt
from mlplatform.provenance.record import Record

MANIFEST_FILE = "manifest.yaml"

SHORT_DIGITS = 12
"""Hexadecimal digits of the short form: 48 bits, enough to tell the bundles of one registry apart at a glance."""

RECIPE = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{4,64}")
"""A model version: as-of day and a short hash of what the model is made from."""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How many rows may be scored at once."""

    max_rows: int = 1024
    """Rows of one batch. 1,024 take about 4 ms on one core: a single request waits no longer than that."""

    queue_rows: int = 8192
    """Rows that may wait; more are turned away. Eight full batches: some 35 ms, past which answers come too late."""


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """When the model is no longer asked, and for how long."""

    failure_rate: float = 0.5
    """Share (0 to 1) of failed calls from which it opens: half of them is no accident."""

    slow_call_ms: float = 1000.0
    """A call that takes longer is slow. One second: past it a caller has given up."""

    slow_call_rate: float = 1.0
    """Share (0 to 1) of slow calls from which it opens. 1: only when nothing is quick any more."""

    window_calls: int = 100
    """Calls that are looked at: the newest ones."""

    minimum_calls: int = 20
    """Calls below which no rate is computed: one failure of two says nothing."""

    wait_seconds: float = 5.0
    """From opening to the first probe. A restarted worker is back within that."""

    probes: int = 10
    """Calls let through half-open; their rates decide."""


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """What answers when the model does not."""

    tiers: tuple[str, ...] = ("cached", "simple_model", "rules", "low_confidence")
    """In this order, until one answers."""

    budget_ms: float = 50.0
    """Time for the whole chain, milliseconds: a fallback that takes longer is an outage of its own."""

    cache_seconds: float = 300.0
    """Age up to which a cached answer of the same manifest is given again."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The serving configuration of one model version."""

    model: str
    """`domain/model`."""

    model_version: str
    """The recipe: as-of day and hash of what the model was made from, such as `2013-07-01-ab12cd34`."""

    package: str
    """Folder below `code/` whose `__init__.py` holds the DOMAIN."""

    files: Mapping[str, str]
    """Path inside the bundle -> SHA-256 of its bytes. A file that is not listed is not part of the bundle."""

    views: Mapping[str, str]
    """`owner/view` -> the version of the view that the model was trained on; it is served on no other."""

    fitted: str
    """Path of the fitted values."""

    features: tuple[str, ...]
    """The columns of the matrix, in its order."""

    task: str
    output: str
    """What `prediction` is: a class 0 or 1, the name of a class, a number and its unit."""

    decision: float | None
    """Binary: probability from which the prediction is 1."""

    decision_reason: str
    review_below: float | None
    """Confidence below which a person should look."""

    review_reason: str
    device: str
    """`cpu` or `cuda`: checked where it is served, never replaced in silence."""

    threads: int
    """Threads of one scoring call. One: a two-thread team costs a small batch 16 ms when the cores are busy."""

    objectives: Mapping[str, float]
    """Service level objectives: `p99_ms`, `rows_per_second`."""

    batching: Batching = field(default_factory=Batching)
    breaker: Breaker = field(default_factory=Breaker)
    fallback: Fallback = field(default_factory=Fallback)
    rollback_target: str | None
    """Digest of the champion when this model was promoted; the ledger overrides it. None: there was none."""

    record: Record

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain values."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def to_yaml(self) -> str:
        """The canonical form. ASCII: PyYAML writes some other characters (U+0085) so that it cannot read them back."""
        return yaml.safe_dump(
            self.to_dict(), sort_keys=True, allow_unicode=False, default_flow_style=False, width=2**31
        )

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The manifest of a canonical form.

        Raises
        ------
        BundleCorrupt
            The text is no manifest, has unknown or missing fields, or is not in canonical form.
        """
        try:
            values = yaml.safe_load(text)
            manifest = cls(
                **{
                    **values,
                    "features": tuple(values["features"]),
                    "batching": Batching(**values["batching"]),
                    "breaker": Breaker(**values["breaker"]),
                    "fallback": Fallback(**{**values["fallback"], "tiers": tuple(values["fallback"]["tiers"])}),
                    "record": Record(**values["record"]),
                }
            )
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise BundleCorrupt(MANIFEST_FILE, f"it is not a manifest of this version ({error})") from error
        if manifest.to_yaml() != text:
            raise BundleCorrupt(MANIFEST_FILE, "it is not in canonical form, so its hash names nothing")
        return manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    @property
    def short_digest(self) -> str:
        """The first twelve digits, for people, module names and tags."""
        return self.digest[:SHORT_DIGITS]


def diff(left: Manifest, right: Manifest) -> list[tuple[str, Any, Any]]:
    """What two manifests say differently.

    Returns
    -------
    differences : (path, value on the left, value on the right), sorted by path; None where a side has nothing there
    """
    before, after = dict(_leaves(left.to_dict())), dict(_leaves(right.to_dict()))
    paths = sorted(before.keys() | after.keys())
    return [(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _plain(value: Any) -> Any:
    """Tuples as lists and mappings as dicts, all the way down: what YAML's safe dialect can say."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return value
