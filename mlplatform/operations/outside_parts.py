"""What a platform leans on: Dagster's instance and daemon, MLflow, tables, landing places, and what serves."""

import http
import os
import re
import socket
import sqlite3
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlplatform import settings
from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.domain.source import Folder, Source
from mlplatform.features.landing.landing import landed, place_of
from mlplatform.features.online.store import open_online_store
from mlplatform.features.streaming.progress import stream_status, streamed_views
from mlplatform.features.tables import Tables, stages
from mlplatform.operations.finding import Check, Said, broken, ok, warning
from mlplatform.operations.installation import folder_that_keeps_files
from mlplatform.operations.jobs import dagster_instance
from mlplatform.operations.status import human
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bento import bento_home, bento_tag
from mlplatform.registry.bundle import load_bundle
from mlplatform.registry.ledger import Ledger
from mlplatform.scoring.booster import check_device

sqlite = "sqlite:///"

answer_seconds = 5.0

silent_after = timedelta(minutes=1)
"""A stream that runs tells every ten seconds that it does."""

long_ago = timedelta(hours=1)
"""A process that was to be restarted is back by then; what is still away after it was forgotten."""

start_daemon = (
    "start `dagster-webserver` and `dagster-daemon run` with DAGSTER_HOME set to that folder, or `mlplatform demo`"
)


def platform_checks(platform: Platform) -> list[Check]:
    """Checks of what all domains share."""
    instance = platform.home / "dagster"
    return [
        Check(
            part="dagster",
            looked_at=str(instance),
            look=lambda: _instance(platform),
            mend="start the database that `storage` in dagster.yaml names, or correct it there. A damaged SQLite file: "
            "restore it, or move the folder away and lose the history of runs; tables, models and ledger are not in it",
        ),
        Check(part="daemon", looked_at=str(instance), look=lambda: _daemon(platform), mend="mend `dagster` first"),
        Check(
            part="mlflow",
            looked_at=without_secrets(platform.mlflow_uri),
            look=lambda: _mlflow(platform.mlflow_uri),
            mend="start the server, or correct MLFLOW_TRACKING_URI. A damaged SQLite file: restore it or move it away; "
            "what serves is decided by the ledger, not by it",
        ),
        Check(
            part="store",
            looked_at=platform.tables,
            look=lambda: _store(platform),
            mend="correct MLPLATFORM_TABLES, AWS_ENDPOINT_URL, AWS_REGION or the credentials, or make the bucket",
        ),
        Check(
            part="ledger",
            looked_at=platform.ledger,
            look=lambda: _ledger(platform),
            mend="restore that folder from a backup: it alone says which model serves",
        ),
    ]


def domain_checks(platform: Platform, domain: Domain) -> Iterator[Check]:
    """Checks of one domain: its tables, its landing places, what the online store holds, each model."""
    name = domain.name
    yield Check(
        part=f"tables {name}",
        looked_at=platform.table(name, "", ""),
        look=lambda: _tables(platform, domain),
        mend="restore the table that is named from a backup; nothing may write into that folder but the platform",
    )
    for source in domain.sources:
        yield Check(
            part=f"landing {name}/{source.name}",
            looked_at=without_secrets(str(place_of(platform, domain, source))),
            look=_landing(platform, domain, source),
            mend="make the place of the source readable from here",
        )
    yield Check(
        part=f"online {name}",
        looked_at=without_secrets(platform.online_store),
        look=lambda: _online(platform, domain),
        mend="start that Redis, or correct MLPLATFORM_ONLINE_STORE"
        if platform.online_store.startswith(settings.redis_schemes)
        else f"remove that folder and run `mlplatform backfill {name}`, which publishes the features again",
    )
    if streamed_views(domain):
        yield Check(
            part=f"stream {name}",
            looked_at=", ".join(streamed_views(domain)),
            look=lambda: _stream(platform, domain),
            mend="make the home folder readable and writable for this user",
        )
    for model in domain.models:
        yield Check(
            part=f"champion {name}/{model.name}",
            looked_at=str(platform.bundles),
            look=_champion(platform, domain, model),
            mend=f"restore the bundle from a backup, or run `mlplatform train {name}/{model.name}`",
        )
        if model.settings.device != "cpu":
            yield Check(
                part=f"device {name}/{model.name}",
                looked_at=model.settings.device,
                look=_device(model),
                mend="run on a machine with the device, or declare `device='cpu'` and train again",
            )


