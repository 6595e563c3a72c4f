"""The settings: the only reader of environment variables.

Everything works with none of them set. `silence_telemetry` also *sets* the variables by which the libraries beneath us
are told to send nothing; it is called before any of them is imported.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast

from mlplatform.errors import DeclarationError, Unavailable

telemetry_off = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""By library, the variable that keeps it silent. Dagster's real switch stands in `dagster.yaml`."""

redis_schemes = ("redis://", "rediss://")
"""How an address of a Redis begins; the second one is TLS."""

own_variables = (
    "MLPLATFORM_ALERTS",
    "MLPLATFORM_BUNDLE",
    "MLPLATFORM_CLOCK",
    "MLPLATFORM_EVENTS",
    "MLPLATFORM_FLAGS",
    "MLPLATFORM_GATEWAY_WORKERS",
    "MLPLATFORM_HOME",
    "MLPLATFORM_KEYS",
    "MLPLATFORM_LANDING",
    "MLPLATFORM_ONLINE_STORE",
    "MLPLATFORM_RATE_LIMITS",
    "MLPLATFORM_TABLES",
    "MLPLATFORM_UI",
)
"""Every variable of ours that this module reads."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process is told from outside."""

    home: Path
    """`MLPLATFORM_HOME`: the folder of all state. Default `var` in the current folder."""

    clock: Literal["wall", "request"]
    """`MLPLATFORM_CLOCK`: `wall` (default) or `request`, under which a request's own `at` is its time. For parity tests
    and simulation only: with it a client chooses which features it sees."""

    events: str | None = field(repr=False)
    """`MLPLATFORM_EVENTS`: `redis://[:password@]host:port[/db]` (`rediss://` with TLS), whose streams
    `mlplatform:events:<domain>` tell of new data. Default: none; gateways take events in any case."""

    bundle: Path | None
    """`MLPLATFORM_BUNDLE`: the bundle folder that the service serves. Default: the one inside its Bento."""

    mlflow_uri: str
    """`MLFLOW_TRACKING_URI`: where runs and models are registered. Default: SQLite under the home folder."""

    tables: str
    """`MLPLATFORM_TABLES`: where the Delta tables lie, the ledger among them; a folder, or an address such as
    `s3://bucket/prefix`. Default: the home folder. Another place holds other tables: move them before it is set."""

    landings: str
    """`MLPLATFORM_LANDING`: where sources land that declare no place of their own, each in `<domain>/<source>`; a
    folder, or an address such as `s3://bucket/prefix`. Default: `landing` in the home folder."""

    online_store: str = field(repr=False)
    """`MLPLATFORM_ONLINE_STORE`: where the newest feature values are served from: `lmdb` (default; `online` in the home
    folder, for the processes of this machine), or `redis://[:password@]host:port[/db]` (`rediss://` with TLS), for
    gateways on several. The same for pipeline and gateways; another one is filled by the next run."""

    gateway_workers: int
    """`MLPLATFORM_GATEWAY_WORKERS`: processes that answer HTTP. Default 2: one may die while the other answers."""

    keys: Literal["auto", "off", "required"]
    """`MLPLATFORM_KEYS`: `off` or `required`. Default `auto`: requests must bring an API key where the service listens
    on an address that is not this machine's own. Behind a proxy on the same machine, say `required`."""

    rate_limits: str = field(repr=False)
    """`MLPLATFORM_RATE_LIMITS`: where the requests of each key are counted: `memory` (default; each gateway worker lets
    its share pass), or `redis://[:password@]host:port[/db]` (`rediss://` with TLS), exact over workers and machines."""

    s3_endpoint: str | None
    """`AWS_ENDPOINT_URL`: an S3 other than Amazon's. It and the credentials (`AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, a profile, a role …) are read by the AWS libraries beneath us."""

    s3_region: str | None
    """`AWS_REGION`: the region of the buckets. Default: what the AWS libraries find."""

    traces: bool
    """`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`: where the spans of requests are sent.
    Default: nowhere. Address, headers, sampling and all else of OpenTelemetry are read by its library beneath us."""

    alerts: Path | None = field(default=None, repr=False)
    """`MLPLATFORM_ALERTS`: the Apprise configuration through which alerts leave, text or YAML; the tags in it are those
    that domains name. Its addresses are secrets. Default: alerts are kept and shown, and nothing is sent."""

    flags: str = ""
    """`MLPLATFORM_FLAGS`: where a service takes its plan from that shares no home folder with the platform:
    `flagd://host:port` (`flagds://` with TLS), `file:PATH`, or `package.module:function`, which gives an OpenFeature
    provider. Default: the plan file in its home folder is written by the platform."""

    ui: str = ""
    """`MLPLATFORM_UI`: where people reach the Dagster UI, such as `http://host:3000`; alerts link to it. Default: they
    name the page only."""

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What Delta tables on S3 must be told beside the `AWS_` variables: that an endpoint without TLS is meant."""
        return {"aws_allow_http": "true"} if (self.s3_endpoint or "").startswith("http://") else None


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
    keys = os.environ.get("MLPLATFORM_KEYS") or "auto"
    if keys not in ("auto", "off", "required"):
        raise DeclarationError(f"MLPLATFORM_KEYS is {keys!r}. Set it to `off` or `required`, or leave it unset")
    rate_limits = os.environ.get("MLPLATFORM_RATE_LIMITS") or "memory"
    if rate_limits != "memory" and not rate_limits.startswith(redis_schemes):
        # The value is not shown: it may hold a password.
        raise DeclarationError(
            "MLPLATFORM_RATE_LIMITS is no place to count in. Set it to `memory` or redis://host:port"
        )
    online_store = os.environ.get("MLPLATFORM_ONLINE_STORE") or "lmdb"
    if online_store != "lmdb" and not online_store.startswith(redis_schemes):
        raise DeclarationError("MLPLATFORM_ONLINE_STORE is no online store. Set it to `lmdb` or redis://host:port")
    events = os.environ.get("MLPLATFORM_EVENTS") or None
    if events is not None and not events.startswith(("redis://", "rediss://")):
        raise DeclarationError("MLPLATFORM_EVENTS is no Redis. Set it to redis://host:port, or leave it unset")
    bundle = os.environ.get("MLPLATFORM_BUNDLE")
    alerts = os.environ.get("MLPLATFORM_ALERTS")
    return Settings(
        home=home,
        clock=cast(Literal["wall", "request"], clock),
        events=events,
        bundle=Path(bundle).absolute() if bundle else None,
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        tables=_place("MLPLATFORM_TABLES", os.environ.get("MLPLATFORM_TABLES"), home),
        landings=_place("MLPLATFORM_LANDING", os.environ.get("MLPLATFORM_LANDING"), home / "landing"),
        online_store=str(home / "online") if online_store == "lmdb" else online_store,
        gateway_workers=_number("MLPLATFORM_GATEWAY_WORKERS", os.environ.get("MLPLATFORM_GATEWAY_WORKERS"), 2),
        keys=cast(Literal["auto", "off", "required"], keys),
        rate_limits=rate_limits,
        s3_endpoint=os.environ.get("AWS_ENDPOINT_URL") or None,
        s3_region=os.environ.get("AWS_REGION") or None,
        traces=_traces(),
        alerts=Path(alerts).absolute() if alerts else None,
        flags=os.environ.get("MLPLATFORM_FLAGS") or "",
        ui=(os.environ.get("MLPLATFORM_UI") or "").rstrip("/"),
    )


def database_url(variable: str) -> str:
    """The URL of a database, from the variable that a source declares.

    Raises
    ------
    Unavailable
        The variable is not set.
    """
    told = os.environ.get(variable)
    if not told:
        raise Unavailable(f"{variable} is not set. Set it to the URL of the database, as SQLAlchemy writes it")
    return told


def _traces() -> bool:
    """Whether an endpoint is set, and OpenTelemetry's own switches do not say no."""
    told = {name: os.environ.get(f"OTEL_{name}", "").strip().lower() for name in ("SDK_DISABLED", "TRACES_EXPORTER")}
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = told["SDK_DISABLED"] == "true" or told["TRACES_EXPORTER"] == "none"
    return not off and any(os.environ.get(name) for name in endpoints)


