"""The doctor: each part is unplugged in turn, and named with what mends it; the others are well."""

import fcntl
import http.server
import io
import json
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from dagster._daemon.types import DaemonHeartbeat
from rich.console import Console

from mlplatform.domain.source import Folder
from mlplatform.domains.registered import registered_domains
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DeclarationError
from mlplatform.features.online.publish import view_record
from mlplatform.features.online.store import open_online_store
from mlplatform.features.streaming.process import stream
from mlplatform.features.streaming.progress import lock_file
from mlplatform.features.tables import Tables
from mlplatform.operations import doctor
from mlplatform.operations.doctor import as_json, examine, show
from mlplatform.operations.finding import Check, Finding, Said, broken, made, ok
from mlplatform.operations.jobs import dagster_instance
from mlplatform.operations.outside_parts import domain_checks, platform_checks, without_secrets
from mlplatform.provenance.platform import Platform, wall_clock
from mlplatform.registry.bento import bento_home, bento_tag
from mlplatform.registry.bundle import load_bundle
from mlplatform_tests.fakes.streamed_shop import FIRST, SECOND, SHOP, orders, streamed_shop
from mlplatform_tests.fakes.synthetic_home import TrainedHome, land_orders

ROOT = Path(__file__).resolve().parents[2]
CHAMPION = "champion synthetic/late_order"
GARBAGE = b"this was a database once" * 100


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the command is run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def outside(platform: Platform) -> dict[str, Finding]:
    """What is found out about the parts of a platform with the synthetic domain."""
    checks = [*platform_checks(platform), *domain_checks(platform, DOMAIN)]
    return {each.part: each for each in made(checks)}


def only(found: dict[str, Finding], part: str) -> Finding:
    """The one finding that is broken."""
    assert [name for name, each in found.items() if each.verdict == "broken"] == [part], found
    assert found[part].mend
    return found[part]


@contextmanager
def server(status: int) -> Iterator[str]:
    """An HTTP server that answers every question with one status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Keeps silent."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def build(home: TrainedHome) -> None:
    """A folder where the champion's Bento would be."""
    tag = bento_tag(load_bundle(home.platform.bundles / home.entry.to_manifest).manifest)
    folder = bento_home(home.platform.home) / "bentos" / tag.replace(":", "/")
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text("")


def test_an_empty_home_is_well_and_stays_empty(platform: Platform) -> None:
    """Before the first run there is nothing to be broken, and looking makes nothing."""
    assert {each.verdict for each in outside(platform).values()} == {"ok"}
    assert list(platform.home.iterdir()) == []


def test_a_trained_home_is_well(own_trained: TrainedHome) -> None:
    """Tables, landings, online values and the champion's bundle; what was not built yet is a warning."""
    found = outside(own_trained.platform)
    assert {name for name, each in found.items() if each.verdict != "ok"} == {CHAMPION}
    assert "is not built" in found[CHAMPION].told and "mlplatform serve" in found[CHAMPION].mend
    build(own_trained)
    assert outside(own_trained.platform)[CHAMPION].verdict == "ok"


def test_a_changed_byte_in_the_champions_bundle(own_trained: TrainedHome) -> None:
    """The file is named."""
    path = own_trained.platform.bundles / own_trained.entry.to_manifest / "model.ubj"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    finding = only(outside(own_trained.platform), CHAMPION)
    assert "model.ubj: its hash is" in finding.told and "mlplatform train synthetic/late_order" in finding.mend


def test_a_bundle_that_is_gone(own_trained: TrainedHome) -> None:
    """The ledger names it, the store has it no longer."""
    (own_trained.platform.bundles / own_trained.entry.to_manifest).rename(own_trained.platform.home / "elsewhere")
    assert "manifest.yaml" in only(outside(own_trained.platform), CHAMPION).told


def test_a_store_that_offers_another_version_of_a_view(own_trained: TrainedHome) -> None:
    """The one that the model was trained on is still read, and gets no new values."""
    view = DOMAIN.views[0]
    record = view_record(DOMAIN, view, Tables(own_trained.platform, DOMAIN).features(view))
    store = open_online_store(own_trained.platform.online_store)
    store.replace(replace(record, version="v2"), [], content="made", now=own_trained.platform.clock())
    found = outside(own_trained.platform)[CHAMPION]
    assert (found.verdict, f"another version of synthetic/{view.name}" in found.told) == ("warning", True)


