"""The monitor loop: what is found becomes an alert and a message, in time, once, whatever breaks or is killed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlplatform.domain.monitoring import Alerts
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import Unavailable
from mlplatform.monitoring.alerts import live, loop
from mlplatform.monitoring.alerts.freshness import grace, heartbeat
from mlplatform.monitoring.alerts.journal import Journal, Message, Silence, journal_folder
from mlplatform.monitoring.alerts.loop import Monitor, broken_ticks
from mlplatform.monitoring.alerts.nulls import NeverMissing
from mlplatform.monitoring.alerts.recent import recent_answers
from mlplatform.monitoring.breaker_log import BreakerLog, breaker_folder
from mlplatform.monitoring.finding import Finding
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform.registry.ledger import Action, Alias, Ledger
from mlplatform_tests.fakes.answered import answered, transition
from mlplatform_tests.fakes.synthetic_home import Clock

DAY = "2024-01-20"
MORNING = datetime(2024, 1, 21, 6, tzinfo=UTC)
MODEL = DOMAIN.models[0].name
SUBJECT = f"{DOMAIN.name}/{MODEL}"
DRIFT = Finding(
    layer="data_quality",
    rule="drift",
    subject=SUBJECT,
    day=DAY,
    summary="amount has moved",
    manifest="abcdef0123456789",
    figures={"value": 0.41, "bound": 0.25},
    features=("amount", "customer"),
)


class Told:
    """Channels that keep what they take."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.works = True

    def receivers(self, tags: Sequence[str]) -> list[str]:
        return sorted(tags)

    def deliver(self, message: Message, receiver: str) -> str:
        if self.works:
            self.sent.append(message)
        return "" if self.works else "gone"

    def subjects(self) -> list[str]:
        """What was sent since the last call, digests not among it."""
        told, self.sent = self.sent, []
        self.digests = [each.subject for each in told if each.tags == DOMAIN.alerts.digest]
        return [each.subject for each in told if each.tags != DOMAIN.alerts.digest]


class Watched:
    """A platform that is looked at when the test says so."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.told = platform, Told()
        self.due: dict[str, str] = {}
        self.domain = DOMAIN
        self.at(MORNING)
        self.restart()

    def restart(self) -> None:
        """The process of the loop is another one."""
        monitors = {"data_quality": lambda *_: self.due}
        self.monitor = Monitor(
            self.platform, self.domain, monitors=monitors, channels=lambda: self.told, ui="http://ui:3000/"
        )

    def at(self, moment: datetime) -> None:
        """It is so late."""
        clock = self.platform.clock
        assert isinstance(clock, Clock)
        clock.now = moment

    def after(self, **passed: float) -> list[str]:
        """Let time pass and look; gives the subjects of what was sent."""
        self.at(self.platform.clock() + timedelta(**passed))
        self.looked = self.monitor.look()
        return self.told.subjects()

    def keep(self, day: str, *findings: Finding) -> None:
        """A daily monitor has judged."""
        keep_findings(self.platform, DOMAIN, "data_quality", day, [replace(each, day=day) for each in findings], "run")

    def answer(self, rows: int, *, first: int = 0, closed: bool = True, **changes: object) -> Segments:
        """Answers of the last minute, in a segment that is finished or not."""
        now = int(self.platform.clock().timestamp() * 1e9) - 60 * 10**9
        segments = Segments(log_folder(self.platform.home, DOMAIN.name), spares=1)
        told = {"model": MODEL, "received": [now + row for row in range(rows)]} | changes
        assert segments.append(encode(answered(rows, first=first, **told)), rows)
        if closed:
            segments.close()
        return segments


@pytest.fixture
def watched(platform: Platform) -> Iterator[Watched]:
    """A platform and its loop."""
    made = Watched(platform)
    yield made
    made.monitor.close()


def test_what_a_daily_monitor_found_is_told_with_what_is_needed_to_act(watched: Watched) -> None:
    """What, since when, how bad, which features, which manifest, where, and the command to look further."""
    assert watched.after() == []
    watched.keep(DAY, DRIFT)
    watched.monitor.look()
    (message,) = watched.told.sent
    assert message.subject == f"[synthetic] {MODEL} drift 0.41 (bound 0.25)"
    for part in (
        "amount has moved",
        "2024-01-20 00:00 UTC",
        "value 0.41",
        "bound 0.25",
        "amount, customer",
        "abcdef012345",
        "http://ui:3000/assets/synthetic/data_quality?view=partitions&partition=2024-01-20",
        f"mlplatform alerts history drift:{SUBJECT}",
        message.id,
    ):
        assert part in message.text
    assert message.tags == DOMAIN.alerts.data_quality


def test_its_end_is_told_and_how_long_it_lasted(watched: Watched) -> None:
    """Over after two days without it; the same again is not told again."""
    watched.keep(DAY, DRIFT)
    assert len(watched.after()) == 1
    watched.keep("2024-01-21")
    assert watched.after(hours=1) == []
    watched.keep("2024-01-22")
    watched.monitor.look()
    (message,) = watched.told.sent
    assert message.subject.startswith(f"[synthetic] over: {MODEL} drift")
    assert "it lasted 24 h" in message.text


def test_many_at_once_are_one_message(watched: Watched) -> None:
    """A fault that breaks twenty rules is one fault; all of them are named."""
    watched.keep(DAY, *(replace(DRIFT, rule=f"rule_{number:02}") for number in range(20)))
    watched.monitor.look()
    (message,) = watched.told.sent
    assert message.subject.startswith("[synthetic] 20 alerts: ")
    assert len(message.subject) <= 70
    assert all(f"rule_{number:02}" in message.text or f"rule {number:02}" in message.text for number in range(20))


def test_a_restart_tells_nothing_twice_and_loses_nothing(watched: Watched) -> None:
    """All state is in the journal: another process goes on where this one was killed."""
    watched.keep(DAY, DRIFT)
    watched.told.works = False
    assert watched.after() == []
    watched.restart()
    watched.told.works = True
    assert len(watched.after(minutes=1)) == 1
    watched.restart()
    assert watched.after(minutes=1) == []
    watched.keep("2024-01-21")
    watched.restart()
    watched.keep("2024-01-22")
    assert [each[:17] for each in watched.after(minutes=1)] == ["[synthetic] over:"]


def test_a_journal_that_cannot_be_written_loses_no_finding(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent that is not written down, and the next look takes the finding again."""
    watched.keep(DAY, DRIFT)
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(Unavailable("no room")))
        with pytest.raises(Unavailable):
            watched.monitor.look()
    assert len(watched.after(minutes=1)) == 1