def _number(variable: str, told: str | None, default: int) -> int:
    if not told:
        return default
    if not told.isascii() or not told.isdigit() or not 1 <= int(told) <= 64:
        raise DeclarationError(f"{variable} is {told!r}. Set it to a whole number from 1 to 64, or leave it unset")
    return int(told)


def _place(variable: str, told: str | None, default: Path) -> str:
    """A folder, absolute, or the address of one on S3, without a slash at its end."""
    if told is None or told == "":
        return str(default)
    if "://" not in told and not told.startswith("s3:"):
        return str(Path(told).absolute())
    if not told.removeprefix("s3://").strip("/") or not told.startswith("s3://"):
        raise DeclarationError(f"{variable} is {told!r}. Set it to a folder or to s3://bucket/prefix")
    return told.rstrip("/")


def silence_telemetry() -> None:
    """Tell every library beneath us, in this process and its children, to send nothing. A value set by hand stays."""
    for variable, value in telemetry_off.items():
        os.environ.setdefault(variable, value)


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment with `changes`, for a child process."""
    silence_telemetry()
    return {**os.environ, **changes}


def unknown_variables() -> dict[str, str]:
    """Variables that begin like ours and that nothing reads -> the one that was probably meant, or empty."""
    unknown = sorted(name for name in os.environ if name.startswith("MLPLATFORM_") and name not in own_variables)
    return {name: next(iter(get_close_matches(name, own_variables, n=1)), "") for name in unknown}


def telemetry_set_otherwise() -> Mapping[str, str]:
    """Variables of `telemetry_off` that somebody has set to something else, and to what."""
    told = {name: os.environ.get(name, value) for name, value in telemetry_off.items()}
    yes = ("1", "true", "yes")
    return {name: value for name, value in told.items() if (value.lower() in yes) != (telemetry_off[name] != "false")}


def dagster_home() -> Path | None:
    """`DAGSTER_HOME` of this shell. The platform's own commands and servers set it themselves, to `<home>/dagster`."""
    told = os.environ.get("DAGSTER_HOME", "")
    return Path(told).absolute() if told else None


@contextmanager
def local_zone(name: str) -> Iterator[None]:
    """This process as on a machine in another time zone (`TZ`), and back; for the checks of a domain."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
