"""The reproducibility record: everything that one needs to make the same thing again, to the bit.

A model and each prediction carry one. It holds facts, not promises: what is not known is None, never guessed. It makes
nothing and compares nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from mlplatform.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Record:
    """What something was made from."""

    inputs: Mapping[str, str]
    """Input table -> digest of the revisions that were read of it."""

    training_set: str
    """Content hash of the training-set manifest; empty where nothing was trained."""

    code: Mapping[str, str]
    """What ran (a stage, a view, `training`) -> its code version."""

    commit: str | None
    """Git commit; None outside a checkout."""

    dirty: bool | None
    """Whether the checkout held changes that the commit does not: then the commit alone gives nothing back."""

    lock: str
    """Hash of the lock file that the environment was installed from."""

    python: str
    """Version of the interpreter."""

    versions: Mapping[str, str]
    """Library -> installed version."""

    configuration: str
    """Hash of the model's settings (not of the manifest, which holds this record)."""

    seeds: Mapping[str, int]
    """What is random (`booster`, `search`, `bootstrap`) -> its seed."""

    threads: int
    device: str
    """Device class, `cpu` or `cuda`: scores of the two differ in the last bits."""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values that JSON and YAML can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record of `to_dict`.

        Raises
        ------
        DeclarationError
            A field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        wrong = sorted(known.symmetric_difference(values))
        if wrong:
            raise DeclarationError(
                f"not a record of this version: {', '.join(wrong)} missing or unknown. "
                "Read it with the version that wrote it"
            )
        return cls(**values)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal records have equal digests, whatever the order of their keys."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