def without_secrets(uri: str) -> str:
    """An address without user and password.

    Examples
    --------
    >>> without_secrets("postgresql://me:secret@host/runs")
    'postgresql://…@host/runs'
    """
    return re.sub(r"//[^/]*@", "//…@", uri)


def _instance(platform: Platform) -> Said:
    told = settings.dagster_home()
    if not (platform.home / "dagster" / "dagster.yaml").exists():
        return ok("not made yet; the first run makes it")
    with dagster_instance(platform) as instance:
        count = instance.get_runs_count()
        storage = type(instance.run_storage).__name__
    if told is not None and told != platform.home / "dagster":
        return warning(
            f"{count} runs in {storage}; but DAGSTER_HOME of this shell is {told}",
            "unset it: Dagster's own commands would show another instance than the platform writes to",
        )
    return ok(f"{count} runs in {storage}")


def _daemon(platform: Platform) -> Said:
    if not (platform.home / "dagster" / "dagster.yaml").exists():
        return ok("not needed before the first run")
    with dagster_instance(platform) as instance:
        needed = {name: each.healthy for name, each in instance.get_daemon_statuses().items()}
    silent = sorted(name for name, healthy in needed.items() if not healthy)
    if len(silent) == len(needed):
        return warning("no daemon is running: sensors do not fire, so nothing moves by itself", start_daemon)
    if silent:
        return warning(
            f"its parts {', '.join(silent).lower()} give no sign of life", f"look into its log, or {start_daemon}"
        )
    return ok("its heartbeat is there")


def _mlflow(uri: str) -> Said:
    if uri.startswith(sqlite):
        file = Path(uri.removeprefix(sqlite))
        return _sqlite(file) if file.exists() else ok("not made yet; the first model makes it")
    if uri.startswith(("http://", "https://")):
        return _server(uri)
    return _database(uri)


def _sqlite(file: Path) -> Said:
    # Read-only: another process may be writing to it.
    held = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=answer_seconds)
    try:
        (models,) = held.execute("SELECT count(*) FROM registered_models").fetchone()
    finally:
        held.close()
    return ok(f"{models} registered models")


def _server(uri: str) -> Said:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=answer_seconds):
            return ok("the server answers")
    except urllib.error.HTTPError as error:
        error.close()
        return broken(
            f"it answers {error.code} to /health", "correct MLFLOW_TRACKING_URI: an MLflow server answers 200"
        )


def _database(uri: str) -> Said:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as held:
            held.execute(sqlalchemy.text("SELECT 1"))
    finally:
        engine.dispose()
    return ok("the database answers")


def _store(platform: Platform) -> Said:
    if not platform.tables.startswith("s3://"):
        return folder_that_keeps_files(Path(platform.tables))
    endpoint = settings.settings().s3_endpoint
    if endpoint is not None:
        # The AWS libraries would try a dead address for longer than anybody waits.
        address = urlsplit(endpoint)
        with socket.create_connection((address.hostname, address.port or 443), timeout=answer_seconds):
            pass
    bucket, _, prefix = platform.tables.removeprefix("s3://").partition("/")
    return _puts_once(platform.s3(), bucket, "/".join([*filter(None, [prefix]), f".doctor-{uuid.uuid4().hex}"]))