def test_the_muted_and_the_silenced_are_kept_and_not_told(watched: Watched) -> None:
    """A silence ends, and then it is told; what the domain has muted never is."""
    watched.domain = replace(DOMAIN, alerts=Alerts(muted=(f"drift:{SUBJECT}",)))
    watched.restart()
    until = MORNING + timedelta(hours=4)
    journal = Journal(journal_folder(watched.platform.home, DOMAIN.name), watched.platform.clock)
    journal.append(Silence(at=MORNING, what="nulls", until=until, reason="deploy", actor="me"))
    watched.keep(DAY, DRIFT, replace(DRIFT, rule="nulls"))
    assert watched.after() == []
    assert {each.rule for each in watched.looked.open} == {"drift", "nulls"}
    assert watched.after(hours=3) == []
    assert [each.split()[2] for each in watched.after(hours=1)] == ["nulls"]


@pytest.mark.parametrize("closed", [False, True], ids=["being written", "finished"])
def test_fallbacks_of_the_last_minutes_are_told(watched: Watched, closed: bool) -> None:
    """Also those in a segment that its writer has not finished; over half an hour after the last of them."""
    segments = watched.answer(400, source=["rules"] * 400, degraded=[True] * 400, closed=closed)
    assert watched.after() == [f"[synthetic] {MODEL} fallback_share 1 (bound 0.05)"]
    segments.close()
    told: list[str] = []
    minutes = 0
    while not told and minutes < 120:
        minutes += 2
        watched.answer(400, first=1000 * minutes)
        pick_up(watched.platform, DOMAIN)
        told = watched.after(minutes=2)
    assert told[0].startswith(f"[synthetic] over: {MODEL} fallback_share")
    assert 30 <= minutes <= 60


