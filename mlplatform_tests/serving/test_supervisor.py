"""What the supervisor decides about versions; what it does with processes is tried in `test_serving_faults`.

A worker is ready as soon as its sign is there, so a test makes the sign.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlplatform.rollout.plan import WHOLE, Plan
from mlplatform.rollout.plan_file import WatchedPlan, plan_path, write_plan
from serving.child_process import Child
from serving.roster import Roster, read_roster
from serving.supervisor import (
    AGAIN_SECONDS,
    LIVE_WORKERS,
    REFUSED_AFTER,
    SHADOW_WORKERS,
    WARM_WORKERS,
    Served,
    Supervisor,
)

MODEL = "d/m"


class Followed:
    """A supervisor that follows a plan and starts no process, and the time it goes by."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = plan_path(home, MODEL)
        watched = WatchedPlan(self.path, MODEL)
        self.supervisor = Supervisor(
            listening=0, bundle=home / "first", watched=watched, bundles=home / "bundles", gateways=1
        )
        self.now = time.monotonic()
        self.asked = Plan(model=MODEL, champion="first")
        self.ready("first")

    def plan(self, **changes: Any) -> Roster:
        """Let it follow a plan with other fields, and give its roster."""
        self.asked = replace(self.asked, number=self.asked.number + 1, **changes)
        write_plan(self.home, self.asked)
        return self.look()

    def look(self, later: float = 0.0) -> Roster:
        """What it tells gateway workers after one more look."""
        self.now += later
        self.supervisor._follow(self.now)
        self.supervisor._write_roster()
        return read_roster(self.supervisor._folder)

    def workers(self, digest: str) -> list[Child]:
        """Those that are kept for a version."""
        return [each for each in self.supervisor._model_workers() if f"({digest})" in each.name]

    def ready(self, digest: str) -> Roster:
        """Let all workers of a version be ready, and look."""
        for each in self.workers(digest):
            each.sign.touch()
        return self.look()

    def leaving(self) -> list[str]:
        """Names of the workers that end soon, by version."""
        return [each.name.split("(")[1].rstrip(")") for _, each in self.supervisor._retired]


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    """One whose first version is ready."""
    made = Followed(tmp_path)
    yield made
    shutil.rmtree(made.supervisor._folder)


def version(tmp_path: Path) -> Served:
    """A version with one worker that is not ready, asked for at 100 s."""
    return Served("d1", tmp_path, [Child("worker", [], tmp_path / "sign", tmp_path / "log")], asked=100.0)


def test_a_version_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """Workers that end again and again refuse nothing; their last words are the reason."""
    starting = version(tmp_path)
    starting.workers[0].last_words = "ImportError: no module named zoo"
    assert starting.given_up(100.0 + REFUSED_AFTER - 1) == ""
    assert "120 s; the last thing one said: ImportError: no module named zoo" in starting.given_up(
        100.0 + REFUSED_AFTER
    )


def test_a_refusal_is_told_at_once(tmp_path: Path) -> None:
    """A worker that refuses its bundle is believed."""
    starting = version(tmp_path)
    starting.workers[0].refused = "BundleCorrupt: fitted.json"
    assert starting.given_up(100.1) == "BundleCorrupt: fitted.json"


def test_a_refusal_is_forgotten_once_it_serves(tmp_path: Path) -> None:
    """Its files came after all: what kept it out is not told for ever."""
    served = version(tmp_path)
    worker = served.workers[0]
    worker.refused, worker.not_before = "BundleMissing: it is not there", 1_000.0
    worker.keep(100.0, {}, ())
    assert served.refusal == "BundleMissing: it is not there"
    worker.sign.touch()
    worker.keep(101.0, {}, ())
    assert served.refusal == ""


