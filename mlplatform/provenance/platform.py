"""`Platform`: the folder of all state, the clock and the environment, handed to whatever needs them.

One object instead of globals, so that a test gives another folder and another time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlplatform.provenance.environment import lock_hash
from mlplatform.settings import settings


def wall_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Where state lies, what time it is, and which environment computes."""

    home: Path
    clock: Callable[[], datetime] = wall_clock
    environment: str = field(default_factory=lock_hash)
    """Hash of the lock file: two revisions of one partition may differ only where this, the code or the inputs do."""

    mlflow_uri: str = ""
    """Empty: SQLite under the home folder."""

    def __post_init__(self) -> None:
        if not self.mlflow_uri:
            object.__setattr__(self, "mlflow_uri", f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}")

    @classmethod
    def from_settings(cls) -> "Platform":
        """The platform that the environment variables describe."""
        told = settings()
        return cls(home=told.home, mlflow_uri=told.mlflow_uri)

    def table(self, domain: str, stage: str, table: str) -> str:
        """URI of a Delta table."""
        return str(self.home / "tables" / domain / stage / table)

    def landing(self, domain: str) -> Path:
        """Folder in which a domain's sources land their files."""
        return self.home / "landing" / domain

    @property
    def bundles(self) -> Path:
        """Folder of all bundles, by manifest digest."""
        return self.home / "bundles"

    @property
    def online(self) -> Path:
        """Folder of the online snapshots."""
        return self.home / "online"

    def training(self, domain: str, model: str, recipe: str) -> Path:
        """Folder of what one recipe made: training set, evaluation, decision."""
        return self.home / "training" / domain / model / recipe