def _puts_once(client: Any, bucket: str, key: str) -> Said:
    """Whether a second writer of one object is refused, by which of two commits one is told that it has lost."""
    from botocore.exceptions import ClientError

    client.put_object(Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*")
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != http.HTTPStatus.PRECONDITION_FAILED:
            raise
        return ok("the bucket can be written, a conditional put excludes")
    finally:
        client.delete_object(Bucket=bucket, Key=key)
    told = "a conditional put does not exclude a second writer, so two runs at once would lose data"
    return broken(told, "use an S3 that honours If-None-Match")


def _ledger(platform: Platform) -> Said:
    Ledger(platform).entries("")
    return ok("readable")


def _tables(platform: Platform, domain: Domain) -> Said:
    tables = Tables(platform, domain)
    stores = [store for stage in stages for store in tables.of(stage).values()]
    tables.failures().current()
    made = [store.name for store in stores if store.current()]
    return ok(f"{len(made)} of {len(stores)} tables have partitions, every log can be read")


def _landing(platform: Platform, domain: Domain, source: Source) -> Callable[[], Said]:
    def look() -> Said:
        place = place_of(platform, domain, source)
        if isinstance(place, Folder) and not place.path.exists():
            if source.landing is None:
                return ok("nothing has landed yet")
            return warning("the declared folder is not there", "make it, or correct `landing` of the source")
        if isinstance(place, Folder):
            os.listdir(place.path)  # what lists days may pass over a folder that it must not read
        found = landed(platform, domain, source)
        told = f"{len(found.days)} days have landed"
        if found.strangers:
            name, why = next(iter(found.strangers.items()))
            more = f", and {len(found.strangers) - 1} more" if len(found.strangers) > 1 else ""
            return warning(
                f"{told}; not taken in: {name} ({why}){more}", "rename it, take it away or wait, as its reason says"
            )
        return ok(told)

    return look


def _online(platform: Platform, domain: Domain) -> Said:
    store = open_online_store(platform.online_store)
    found = [store.statistics(f"{domain.name}/{view.name}") for view in domain.views]
    there = [each for each in found if each is not None]
    keys, size = sum(each.keys for each in there), sum(each.bytes for each in there)
    return ok(f"{len(there)} of {len(found)} views published, {keys:,} keys, {size / 1e6:.1f} MB")


def _stream(platform: Platform, domain: Domain) -> Said:
    found, now = stream_status(platform, domain), platform.clock()
    wait = f"{'over ' if found.more_wait else ''}{found.waiting_events:,} events wait"
    silent = now - found.last_step if found.last_step else None
    if not found.running:
        start = f"run `mlplatform stream {domain.name}`, under whatever restarts your processes"
        if silent is None:
            return warning(f"{', '.join(found.views)} follow the facts, but nothing has ever streamed; {wait}", start)
        told = f"it stopped {human(silent)} ago: what has come since is not in the features; {wait}"
        return broken(told, start) if silent > long_ago else warning(told, start)
    if silent is None or silent > silent_after:
        told = "it runs, but has finished nothing" + ("" if silent is None else f" for {human(silent)}")
        return warning(f"{told}; {wait}", "look into its log; started again it goes on where it was")
    if found.blocked:
        return warning(found.blocked, "nothing is lost: what is owed is published once that is mended")
    newest = "no fact yet" if found.newest_fact is None else f"the newest fact is {human(now - found.newest_fact)} old"
    return ok(f"it runs; {newest}; {wait}")


def _champion(platform: Platform, domain: Domain, model: ModelSpec) -> Callable[[], Said]:
    def look() -> Said:
        name = f"{domain.name}/{model.name}"
        digest = Ledger(platform).champion(name)
        if digest is None:
            return ok("none yet")
        manifest = load_bundle(platform.bundles / digest).manifest
        store = open_online_store(platform.online_store)
        away = [view for view, version in manifest.views.items() if store.revision(f"{view}@{version}") is None]
        if away:
            told = f"the online store does not hold {', '.join(away)} as it was trained on: answers are degraded"
            return broken(told, "materialise online_store; after a change of a view, `mlplatform train` a new model")
        other = [view for view, version in manifest.views.items() if store.version(view) != version]
        if other:
            told = f"it was trained on another version of {', '.join(other)} than is published now: its values grow old"
            return warning(told, f"`mlplatform train {name}` makes a model of the version of now")
        tag = bento_tag(manifest)
        if not (bento_home(platform.home) / "bentos" / tag.replace(":", "/") / "bento.yaml").is_file():
            return warning(f"intact, but {tag} is not built", f"`mlplatform serve {name}` builds it")
        return ok(f"{len(manifest.files)} files intact, Bento {tag}")

    return look


def _device(model: ModelSpec) -> Callable[[], Said]:
    def look() -> Said:
        check_device(model.settings.device)
        return ok("there")

    return look