@pytest.mark.parametrize("place", ["champion", "challenger"])
def test_a_refused_version_is_tried_again(followed: Followed, place: str) -> None:
    """Its files may have been on their way when it was looked at; until then it is left alone, with its reason told."""
    named = {"champion": "second"} if place == "champion" else {"challenger": "second", "mode": "shadow"}
    followed.plan(**named)
    followed.workers("second")[0].refused = "BundleMissing: it is not there"
    roster = followed.look()
    assert roster.refused == {"second": "BundleMissing: it is not there"}
    assert (roster.live.digest, roster.challenger) == ("first", None)
    followed.look(AGAIN_SECONDS - 1)
    assert followed.workers("second") == []
    followed.look(1)
    assert len(followed.workers("second")) == (LIVE_WORKERS if place == "champion" else SHADOW_WORKERS)


def test_a_new_champion_takes_over_once_it_is_ready(followed: Followed) -> None:
    """Until then the old one is live; afterwards it is warm with one worker, until a third version comes."""
    assert followed.plan(champion="second").live.digest == "first"
    roster = followed.ready("second")
    assert (roster.live.digest, len(roster.live.sockets)) == ("second", LIVE_WORKERS)
    assert roster.warm and (roster.warm.digest, len(roster.warm.sockets)) == ("first", WARM_WORKERS)
    assert followed.leaving() == ["first"]
    followed.plan(champion="third")
    assert (warm := followed.ready("third").warm) and warm.digest == "second"
    assert followed.workers("first") == []


def test_a_rollback_needs_no_start_of_a_worker(followed: Followed) -> None:
    """The warm one is live at the next look with the worker it has, and the second one is started after."""
    followed.plan(champion="second")
    followed.ready("second")
    (kept,) = followed.workers("first")
    roster = followed.plan(champion="first")
    assert roster.live.digest == "first"
    assert str(kept.sign) in roster.live.sockets
    assert roster.warm and roster.warm.digest == "second"
    assert len(followed.workers("first")) == LIVE_WORKERS


def test_a_challenger_is_told_of_once_it_is_ready(followed: Followed) -> None:
    """In the shadow it has one worker that goes behind the others; an answering one has as many as the champion."""
    assert followed.plan(challenger="second", mode="shadow", salt="s").challenger is None
    roster = followed.ready("second")
    assert roster.challenger and roster.challenger.digest == "second"
    assert [each.behind for each in followed.workers("second")] == [True]
    assert followed.plan(mode="canary", weight=0).challenger == roster.challenger

    followed.plan(mode="canary", weight=500)
    roster = followed.look()
    assert roster.challenger
    assert len(roster.challenger.sockets) == 3, "the one that it has answers until the others are ready"
    assert [each.behind for each in followed.workers("second")] == [True, False, False]
    followed.ready("second")
    assert [each.behind for each in followed.workers("second")] == [False, False]
    assert followed.leaving() == ["second"]
    assert (followed.look().live.digest, len(followed.workers("first"))) == ("first", LIVE_WORKERS)


def test_a_challenger_that_wins_keeps_its_workers(followed: Followed) -> None:
    """Nothing is started anew, and the one it replaces is warm."""
    followed.plan(challenger="second", mode="canary", weight=WHOLE, salt="s")
    followed.ready("second")
    before = followed.workers("second")
    roster = followed.plan(champion="second", challenger=None, mode="full", weight=0)
    assert (roster.live.digest, roster.warm and roster.warm.digest, roster.challenger) == ("second", "first", None)
    assert followed.workers("second") == before
    # Sent back after all: the former champion is live again, and it is the one that stays warm.
    roster = followed.plan(champion="first")
    assert (roster.live.digest, roster.warm and roster.warm.digest) == ("first", "second")


def test_one_that_wins_from_the_shadow_answers_at_once(followed: Followed) -> None:
    """With the worker it has; those that a champion has come after, and then the one that stands behind goes."""
    followed.plan(challenger="second", mode="shadow", salt="s")
    followed.ready("second")
    assert followed.plan(champion="second", challenger=None, mode="full").live.digest == "second"
    followed.ready("second")
    assert [each.behind for each in followed.workers("second")] == [False, False]


def test_one_that_wins_with_a_worker_too_few_answers_at_once(followed: Followed) -> None:
    """Of its two one has just died: nobody waits for that, and it is brought back afterwards."""
    followed.plan(challenger="second", mode="canary", weight=500, salt="s")
    followed.ready("second")
    before = followed.workers("second")
    before[0].sign.unlink()
    assert followed.plan(champion="second", challenger=None, mode="full").live.digest == "second"
    assert followed.workers("second") == before


