"""The settings: the only reader of environment variables.

Everything works with none of them set. `silence_telemetry` also *sets* the variables by which the libraries beneath us
are told to send nothing; it is called before any of them is imported.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from mlplatform.errors import DeclarationError

telemetry_off = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""By library, the variable that keeps it silent. Dagster's real switch stands in `dagster.yaml`."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process is told from outside."""

    home: Path
    """`MLPLATFORM_HOME`: the folder of all state. Default `var` in the current folder."""

    clock: Literal["wall", "request"]
    """`MLPLATFORM_CLOCK`: `wall` (default) or `request`, under which a request's own `at` is its time. For parity tests
    and simulation only: with it a client chooses which features it sees."""

    bundle: Path | None
    """`MLPLATFORM_BUNDLE`: the bundle folder that the service serves. Default: the one inside its Bento."""

    mlflow_uri: str
    """`MLFLOW_TRACKING_URI`: where runs and models are registered. Default: SQLite under the home folder."""


def settings() -> Settings:
    """Read the environment.

    Raises
    ------
    DeclarationError
        A variable has a value that means nothing.
    """
    home = Path(os.environ.get("MLPLATFORM_HOME") or "var").absolute()
    clock = os.environ.get("MLPLATFORM_CLOCK") or "wall"
    if clock not in ("wall", "request"):
        raise DeclarationError(f"MLPLATFORM_CLOCK is {clock!r}. Set it to `wall` or `request`, or leave it unset")
    bundle = os.environ.get("MLPLATFORM_BUNDLE")
    return Settings(
        home=home,
        clock=cast(Literal["wall", "request"], clock),
        bundle=Path(bundle).absolute() if bundle else None,
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
    )


def silence_telemetry() -> None:
    """Tell every library beneath us, in this process and its children, to send nothing. A value set by hand stays."""
    for variable, value in telemetry_off.items():
        os.environ.setdefault(variable, value)


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment with `changes`, for a child process."""
    silence_telemetry()
    return {**os.environ, **changes}
