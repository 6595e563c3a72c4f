"""`Platform`: the folder of all state, the clock and the environment, handed to whatever needs them.

One object instead of globals, so that a test gives another folder and another time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlplatform.errors import Unavailable
from mlplatform.provenance.checkout import Checkout, checkout_of
from mlplatform.provenance.environment import lock_hash


def wall_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def no_s3() -> Any:
    """Refuse: who opened the platform gave no S3 client.

    Raises
    ------
    Unavailable
        Always.
    """
    raise Unavailable("this platform was opened without S3. Open it with `platform_from_settings`, or give it a client")


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Where state lies, what time it is, and which environment computes; `platform_from_settings` makes one."""

    home: Path
    clock: Callable[[], datetime] = wall_clock
    environment: str = field(default_factory=lock_hash)
    """Hash of the lock file: two revisions of one partition may differ only where this, the code or the inputs do."""

    mlflow_uri: str = ""
    """Empty: SQLite under the home folder."""

    tables: str = ""
    """Folder or S3 address under which the Delta tables lie. Empty: the home folder. What must be next to the process
    that reads it stays there: bundles, the online store on LMDB, training sets, locks."""

    landings: str = ""
    """Folder or S3 address under which sources land. Empty: `landing` in the home folder."""

    online_store: str = field(default="", repr=False)
    """Folder of the online store on LMDB, or `redis://…`, which may hold a password. Empty: `online` in the home
    folder."""

    storage_options: Mapping[str, str] | None = None
    """For tables on S3, beside the `AWS_` variables."""

    s3: Callable[[], Any] = no_s3
    """Gives the S3 client; called by those who need it only."""

    checkout: Callable[[Path], Checkout] = checkout_of
    """Gives the checkout that holds a folder; called where a model is trained or made again: git takes 20 ms."""

    def __post_init__(self) -> None:
        for name, default in {
            "mlflow_uri": f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}",
            "tables": str(self.home),
            "landings": str(self.home / "landing"),
            "online_store": str(self.home / "online"),
        }.items():
            if not getattr(self, name):
                object.__setattr__(self, name, default)

    def table(self, domain: str, stage: str, table: str) -> str:
        """URI of a Delta table."""
        return "/".join([self.tables, "tables", domain, *filter(None, [stage, table])])

    @property
    def ledger(self) -> str:
        """URI of the ledger's Delta table."""
        return f"{self.tables}/ledger"

    def landing(self, domain: str) -> Path:
        """Folder in which a domain's sources land their files, where they land in folders."""
        return Path(self.landings) / domain

    @property
    def bundles(self) -> Path:
        """Folder of all bundles, by manifest digest."""
        return self.home / "bundles"

    def training(self, domain: str, model: str, recipe: str) -> Path:
        """Folder of what one recipe made: training set, evaluation, decision."""
        return self.home / "training" / domain / model / recipe
