"""The manifest: the whole serving configuration of one model version, immutable, named by its own hash.

Deploying is pointing at a digest, so whatever changes an answer stands here: the files with their hashes, the view
versions, the order of the features, the thresholds, the device. The file is YAML for people; its canonical form (sorted
keys, block style, ASCII) is what is hashed, so `sha256sum manifest.yaml` gives the digest.

It refuses to be read from anything but its canonical form: one content, one digest.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

import yaml

from mlplatform.domain.model import Serving
from mlplatform.errors import BundleCorrupt
from mlplatform.provenance.record import Record

MANIFEST_FILE = "manifest.yaml"

SHORT_DIGITS = 12
"""Hexadecimal digits of the short form: 48 bits, enough to tell the bundles of one registry apart at a glance."""

RECIPE = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{4,64}")
"""A model version: as-of day and a short hash of what the model is made from."""


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

    serving: Mapping[str, Any]
    """Batching, breakers, cache and fallback tiers as `ModelSpec.serving` declares them; durations in seconds."""

    rollback_target: str | None
    """Digest of the champion when this model was promoted; the ledger overrides it. None: there was none."""

    record: Record

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain values."""
        return {name: _plain(value) for name, value in asdict(self).items()} | {"record": _plain(self.record.to_dict())}

    def to_yaml(self) -> str:
        """The canonical form. ASCII: PyYAML writes some other characters (U+0085) so that it cannot read them back."""
        return self._canonical

    @cached_property
    def _canonical(self) -> str:
        # Once: to check a manifest and to hash it would take 10 ms each.
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
                    "record": Record(**values["record"]),
                }
            )
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise BundleCorrupt(MANIFEST_FILE, f"it is not a manifest of this version ({error})") from error
        if manifest.to_yaml() != text:
            raise BundleCorrupt(MANIFEST_FILE, "it is not in canonical form, so its hash names nothing")
        return manifest

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    @property
    def short_digest(self) -> str:
        """The first twelve digits, for people, module names and tags."""
        return self.digest[:SHORT_DIGITS]


def serving_settings(serving: Serving) -> dict[str, Any]:
    """What a model declares of its service, as the manifest says it."""
    settings: dict[str, Any] = _plain(asdict(serving))
    return settings


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
    """Tuples as lists, mappings as dicts, durations as seconds, all the way down: what YAML's safe dialect can say."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return value.total_seconds() if isinstance(value, timedelta) else value
