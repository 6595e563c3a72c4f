"""`mlplatform replay` for people and scripts: the verdict first, the way behind it, and how the command ends."""

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import rows
from mlplatform.errors import DataError
from mlplatform.monitoring.pickup import pick_up
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.operations import replay_view
from mlplatform.operations.replay_view import Answer, Request, Sampled, show_request, show_sample
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.segments import Segments
from mlplatform.registry.candidate import bundle_of
from mlplatform.reproducibility.replay.node import Node
from mlplatform.reproducibility.replay.verdict import Cause, Outcome, Replayed, Verdict
from mlplatform_tests.fakes.answered import answered
from mlplatform_tests.fakes.served_day import Gateway
from mlplatform_tests.fakes.synthetic_home import TrainedHome, platform_in

AT = datetime(2024, 1, 25, 12, 30, tzinfo=UTC)


def replayed(
    outcome: Outcome = "exact", cause: Cause | None = None, reason: str = "", *, arm: str = "champion", **more: Any
) -> Replayed:
    """What a replay said of one row."""
    told: dict[str, Any] = {
        "request_id": "order-1",
        "arm": arm,
        "model": "late_order",
        "manifest": "abc",
        "model_version": "2024-01-25-abcd",
        "source": "model",
        "received": AT,
        "verdict": Verdict(outcome=outcome, cause=cause, reason=reason, notes=("polars 1.30 answered",)),
        "difference": 0.0,
    }
    return Replayed(**told | more)


def request(*found: Replayed, trail: Node = Node(label="answer order-1")) -> Request:  # noqa: B008 - it is frozen
    """A request of so many rows."""
    answers = tuple(
        Answer(replayed=each, prediction="1", probability=0.75, confidence=None, needs_review=False, trail=trail)
        for each in found
    )
    return Request(domain="synthetic", request_id="order-1", answers=answers)


def shown(found: Request | Sampled) -> str:
    """As a person sees it."""
    text = io.StringIO()
    console = Console(file=text, width=160)
    if isinstance(found, Request):
        show_request(found, console)
    else:
        show_sample(found, console)
    return text.getvalue()


def test_the_verdict_comes_first() -> None:
    """With its cause and reason, then what was told, what the replay gives, and the notes."""
    lines = shown(request(replayed("diverged", "data", "wait differs", difference=0.125))).splitlines()
    assert lines[:4] == [
        "diverged: data: wait differs  (champion, 2024-01-25-abcd)",
        "  the champion's answer: told 1, probability 0.75, by model",
        "  the replay gives another answer, by 0.125 at most",
        "  note: polars 1.30 answered",
    ]
    assert shown(request(replayed())).splitlines()[2] == "  the replay gives the same, to the bit"
    assert shown(request(replayed("impossible", "bundle", "gone"))).splitlines()[2] == "  the replay gives nothing"
    assert shown(request(replayed("within_tolerance", "device", "cuda"))).startswith("within tolerance: device: cuda")


def test_every_row_of_a_request_counts() -> None:
    """Of two arms one that cannot be given again is enough for another exit code."""
    right, close, wrong = replayed(), replayed("within_tolerance"), replayed("diverged", "code", arm="shadow")
    assert request(right, close).given_again
    assert not request(right, wrong).given_again
    assert "the shadow's score, told to nobody" in shown(request(right, wrong))


def revision(day: int, *, fault: str = "", children: tuple[Node, ...] = ()) -> Node:
    """A revision on a trail."""
    return Node(label=f"shop/derived/orders/2024-01-{day:02}@1", detail=f"day {day}", fault=fault, children=children)