def test_an_online_store_without_the_views_of_the_champion(own_trained: TrainedHome) -> None:
    """It is emptied, or was never filled."""
    shutil.rmtree(own_trained.platform.online_store)
    found = only(outside(own_trained.platform), CHAMPION)
    assert (found.verdict, "answers are degraded" in found.told) == ("broken", True)


def test_an_online_store_that_cannot_be_read(own_trained: TrainedHome) -> None:
    """Named for the domain, and for the champion that reads it."""
    data = Path(own_trained.platform.online_store) / "data.mdb"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    found = outside(own_trained.platform)
    assert {name for name, each in found.items() if each.verdict == "broken"} == {"online synthetic", CHAMPION}


class Bucket:
    """What an S3 client does with one object after the other."""

    def __init__(self, *, excludes: bool = True, refuses: int | None = None) -> None:
        self.excludes, self.refuses = excludes, refuses
        self.objects: set[str] = set()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str) -> None:
        """Refused with a status, by the condition, or kept."""
        status = self.refuses or (412 if self.excludes and Key in self.objects else None)
        if status is not None:
            told: Any = {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(told, "PutObject")
        self.objects.add(Key)

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        """Deleting what is not there is no error."""
        self.objects.discard(Key)


def store(platform: Platform, bucket: Bucket) -> Finding:
    """What is found out about tables in a bucket."""
    there = replace(platform, tables="s3://bucket/prefix", s3=lambda: bucket)
    (finding,) = made([each for each in platform_checks(there) if each.part == "store"])
    assert bucket.objects == set(), "it leaves something behind"
    return finding


def test_a_bucket_that_honours_conditions_is_well(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two puts of one object: the second is refused."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert store(platform, Bucket()).verdict == "ok"


def test_a_bucket_that_does_not_exclude_or_that_refuses(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some S3 servers take no notice of If-None-Match; wrong credentials are 403, a missing bucket is 404."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    careless = store(platform, Bucket(excludes=False))
    assert careless.verdict == "broken" and "does not exclude a second writer" in careless.told
    for status in (403, 404):
        refusing = store(platform, Bucket(refuses=status))
        assert refusing.verdict == "broken" and str(status) in refusing.told and "credentials" in refusing.mend


def test_an_s3_endpoint_that_is_dead(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told at once, not after the AWS libraries have tried again and again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        finding = store(platform, Bucket())
    assert finding.verdict == "broken" and "refused" in finding.told and "AWS_ENDPOINT_URL" in finding.mend


def test_tables_in_a_folder_that_cannot_be_written(platform: Platform) -> None:
    """MLPLATFORM_TABLES points to where nobody may write."""
    found = {each.part: each for each in made(platform_checks(replace(platform, tables="/proc/tables")))}
    assert "cannot be written" in only(found, "store").told


def test_a_table_whose_log_is_damaged(own_trained: TrainedHome) -> None:
    """What reads it raises, and that is the finding."""
    for log in (own_trained.platform.home / "tables/synthetic/base/orders/_delta_log").glob("*.json"):
        log.write_text("no log")
    assert "from a backup" in only(outside(own_trained.platform), "tables synthetic").mend


def test_a_ledger_that_is_damaged(own_trained: TrainedHome) -> None:
    """Nobody can say which model serves."""
    for log in (own_trained.platform.home / "ledger" / "_delta_log").glob("*.json"):
        log.write_text("no log")
    found = outside(own_trained.platform)
    assert found["ledger"].verdict == "broken" and "it alone says which model serves" in found["ledger"].mend


def test_a_dagster_database_that_is_garbage(platform: Platform) -> None:
    """The folder is named; the daemon's finding follows from it."""
    with dagster_instance(platform):
        pass
    assert outside(platform)["dagster"].verdict == "ok"
    for path in (platform.home / "dagster").rglob("*.db*"):
        path.write_bytes(GARBAGE)
    found = outside(platform)
    assert found["dagster"].verdict == "broken" and "file is not a database" in found["dagster"].told
    assert found["dagster"].looked_at == str(platform.home / "dagster") and "history of runs" in found["dagster"].mend
    assert found["tables synthetic"].verdict == "ok"


def test_a_daemon_that_does_not_run(platform: Platform) -> None:
    """A warning that sensors do not fire; with its heartbeats there is none, with one missing it is named."""
    with dagster_instance(platform):
        pass
    silent = outside(platform)["daemon"]
    assert silent.verdict == "warning" and "sensors do not fire" in silent.told and "dagster-daemon" in silent.mend
    with dagster_instance(platform) as instance:
        needed = sorted(instance.get_daemon_statuses())
        for name in needed:
            if name != "SENSOR":
                instance.add_daemon_heartbeat(DaemonHeartbeat(wall_clock().timestamp(), name, "test"))
    assert "SENSOR" in needed
    assert outside(platform)["daemon"].told == "its parts sensor give no sign of life"
    with dagster_instance(platform) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(wall_clock().timestamp(), "SENSOR", "test"))
    assert outside(platform)["daemon"].verdict == "ok"


def test_a_dagster_home_that_is_another_one(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster's own commands in this shell would show another instance."""
    with dagster_instance(platform):
        pass
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere/dagster")
    found = outside(platform)["dagster"]
    assert found.verdict == "warning" and "/elsewhere/dagster" in found.told


def test_an_mlflow_file_that_is_garbage(platform: Platform) -> None:
    """And one that is a database of something else; and one that is well."""
    file = platform.home / "mlflow" / "mlflow.db"
    file.parent.mkdir()
    file.write_bytes(GARBAGE)
    assert "file is not a database" in only(outside(platform), "mlflow").told
    file.unlink()
    held = sqlite3.connect(file)
    assert "no such table: registered_models" in only(outside(platform), "mlflow").told
    held.execute("CREATE TABLE registered_models (name TEXT)")
    held.close()
    assert outside(platform)["mlflow"].verdict == "ok"


@pytest.mark.parametrize(("status", "verdict"), [(200, "ok"), (404, "broken")])
def test_an_mlflow_server_that_answers(status: int, verdict: str, platform: Platform) -> None:
    """Only an MLflow server knows /health."""
    with server(status) as url:
        assert outside(replace(platform, mlflow_uri=url))["mlflow"].verdict == verdict


def test_an_mlflow_server_that_is_not_there(platform: Platform) -> None:
    """Its address is told without the password in it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        port = taken.getsockname()[1]
        finding = only(outside(replace(platform, mlflow_uri=f"http://me:secret@127.0.0.1:{port}")), "mlflow")
    assert finding.looked_at == f"http://…@127.0.0.1:{port}" and "MLFLOW_TRACKING_URI" in finding.mend
    assert "secret" not in as_json([finding])


def test_a_database_address_that_leads_nowhere(platform: Platform) -> None:
    """Any other address is a database's."""
    uri = f"sqlite+pysqlite:///{platform.home}/no/such/folder.db"
    assert "unable to open database file" in only(outside(replace(platform, mlflow_uri=uri)), "mlflow").told


def test_a_stream_that_nobody_runs(tmp_path: Path) -> None:
    """Never started and just stopped are warnings, stopped long ago is broken; each names the command."""
    shop = streamed_shop(tmp_path).at(1, 20)

    def looked() -> Finding:
        return next(each for each in made([*domain_checks(shop.platform, SHOP)]) if each.part == "stream synthetic")

    shop.send("first", orders(FIRST)[:20])
    never = looked()
    assert (never.verdict, "nothing has ever streamed; 1 events wait" in never.told) == ("warning", True)
    stream(shop.platform, SHOP, once=True)
    shop.send("second", orders(FIRST)[20:])
    for minutes, verdict, age in ((50, "warning", "50 min"), (20, "broken", "1 h 10 min")):
        shop.clock.now += timedelta(minutes=minutes)
        stopped = looked()
        assert (stopped.verdict, f"it stopped {age} ago" in stopped.told) == (verdict, True)
        assert "1 events wait" in stopped.told
    assert {"`mlplatform stream synthetic`" in each.mend for each in (never, stopped)} == {True}
    assert not any(each.part.startswith("stream") for each in domain_checks(shop.platform, DOMAIN))


def test_a_stream_that_runs_and_does_nothing(tmp_path: Path) -> None:
    """No sign of life is a warning, and so is a value that is owed; else it is well, with the age of its facts."""
    shop = streamed_shop(tmp_path).at(3, 12)
    shop.send("first", orders(FIRST))

    def looked() -> Finding:
        with lock_file(shop.platform.home, SHOP).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            return next(each for each in made([*domain_checks(shop.platform, SHOP)]) if each.part == "stream synthetic")

    stream(shop.platform, SHOP, once=True)
    assert (looked().verdict, "waits for 2024-01-02" in looked().told) == ("warning", True)
    shop.send("second", orders(SECOND))
    stream(shop.platform, SHOP, once=True)
    assert (looked().verdict, "the newest fact is 12 h old; 0 events wait" in looked().told) == ("ok", True)
    shop.clock.now += timedelta(minutes=2)
    assert (looked().verdict, "it runs, but has finished nothing for 2 min" in looked().told) == ("warning", True)


def test_a_device_that_is_not_there(platform: Platform) -> None:
    """A model that wants a card, on a machine whose XGBoost knows none."""
    model = DOMAIN.models[0]
    wants_card = replace(model, settings=replace(model.settings, device="cuda"))
    checks = list(domain_checks(platform, replace(DOMAIN, models=(wants_card,))))
    (finding,) = made([each for each in checks if each.part == "device synthetic/late_order"])
    assert finding.verdict == "broken" and "device 'cuda' is declared but not there" in finding.told


def test_a_stranger_in_a_landing_place_is_a_warning(platform: Platform) -> None:
    """Rows that somebody believes to have landed."""
    land_orders(platform, ["2024-01-01"])
    folder = platform.landing("synthetic") / "orders"
    (folder / "2024-01-01.parquet").rename(folder / "new_year.parquet")
    finding = outside(platform)["landing synthetic/orders"]
    assert finding.verdict == "warning" and "new_year" in finding.told


def test_a_landing_place_that_cannot_be_listed(platform: Platform) -> None:
    """A file stands where the folder should be."""
    place = platform.landing("synthetic") / "orders"
    place.parent.mkdir(parents=True)
    place.write_text("")
    assert only(outside(platform), "landing synthetic/orders").looked_at == str(place)


def test_a_landing_place_that_may_not_be_read(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lists days passes over it in silence, as if nothing had landed."""
    land_orders(platform, ["2024-01-01"])

    def refused(_folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    assert "Permission denied" in only(outside(platform), "landing synthetic/orders").told


def test_a_declared_folder_that_is_not_there(platform: Platform) -> None:
    """The platform's own folder is made by whoever lands first; a declared one was meant to exist."""
    source = replace(DOMAIN.source("orders"), landing=Folder(path=platform.home / "drop"))
    checks = list(domain_checks(platform, replace(DOMAIN, sources=(source,))))
    (finding,) = made([each for each in checks if each.part == "landing synthetic/orders"])
    assert (finding.verdict, finding.looked_at) == ("warning", str(platform.home / "drop"))


def test_a_domain_that_cannot_be_declared(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the finding, and everything that needs no domain is looked at all the same."""

    def refused() -> None:
        raise DeclarationError("view waits: calls has no column berth")

    monkeypatch.setattr(doctor, "registered_domains", refused)
    found = {each.part: each for each in examine(platform, ROOT)}
    assert found["domains"].told == "view waits: calls has no column berth" and found["domains"].verdict == "broken"
    assert {"python", "home", "dagster", "mlflow"} <= found.keys()


def test_every_registered_domain_and_model_is_looked_at(platform: Platform) -> None:
    """A check of each source, table room and champion."""
    parts = {each.part for each in examine(platform, ROOT)}
    for domain in registered_domains().values():
        assert {f"tables {domain.name}", f"online {domain.name}"} <= parts
        assert {f"landing {domain.name}/{source.name}" for source in domain.sources} <= parts
        assert {f"champion {domain.name}/{model.name}" for model in domain.models} <= parts


def test_a_look_that_never_ends_is_cut_off() -> None:
    """The others are not kept waiting for it."""
    forever = threading.Event()

    def hang() -> Said:
        forever.wait()
        return ok("")

    checks = [
        Check(part="dead", looked_at="a black hole", look=hang, mend="plug it in"),
        Check(part="alive", looked_at="here", look=lambda: ok("fine"), mend=""),
    ]
    dead, alive = made(checks, seconds=0.05)
    forever.set()
    assert (dead.verdict, dead.mend, alive.told) == ("broken", "plug it in", "fine")
    assert dead.told.startswith("no answer within")


def test_people_and_scripts_are_told_the_same() -> None:
    """The verdict, what was looked at, and the mending."""
    (finding,) = made([Check(part="part", looked_at="place", look=lambda: broken("[it] is gone", "buy one"), mend="")])
    console = Console(file=io.StringIO(), width=200)
    show([finding], console)
    told = console.file
    assert isinstance(told, io.StringIO)
    assert told.getvalue() == "broken  part: [it] is gone\n        place: buy one\n"
    assert json.loads(as_json([finding])) == [
        {"part": "part", "verdict": "broken", "looked_at": "place", "told": "[it] is gone", "mend": "buy one"}
    ]


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("postgresql://me:p@ss:word@host:5432/runs", "postgresql://…@host:5432/runs"),
        ("https://host/path@x", "https://host/path@x"),
        ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_secrets(uri: str, told: str) -> None:
    """User and password are left out, the rest is as it was given."""
    assert without_secrets(uri) == told