def test_what_is_picked_up_during_the_look_counts_once(watched: Watched) -> None:
    """A row in the table and still in its segment is one answer."""
    segments = watched.answer(150, source=["rules"] * 150, degraded=[True] * 150, closed=False)
    folder = log_folder(watched.platform.home, DOMAIN.name)
    copy = min(folder.glob("*.open")).read_bytes()
    segments.close()
    pick_up(watched.platform, DOMAIN)
    (folder / "1-1-1.segment").write_bytes(copy)
    assert recent_answers(watched.platform, DOMAIN, MORNING - timedelta(minutes=15)).height == 150


def test_views_that_cannot_be_read_are_told_within_minutes(watched: Watched) -> None:
    """The online store is away: layer 1, with the names of the views."""
    watched.answer(300, statuses={"synthetic/customers": ["unavailable"] * 300})
    watched.monitor.look()
    (message,) = watched.told.sent
    assert message.subject == f"[synthetic] {MODEL} unavailable_views 1 (bound 0.05)"
    assert "synthetic/customers" in message.text
    assert message.tags == DOMAIN.alerts.data_quality


def test_few_answers_are_not_judged(watched: Watched) -> None:
    """Neither do they open an alert, nor do they end one."""
    watched.answer(20, source=["rules"] * 20, degraded=[True] * 20)
    assert watched.after() == []
    watched.answer(400, first=100, source=["rules"] * 400, degraded=[True] * 400)
    assert len(watched.after()) == 1
    for _ in range(8):
        watched.at(watched.platform.clock() + timedelta(minutes=10))
        watched.answer(20, first=1000)
        assert watched.after() == []
    assert len(watched.looked.open) == 1


def test_an_open_breaker_is_told(watched: Watched) -> None:
    """As the gateways write it, before anybody picks it up."""
    log = BreakerLog(breaker_folder(watched.platform.home, DOMAIN.name))
    log.append(transition(model=SUBJECT, at=int(MORNING.timestamp() * 1e9)))
    assert [each.split()[2] for each in watched.after(minutes=1)] == ["breaker_open"]
    log.close()


def test_a_version_that_was_sent_back_is_told(watched: Watched) -> None:
    """Once, with who did it and why: a rollout that has turned back in the night is read of in the morning."""
    ledger = Ledger(watched.platform)
    moves: tuple[tuple[Action, Alias, str], ...] = (
        ("promote", "champion", "a" * 64),
        ("start", "challenger", "b" * 64),
        ("roll_back", "challenger", "a" * 64),
    )
    assert watched.after() == []
    for action, alias, digest in moves:
        ledger.append(
            SUBJECT, action=action, alias=alias, to_manifest=digest, actor="mlplatform", reason="harm", evidence={}
        )
    watched.at(watched.platform.clock() + timedelta(seconds=30))
    watched.looked = watched.monitor.look()
    (told,) = watched.told.sent
    assert told.subject.split()[2] == "rolled_back"
    assert "bbbbbbbbbbbb was sent back by mlplatform: harm" in told.text
    watched.told.sent.clear()
    assert watched.after(minutes=1) == []


def test_silence_where_there_always_was_traffic_is_told(watched: Watched) -> None:
    """A week of answers at this time of day, and none today."""
    watched.at(MORNING - timedelta(days=8))
    for day in range(8):
        watched.answer(40, first=1000 * day, gateway=f"g{day}")
        pick_up(watched.platform, DOMAIN)
        assert watched.after() == []
        watched.at(watched.platform.clock() + timedelta(days=1))
    assert [each.split()[2] for each in watched.after()] == ["no_traffic"]