def test_a_long_window_is_cut_for_people() -> None:
    """The newest days are shown, and whatever is at fault, which is named again at the end; JSON has all."""
    days = tuple(revision(day, fault="altered" if day == 5 else "") for day in range(30, 0, -1))
    tree = Node(label="answer", children=(Node(label="view", children=(revision(31, children=days),)),))
    text = shown(request(replayed(), trail=tree))
    assert [f"-{day:02}@1" in text for day in (31, 30, 29, 28, 5, 1)] == [True, True, True, False, True, True]
    assert "and 27 more, back to shop/derived/orders/2024-01-01@1; see --json" in text
    assert text.splitlines()[-1] == "at fault shop/derived/orders/2024-01-05@1: altered"
    told = json.loads(replay_view.request_as_json(request(replayed(), trail=tree)))
    assert len(told["answers"][0]["trail"]["children"][0]["children"][0]["children"]) == 30
    assert told["answers"][0]["replayed"]["verdict"]["outcome"] == "exact"


def test_what_two_views_share_is_followed_once() -> None:
    """The second time it is named, and no more."""
    shared = revision(3, children=(Node(label="raw", detail="landed"),))
    tree = Node(label="answer", children=(Node(label="a", children=(shared,)), Node(label="b", children=(shared,))))
    text = shown(request(replayed(), trail=tree))
    assert (text.count("landed"), text.count("2024-01-03@1  as above")) == (1, 1)


def test_a_sample_is_counted() -> None:
    """Shares of outcomes and causes, and the rows to look at."""
    found = [replayed(request_id=f"r{number}") for number in range(97)]
    found += [replayed("diverged", "data", "two", request_id=name) for name in ("bad-1", "bad-2")]
    found += [replayed("impossible", "removed", "gone by policy", request_id="old")]
    sampled = Sampled(domain="synthetic", day="2024-01-25", replayed=tuple(found))
    lines = shown(sampled).splitlines()
    assert lines[0] == "synthetic on 2024-01-25: 100 rows of 100 requests"
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["exact", "97", "97.00%"],
        ["diverged", "2", "2.00%"],
        ["impossible", "1", "1.00%"],
        ["data", "2", "2.00%"],
        ["removed", "1", "1.00%"],
    ]
    assert lines[6].startswith("bad-1  diverged: data: two")
    assert lines[-1] == "`mlplatform replay bad-1` shows the trail of one"
    assert not sampled.given_again
    told = json.loads(replay_view.sample_as_json(sampled))
    assert told["outcomes"] == {"exact": 97, "diverged": 2, "impossible": 1}
    assert told["causes"] == {"data": 2, "removed": 1}
    assert [each["request_id"] for each in told["not_exact"]] == ["bad-1", "bad-2", "old"]