def test_a_share_that_comes_before_the_challenger_is_ready(followed: Followed) -> None:
    """It gets the workers of one that answers, and is told of when they are ready; the first one goes."""
    followed.plan(challenger="second", mode="shadow", salt="s")
    assert followed.plan(mode="canary", weight=500).challenger is None
    assert followed.ready("second").challenger
    followed.look()
    assert [each.behind for each in followed.workers("second")] == [False, False]


def test_a_challenger_that_is_named_no_more_goes(followed: Followed) -> None:
    """Rolled back, or replaced by another one; what serves is not touched."""
    followed.plan(challenger="second", mode="canary", weight=500, salt="s")
    followed.ready("second")
    roster = followed.plan(challenger="third", mode="shadow", weight=0)
    assert (roster.challenger, followed.workers("second")) == (None, [])
    assert followed.leaving() == ["second", "second"]
    followed.plan(challenger=None, mode="full")
    assert followed.workers("third") == []
    assert (followed.look().live.digest, len(followed.workers("first"))) == ("first", LIVE_WORKERS)


def test_a_challenger_that_was_warm_is_not_started_anew(followed: Followed) -> None:
    """A version that was sent back and is tried again, by an override."""
    followed.plan(champion="second")
    followed.ready("second")
    before = followed.workers("first")
    roster = followed.plan(challenger="first", mode="canary", weight=500, salt="s")
    assert (roster.challenger and roster.challenger.digest, roster.warm) == ("first", None)
    assert followed.workers("first")[:1] == before


def test_one_that_wins_half_ready_is_no_newcomer_afterwards(followed: Followed) -> None:
    """It was never told of as a challenger; sent back and tried again much later, nobody says that it took too long."""
    followed.plan(challenger="second", mode="canary", weight=500, salt="s")
    followed.workers("second")[0].sign.touch()
    assert followed.plan(champion="second", challenger=None, mode="full").live.digest == "second"
    followed.plan(champion="first")
    followed.workers("second")[0].sign.unlink()
    followed.now += 2 * REFUSED_AFTER
    assert followed.plan(challenger="second", mode="shadow").refused == {}


def test_one_that_wins_before_it_is_ready_takes_over_when_it_is(followed: Followed) -> None:
    """Its workers are kept; until then the champion of before answers."""
    followed.plan(challenger="second", mode="shadow", salt="s")
    before = followed.workers("second")
    assert followed.plan(champion="second", challenger=None, mode="full").live.digest == "first"
    assert followed.workers("second") == before
    assert followed.ready("second").live.digest == "second"


@pytest.mark.parametrize("content", [None, b"", b'{"flags": {}}', b"\xff"])
def test_a_plan_that_is_no_plan_changes_nothing(
    followed: Followed, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What serves goes on, and it is said once what is wrong."""
    followed.plan(challenger="second", mode="canary", weight=500, salt="s")
    before = followed.ready("second")
    followed.path.unlink()
    if content is not None:
        followed.path.write_bytes(content)
    assert (followed.look(), followed.look()) == (before, before)
    assert sum("last good" in each.message for each in caplog.records) == 1


def test_of_a_warm_one_the_worker_that_is_there_is_kept(followed: Followed) -> None:
    """Of two workers one has just died: the other one stays."""
    followed.plan(champion="second")
    died, lives = followed.workers("first")
    died.sign.unlink()
    followed.ready("second")
    assert followed.workers("first") == [lives]


def test_what_brings_the_plan_from_elsewhere_is_kept_alive(tmp_path: Path) -> None:
    """Beside the workers, with a file for its signs of life; without a source there is no such process."""
    made = Supervisor(
        listening=0, bundle=tmp_path, watched=None, bundles=tmp_path, gateways=0, flags=("source", "--model", MODEL)
    )
    (source,) = made._flags
    assert source.command == ["source", "--model", MODEL, "--sign", str(source.sign)]
    shutil.rmtree(made._folder)
