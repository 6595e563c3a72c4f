"""The reproducibility record: everything that one needs to make the same thing again, to the bit.

A model carries one. It holds facts, not promises: what is not known is None, never guessed. Fields that came later have
None where an older record lacks them, and are left out of what is written then: so an older manifest keeps its digest.
It makes nothing and compares nothing.
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
    """Content hash of the rows of the training set; empty where nothing was trained. What else is known of it stands in
    `training_set.json` of the bundle."""

    code: Mapping[str, str]
    """What ran (a stage, a view, `training`) -> its code version."""

    commit: str | None
    """Git commit; None outside a checkout."""

    dirty: bool | None
    """Whether the checkout, or that of the domain's package, held changes that the commit does not: then the commit
    alone gives nothing back."""

    lock: str
    """Hash of the lock file that the environment was installed from."""

    python: str
    """Version of the interpreter."""

    versions: Mapping[str, str]
    """Distribution -> installed version: this package, and every direct dependency that is there."""

    configuration: str
    """Hash of the model's settings (not of the manifest, which holds this record)."""

    seeds: Mapping[str, int]
    """What is random (`booster`, `search`, `bootstrap`) -> its seed."""

    threads: int
    device: str
    """Device class, `cpu` or `cuda`: scores of the two differ in the last bits."""

    contents: Mapping[str, str] | None = None
    """Input table -> digest of the content hashes of those revisions. The hash of each stands in `inputs.json`."""

    host: Mapping[str, str] | None = None
    """What trained it: `machine` (processor family and widest instructions), `libc`, `system`, `processor`, `cores`; on
    `cuda` also `gpu`."""

    checkouts: Mapping[str, Mapping[str, str | bool | None]] | None = None
    """`mlplatform`, and `domain` where its package lies in another repository -> `commit`, `dirty`, and where the
    changes were kept `diff`: their file in the bundle; where git could not be asked `unknown`: why, and what to do."""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values that JSON and YAML can hold; without the later fields that it lacks."""
        return {name: value for name, value in asdict(self).items() if name not in _later or value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record of `to_dict`.

        Raises
        ------
        DeclarationError
            A field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        wrong = sorted((known - _later - values.keys()) | (values.keys() - known))
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

    def lacking(self) -> list[str]:
        """Names of what a whole record says of a trained model and this one does not; empty: it is whole.

        A commit may be unknown: an installed package has none. Then the code is named by its code versions, which every
        record has, by the domain's code in the bundle, and by the version of this package, which must be there then.
        """
        libraries = ("numpy", "polars", *(() if self.commit else ("mlplatform",)))
        lacks = [
            name
            for name in ("inputs", "training_set", "lock", "python", "configuration", "seeds", "threads", "device")
            if getattr(self, name) in (None, "", {})  # zero threads are a number of threads: all there are
        ]
        lacks += [f"contents of {table}" for table in self.inputs if table not in (self.contents or {})]
        lacks += [f"version of {library}" for library in libraries if library not in self.versions]
        if not {"xgboost", "xgboost-cpu"} & self.versions.keys():
            lacks.append("version of xgboost")
        if not self.code.get("training"):
            lacks.append("code of training")
        told = ("machine", "system", "processor", "cores", *(["gpu"] if self.device == "cuda" else []))
        lacks += [f"host: {fact}" for fact in told if not (self.host or {}).get(fact)]
        if not (self.checkouts or {}).get("mlplatform"):
            lacks.append("checkouts")
        return lacks


_later = frozenset(field.name for field in fields(Record) if field.default is None)
"""Fields that older records lack."""
