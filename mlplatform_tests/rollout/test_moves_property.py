"""Whatever people, sensors, kills and clocks do to a rollout, what must never happen does not."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlplatform.domain.rollout import Rollout, Step
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import RolloutRefused, StaleRevision
from mlplatform.registry.ledger import Action, Entry, Ledger, broken_at
from mlplatform.rollout import moves
from mlplatform.rollout.approval import approved
from mlplatform.rollout.plan import WHOLE, to_file
from mlplatform.rollout.plan_file import plan_path
from mlplatform.rollout.pointing import plan_of, point
from mlplatform.rollout.progress import progress, sent_back
from mlplatform.rollout.tick import ACTOR, advance, tick
from mlplatform_tests.fakes.rolled_out import CHAMPION, NAME, Evidence, champion_in, declared, promoted

HOUR = timedelta(hours=1)
STEPS = (
    Step(share=0.0, bake=2 * HOUR),
    Step(share=0.05, bake=3 * HOUR),
    Step(share=0.5, bake=HOUR),
    Step(share=1.0, bake=timedelta(0)),
)
SAYS = st.sampled_from(["good", "good", "good", "few", "harmful", "tripped"])


class Killed(BaseException):
    """The process is gone."""


class RolloutMachine(RuleBasedStateMachine):
    """A model's ledger, worked on by everybody at once."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.platform = champion_in(self.home / "home")
        self.made = 0
        self.killed = False
        self.patches: list[Any] = [
            patch.object(moves, "point", self.point),
            # A bundle is asked for its digest and its recipe only.
            patch.object(moves, "named_bundle", self.named),
        ]
        for each in self.patches:
            each.start()

    def teardown(self) -> None:
        """Leave nothing behind."""
        for each in self.patches:
            each.stop()
        shutil.rmtree(self.home)

    def point(self, *asked: Any) -> object:
        """The plan is set from the ledger, unless the process is killed before."""
        if self.killed:
            raise Killed
        return point(*asked)

    def named(self, _platform: object, _model: str, digest: str) -> SimpleNamespace:
        """A bundle of that digest."""
        return SimpleNamespace(digest=digest, manifest=SimpleNamespace(model_version="recipe"))

    @property
    def entries(self) -> list[Entry]:
        """The whole ledger."""
        return Ledger(self.platform).entries(NAME)

    def attempt(self, do: Callable[[], object]) -> str:
        """What somebody does, which may be refused or killed."""
        try:
            do()
        except (RolloutRefused, StaleRevision) as error:
            return type(error).__name__
        except Killed:
            return "killed"
        finally:
            self.killed = False
        return ""

    @initialize(
        mode=st.sampled_from(["canary", "canary", "canary", "a/b"]),
        approval=st.sampled_from([False, False, True]),
        first=st.sampled_from([0, 0, 1]),
    )
    def declare(self, mode: Any, approval: bool, first: int) -> None:
        """The rollout of the model, and its first challenger."""
        self.model = declared(Rollout(mode=mode, approval=approval, steps=STEPS[first:]))
        self.enter(killed=False)

    @rule(killed=st.booleans())
    def enter(self, killed: bool) -> None:
        """Another version passes the gate; its promotion may be killed before the start, or between start and plan."""
        if progress(self.entries) is None:
            self.made += 1
            promoted(self.platform, f"{self.made:x}".rjust(64, "e"))
            self.killed = killed
            self.attempt(lambda: moves.start(self.platform, DOMAIN, self.model, by="dagster", reason="pass"))

    @rule(says=SAYS, killed=st.booleans())
    def look(self, says: str, killed: bool) -> None:
        """The sensor looks, and may be killed in the middle."""
        self.killed = killed
        told = self.attempt(lambda: tick(self.platform, DOMAIN, self.model, gather=Evidence(says)))
        if not told:
            asked_for = plan_of(NAME, self.entries)
            assert asked_for is not None
            assert plan_path(self.platform.home, NAME).read_bytes() == to_file(asked_for)

    @rule(hours=st.integers(2, 6))
    def all_goes_well(self, hours: int) -> None:
        """Nobody does anything, and the sensor looks every hour."""
        for _ in range(hours):
            self.time_passes(hours=1.0)
            self.look(says="good", killed=False)

    @rule(data=st.data(), says=SAYS, killed=st.booleans())
    def act(self, data: st.DataObject, says: str, killed: bool) -> None:
        """A person does something."""
        asked: dict[str, Any] = {"by": "ann", "reason": "she says so"}
        platform, model = self.platform, self.model
        todo: dict[str, Callable[[], object]] = {
            "pause": lambda: moves.pause(platform, DOMAIN, model, **asked),
            "resume": lambda: moves.resume(platform, DOMAIN, model, **asked),
            "advance": lambda: advance(platform, DOMAIN, model, gather=Evidence(says), **asked),
            "finish": lambda: advance(platform, DOMAIN, model, gather=Evidence(says), ending=True, **asked),
            "start": lambda: moves.start(platform, DOMAIN, model, **asked),
            "rollback": lambda: moves.roll_back(platform, NAME, **asked),
        }
        self.killed = killed
        self.attempt(todo[data.draw(st.sampled_from(sorted(todo)))])

    @rule()
    def both_advance(self) -> None:
        """Two people have seen the same, and both take the step: one of them at most does."""
        seen = len(self.entries)
        asked: dict[str, Any] = {"reason": "looks good", "after": seen, "gather": Evidence()}
        first = self.attempt(lambda: advance(self.platform, DOMAIN, self.model, by="ann", **asked))
        second = self.attempt(lambda: advance(self.platform, DOMAIN, self.model, by="bob", **asked))
        assert second == ("StaleRevision" if not first else "RolloutRefused")

    @rule(action=st.sampled_from(["approve", "override"]))
    def say(self, action: Action) -> None:
        """Somebody approves of the challenger, or lets in what was sent back, which is promoted again."""
        entries = self.entries
        now, away = progress(entries), list(sent_back(entries))
        if action == "approve" and now:
            Ledger(self.platform).append(
                NAME,
                action="approve",
                alias="challenger",
                to_manifest=now.challenger,
                actor="ann",
                reason="yes",
                evidence={},
            )
        elif action == "override" and not now and away and away[0] != CHAMPION:
            moves.override(self.platform, NAME, away[0], by="ann", reason="it was the feed's fault")
            promoted(self.platform, away[0])

    @rule(hours=st.sampled_from([-1.0, 0.2, 1.0, 3.0]))
    def time_passes(self, hours: float) -> None:
        """Forwards; or a clock is put back by an hour."""
        self.platform.clock.now += hours * HOUR  # type: ignore[attr-defined]

    @rule(content=st.sampled_from([None, b"", b"{", b'{"flags": {}}']))
    def plan_is_lost(self, content: bytes | None) -> None:
        """Somebody edits the plan file into nonsense, or deletes it."""
        path = plan_path(self.platform.home, NAME)
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    @invariant()
    def what_must_never_happen(self) -> None:
        """By the ledger, which is what happened."""
        entries, declared_rollout = self.entries, self.model.rollout
        assert declared_rollout is not None
        assert broken_at(entries) is None
        assert [each.at for each in entries] == sorted(each.at for each in entries)
        weights = [round(step.share * WHOLE) for step in declared_rollout.steps]
        for place, entry in enumerate(entries):
            before = progress(entries[:place])
            if entry.action not in ("start", "advance", "finish"):
                continue
            assert before is not None
            assert entry.to_manifest == before.challenger
            assert entry.to_manifest not in sent_back(entries[:place]), "traffic for what was rolled back"
            weight = WHOLE if entry.action == "finish" else entry.evidence["weight"]
            more = [each for each in weights if each > (before.weight if before.started else -1)]
            ends_a_b = entry.action == "finish" and before.mode == "a/b"
            assert ends_a_b or weight == more[0], "not the next step"
            assert not (weight and declared_rollout.approval) or approved(entries[:place], entry.to_manifest)
            if entry.action == "start":
                continue
            assert before.paused is None
            if entry.actor == ACTOR:
                assert before.mode != "a/b"
                baked = next(s.bake for s in STEPS if round(s.share * WHOLE) == before.weight)
                stepped = [each.at for each in entries[:place] if each.action in ("start", "advance")]
                assert entry.at >= stepped[-1] + baked


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