@pytest.fixture
def served(own_trained: TrainedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A home with twenty answers of the promoted model, which the command finds."""
    home = own_trained
    asked = rows(date(2024, 1, 24), rows_per_day=20).select(each.name for each in DOMAIN.requests.columns)
    at = pl.lit(AT) + pl.duration(seconds=pl.int_range(pl.len()))
    Gateway(home.platform, bundle_of(home.platform, home.entry.to_manifest), request_time=True).serve(
        asked.with_columns(at=at), tmp_path / "served", ids=[f"order-{number}" for number in range(20)]
    )
    monkeypatch.setenv("MLPLATFORM_HOME", str(home.platform.home))
    return home.platform


def test_the_command_gives_an_answer_again(served: Platform) -> None:
    """By the id alone; for people and for scripts."""
    told = CliRunner().invoke(app, ["replay", "order-7"])
    assert (told.exit_code, told.stdout.splitlines()[0][:6]) == (0, "exact ")
    assert "landing/orders/2024-01-24" in told.stdout
    as_json = CliRunner().invoke(app, ["replay", "order-7", "--json", "--verify", "--day", "2024-01-25"])
    assert json.loads(as_json.stdout)["answers"][0]["replayed"]["verdict"]["outcome"] == "exact"


def test_the_command_gives_a_sample_again(served: Platform) -> None:
    """With a domain and a day, or without."""
    for arguments in (["synthetic", "--sample", "5", "--day", "2024-01-25"], ["--sample", "5"]):
        told = CliRunner().invoke(app, ["replay", *arguments, "--json"])
        found = json.loads(told.stdout)
        assert (told.exit_code, found["domain"], found["day"], found["outcomes"]) == (
            0,
            "synthetic",
            "2024-01-25",
            {"exact": 5},
        )


def test_the_command_ends_with_1_where_an_answer_is_another(served: Platform) -> None:
    """A model whose file is gone gives nothing again."""
    for path in served.bundles.glob("*/model.ubj"):
        path.unlink()
    told = CliRunner().invoke(app, ["replay", "order-7"])
    assert (told.exit_code, told.stdout.splitlines()[0].split(":")[:2]) == (1, ["impossible", " bundle"])
    assert CliRunner().invoke(app, ["replay", "--sample", "5"]).exit_code == 1


def test_a_file_that_was_altered_is_told_where_that_is_asked(served: Platform) -> None:
    """The answer can be given again all the same; only `--verify` reads so far."""
    (path,) = served.landing("synthetic").glob("orders/2024-01-24.parquet")
    path.write_bytes(path.read_bytes() + b"x")
    assert CliRunner().invoke(app, ["replay", "order-7"]).exit_code == 0
    told = CliRunner().invoke(app, ["replay", "order-7", "--verify"])
    assert (told.exit_code, told.stdout.splitlines()[0][:6]) == (1, "exact ")
    assert told.stdout.splitlines()[-1].startswith("at fault synthetic/landing/orders/2024-01-24: ")


def test_a_ledger_that_cannot_be_read_is_told(served: Platform) -> None:
    """The answer can be given again without it; what was looked for and is damaged is named, and asked for it is 1."""
    (path,) = Path(served.ledger).rglob("*.parquet")
    path.unlink()
    told = CliRunner().invoke(app, ["replay", "order-7"])
    assert (told.exit_code, told.stdout.splitlines()[0][:6]) == (0, "exact ")
    assert told.stdout.splitlines()[-1].startswith("at fault routing: the ledger cannot be read")
    told = CliRunner().invoke(app, ["replay", "order-7", "--verify"])
    assert told.exit_code == 1
    assert path.name in told.stdout.splitlines()[-1]


def test_what_is_not_understood_is_said(served: Platform) -> None:
    """Neither an id nor a sample; no such id; a day without answers."""
    for arguments, why in (
        ([], "name a request"),
        (["nobody"], "no answer is called 'nobody'"),
        (["--sample", "5", "--verify"], "--verify goes with one request"),
        (["synthetic", "--sample", "5", "--day", "2024-02-01"], "synthetic logged no answer on 2024-02-01"),
        (["--sample", "5", "--day", "2024-02-01"], "no domain logged an answer on 2024-02-01"),
        (["order-1", "--day", "yesterday"], "is no day"),
    ):
        told = CliRunner().invoke(app, ["replay", *arguments])
        assert why in str(told.exception), arguments


def test_two_domains_that_answered_are_told_apart(tmp_path: Path) -> None:
    """A sample is of one; an empty log is told as that."""
    platform = platform_in(tmp_path)
    other = replace(DOMAIN, name="other")
    with pytest.raises(DataError, match="the log of synthetic, other is empty"):
        replay_view.of_sample(platform, [DOMAIN, other], 5, day=None)
    for domain in (DOMAIN, other):
        writer = Segments(log_folder(platform.home, domain.name), size=1 << 16, spares=1)
        assert writer.append(encode(answered(3)), 3)
        writer.close()
        pick_up(platform, domain)
    with pytest.raises(DataError, match=r"synthetic and other answered on 2024-01-01\. Name one"):
        replay_view.of_sample(platform, [DOMAIN, other], 5, day=None)


def test_a_trail_in_a_pipe_is_not_cut_into_lines() -> None:
    """A long path stays on its line, with nothing behind it."""
    path = "var/tables/" + "/".join(f"part_{number:03}" for number in range(60))
    text = shown(request(replayed(), trail=Node(label="answer", children=(Node(label="file", detail=path),))))
    assert any(line.endswith(f"file  {path}") for line in text.splitlines())