def test_silence_is_not_told_where_the_window_is_cut_short(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many answers of one model the newest are looked at: another may well have had none in so short a time."""
    watched.at(MORNING - timedelta(days=8))
    for day in range(8):
        watched.answer(40, first=1000 * day, gateway=f"g{day}")
        pick_up(watched.platform, DOMAIN)
        watched.after()
        watched.at(watched.platform.clock() + timedelta(days=1))
    watched.answer(300, first=9000, model=DOMAIN.models[1].name)
    monkeypatch.setattr(live, "rows_at_most", 300)
    assert watched.after() == []
    monkeypatch.setattr(live, "rows_at_most", 301)
    assert [each.split()[2] for each in watched.after()] == ["no_traffic"]


def test_a_monitor_that_is_late_is_an_alert(watched: Watched) -> None:
    """An hour after it could have judged; a day that cannot be judged makes nobody late."""
    assert watched.after(hours=5) == []
    watched.due = {DAY: "400"}
    assert watched.after(minutes=5) == []
    assert watched.after(seconds=grace.total_seconds() - 60) == []
    assert watched.after(minutes=5)[0].startswith("[synthetic] data_quality monitor_late")
    watched.keep(DAY)
    watched.after(minutes=5)
    assert watched.after(minutes=40)[0].startswith("[synthetic] over: data_quality monitor_late")


def test_features_that_were_never_missing_are_told_within_minutes(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those: what is missing at night is missing in some window of every day."""
    known = (("amount", "customer", "gift"), np.array([True, True, False]))
    monkeypatch.setattr(NeverMissing, "features", lambda *_: known)
    row = np.array([1.0, np.nan, np.nan], dtype=np.float32)
    watched.answer(300, features=np.tile(row, 300).tobytes())
    watched.monitor.look()
    (message,) = watched.told.sent
    assert message.subject == f"[synthetic] {MODEL} null_rate 1 (bound 0.05)"
    assert "customer in 100%" in message.text
    assert "gift" not in message.text


def test_the_digest_of_the_day_before_is_sent_once_a_day(watched: Watched) -> None:
    """From six in the morning on, to its own tags; restarts do not repeat it."""
    watched.at(MORNING - timedelta(hours=10))
    watched.answer(300)
    pick_up(watched.platform, DOMAIN)
    sent = []
    for hours in (9, 1, 2, 22, 2):
        watched.after(hours=hours)
        sent.append(watched.told.digests)
        watched.restart()
    assert sent[0] == sent[2] == sent[4] == []
    assert sent[1][0].startswith(f"synthetic on {DAY}: 300 answers")
    assert sent[3][0].startswith("synthetic on 2024-01-21: 0 answers")


def test_a_broken_piece_costs_the_others_nothing_and_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is away for a moment is no alert; what stays broken is, and ends when it works again."""
    with monkeypatch.context() as patched:
        patched.setattr(loop, "recent_answers", lambda *_: 1 / 0)
        watched.keep(DAY, DRIFT)
        assert [each.split()[2] for each in watched.after()] == ["drift"]
        assert watched.looked.broken == ("answers",)
        told = [watched.after(seconds=30) for _ in range(broken_ticks - 1)]
        assert told[0] == []
        assert told[-1][0].startswith("[synthetic] answers monitor_broken")
        (broken,) = (each for each in watched.looked.open if each.rule == "monitor_broken")
        # What it says may hold a value or an address.
        assert "ZeroDivisionError" in broken.summary and "by zero" not in broken.summary
    assert watched.after(minutes=1) == []
    assert watched.after(minutes=40)[0].startswith("[synthetic] over: answers monitor_broken")


def test_a_look_leaves_a_sign_of_life(watched: Watched) -> None:
    """At its end, so that a loop that cannot write its journal falls silent."""
    file = heartbeat(watched.platform.home, DOMAIN.name)
    assert not file.exists()
    watched.after()
    assert file.read_text().strip() == MORNING.isoformat()


def test_history_is_no_news(watched: Watched) -> None:
    """A loop that begins on a platform with a past tells what is open, and not what once was."""
    watched.keep("2023-06-01", DRIFT)
    watched.keep("2024-01-18", replace(DRIFT, rule="nulls"))
    watched.keep("2024-01-19")
    watched.keep(DAY, replace(DRIFT, rule="psi"))
    (subject,) = watched.after()
    assert subject.startswith("[synthetic] 2 alerts: ")
    assert "2023" not in str(watched.looked)


def test_a_torn_segment_is_passed_over(watched: Watched) -> None:
    """What the pick-up will set aside does not blind the loop."""
    folder = log_folder(watched.platform.home, DOMAIN.name)
    watched.answer(400, source=["rules"] * 400, degraded=[True] * 400)
    (folder / "9-9-9.segment").write_bytes(np.arange(100).tobytes())
    assert len(watched.after()) == 1
    assert watched.looked.broken == ()


def test_the_journal_grows_with_news_and_not_with_looks(watched: Watched, tmp_path: Path) -> None:
    """A look at which nothing happens writes nothing."""
    watched.keep(DAY, DRIFT)
    watched.after()

    def size() -> int:
        return sum(each.stat().st_size for each in tmp_path.glob("alerts/*/*.frames"))

    before = size()
    for _ in range(20):
        watched.after(seconds=30)
    assert size() == before
