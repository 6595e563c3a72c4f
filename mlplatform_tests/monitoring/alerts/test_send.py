"""Sending: through a real webhook that is there, gone, slow or unwell; each message once, none lost, no secret told."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from mlplatform.errors import Unavailable
from mlplatform.monitoring.alerts.journal import Attempt, Entry, Journal, Message, Step, keep_trying
from mlplatform.monitoring.alerts.send import AppriseChannels, Channels, first_wait, longest_wait, open_channels, send
from mlplatform_tests.fakes.alert_endpoint import AlertEndpoint

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


class Post:
    """A journal, and a configuration with one webhook for each tag."""

    def __init__(self, folder: Path, **endpoints: AlertEndpoint) -> None:
        self.folder, self.config = folder, folder / "channels"
        self.configure(**endpoints)
        self.journal = Journal(folder / "journal", lambda: NOON)

    def configure(self, **endpoints: AlertEndpoint) -> None:
        """Write the configuration."""
        self.config.write_text("".join(f"{tag}={each.url(f'secret-{tag}')}\n" for tag, each in endpoints.items()))

    @property
    def channels(self) -> Channels:
        """As a look opens them."""
        return open_channels(self.config)

    def write(self, *names: str, tags: tuple[str, ...] = ("page",), at: datetime = NOON) -> None:
        """Messages to those whom the tags mean now."""
        to = tuple(self.channels.receivers(tags))
        made = [Message(id=name, at=at, tags=tags, to=to, subject=f"subject {name}", text=name) for name in names]
        self.journal.append(Step(at=at, messages=tuple(made)))

    def send(self, after: timedelta = timedelta()) -> list[bool]:
        """One look's sending; of each attempt, whether it was taken."""
        return [each.delivered for each in send(self.journal, self.channels, NOON + after)]


@pytest.fixture
def endpoint() -> Iterator[AlertEndpoint]:
    """A webhook that is there."""
    made = AlertEndpoint()
    yield made
    made.down()


@pytest.fixture
def other() -> Iterator[AlertEndpoint]:
    """Another one."""
    made = AlertEndpoint()
    yield made
    made.down()


@pytest.fixture
def post(tmp_path: Path, endpoint: AlertEndpoint) -> Post:
    """A journal whose pages go to the webhook."""
    return Post(tmp_path, page=endpoint)


def test_a_message_is_sent_once(post: Post, endpoint: AlertEndpoint, tmp_path: Path) -> None:
    """With its subject and text, and not again by who reads the journal later."""
    post.write("m1")
    assert post.send() == [True]
    assert [(each["title"], each["message"]) for each in endpoint.taken] == [("subject m1", "m1")]
    assert post.send() == []
    assert send(Journal(tmp_path / "journal", lambda: NOON), post.channels, NOON) == []


def test_a_channel_that_is_down_is_tried_again_with_growing_waits(post: Post, endpoint: AlertEndpoint) -> None:
    """Nothing is lost, nothing is sent twice, and what waited comes in its order."""
    endpoint.down()
    post.write("m1", "m2")
    tried, at = [], timedelta()
    while at < timedelta(hours=6):
        if post.send(at):
            tried.append(at)
        at += timedelta(seconds=30)
    gaps = [after - before for before, after in pairwise(tried)]
    assert gaps[:4] == [first_wait, 2 * first_wait, 4 * first_wait, 8 * first_wait]
    assert gaps == sorted(gaps)
    assert gaps[-1] == longest_wait
    endpoint.up()
    assert post.send(at + longest_wait) == [True, True]
    assert [each["message"] for each in endpoint.taken] == ["m1", "m2"]


def test_waits_outlive_a_restart(post: Post, endpoint: AlertEndpoint, tmp_path: Path) -> None:
    """A new process leaves the channel in peace for as long as the old one would have."""
    endpoint.down()
    post.write("m1")
    for at in (0, 30):
        assert post.send(timedelta(seconds=at)) == [False]
    post.journal = Journal(tmp_path / "journal", lambda: NOON)
    assert post.send(timedelta(seconds=80)) == []
    assert post.send(timedelta(seconds=90)) == [False]


def test_a_channel_that_answers_500_or_nothing_has_not_taken_it(post: Post, endpoint: AlertEndpoint) -> None:
    """An error and a silence are told apart, and neither is a delivery."""
    post.write("m1")
    endpoint.status = 500
    assert post.send() == [False]
    endpoint.status = 200
    endpoint.hangs.set()
    assert post.send(timedelta(minutes=1)) == [False]
    endpoint.hangs.clear()
    assert post.send(timedelta(minutes=5)) == [True]
    attempts = post.journal.known().attempts["m1"]
    assert [each.why for each in attempts] == ["it answered 500", "it could not be reached, or did not answer", ""]
    assert len(endpoint.taken) == 1


def test_one_channel_does_not_wait_for_another(tmp_path: Path, endpoint: AlertEndpoint, other: AlertEndpoint) -> None:
    """A message to two goes to the one that is up now, and to the other when it is; to each once."""
    post = Post(tmp_path, page=endpoint, ticket=other)
    endpoint.down()
    post.write("m1", tags=("page", "ticket"))
    assert sorted(post.send()) == [False, True]
    assert len(other.taken) == 1
    endpoint.up()
    assert post.send(timedelta(minutes=1)) == [True]
    assert (len(endpoint.taken), len(other.taken)) == (1, 1)


def test_tags_say_who_is_told(tmp_path: Path, endpoint: AlertEndpoint, other: AlertEndpoint) -> None:
    """Whoever has none of a message's tags hears nothing; a tag that nobody has reaches nobody."""
    post = Post(tmp_path, page=endpoint, ticket=other)
    post.write("m1", tags=("ticket",))
    post.write("m2", tags=("nobody",))
    assert post.send() == [True]
    assert (endpoint.asked, len(other.taken)) == (0, 1)


def test_a_kill_between_sending_and_writing_it_down_sends_once_more(post: Post, endpoint: AlertEndpoint) -> None:
    """At least once, never lost; both carry the same text and id."""

    class Killed(Journal):
        def append(self, entry: Entry) -> None:
            if isinstance(entry, Attempt):
                raise KeyboardInterrupt
            super().append(entry)

    post.write("m1")
    with pytest.raises(KeyboardInterrupt):
        send(Killed(post.folder / "journal", lambda: NOON), post.channels, NOON)
    assert post.send() == [True]
    assert [each["message"] for each in endpoint.taken] == ["m1", "m1"]


def test_an_address_with_a_slip_is_mended_and_gets_what_waited(
    tmp_path: Path, endpoint: AlertEndpoint, other: AlertEndpoint
) -> None:
    """The new address of the tag takes the place of the one that is gone from the configuration."""
    other.down()
    post = Post(tmp_path, page=other)
    post.write("m1")
    assert post.send() == [False]
    post.configure(page=endpoint)
    assert post.send(timedelta(minutes=1)) == [True]
    assert post.send(timedelta(minutes=2)) == []
    assert len(endpoint.taken) == 1


def test_a_configuration_that_cannot_be_read_holds_messages_back(post: Post, endpoint: AlertEndpoint) -> None:
    """It says what to mend; once it can be read, what waited is sent."""
    written = post.config.read_text()
    post.config.unlink()
    with pytest.raises(Unavailable, match="MLPLATFORM_ALERTS"):
        AppriseChannels(post.config)
    post.write("m1")
    assert post.send() == [False]
    post.config.write_text("no line that means anything\n")
    assert post.send(timedelta(minutes=1)) == [False]
    post.config.write_text(written)
    assert post.send(timedelta(minutes=1)) == [True]
    assert post.send(timedelta(minutes=9)) == []
    assert len(endpoint.taken) == 1


def test_a_configuration_in_yaml(tmp_path: Path, endpoint: AlertEndpoint) -> None:
    """As Apprise reads it, with tags as a list."""
    post = Post(tmp_path)
    post.config.write_text(f"urls:\n  - {endpoint.url()}:\n      - tag: [page, ticket]\n")
    post.write("m1", tags=("ticket",))
    assert post.send() == [True]


def test_without_a_configuration_nothing_is_sent(tmp_path: Path) -> None:
    """It is kept and shown, and nobody hears of it later."""
    assert open_channels(None).receivers(["page"]) == []


def test_what_nobody_took_in_a_week_is_given_up(post: Post, endpoint: AlertEndpoint) -> None:
    """It would be read in another world."""
    post.write("m1")
    assert post.send(keep_trying) == []
    assert endpoint.asked == 0


def test_a_look_does_not_send_for_ever(post: Post) -> None:
    """What a look has no time for is sent by the next one."""
    post.write("m1", "m2", "m3")
    clock = iter(range(0, 1000, 10)).__next__
    made = send(post.journal, post.channels, NOON, seconds=15, clock=lambda: float(clock()))
    assert [each.message for each in made] == ["m1"]
    assert post.send() == [True, True]


def test_no_secret_is_told(post: Post, endpoint: AlertEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a log nor in the journal: the address is a secret as a whole."""
    caplog.set_level(logging.DEBUG)
    endpoint.down()
    post.write("m1")
    assert post.send() == [False]
    post.config.write_text(f"page=nonsense://secret-host/{'x' * 5}\n")
    assert post.send(timedelta(hours=1)) == [False]
    told = caplog.text + "".join(each.read_bytes().decode(errors="ignore") for each in post.folder.glob("journal/*"))
    assert "secret" not in told
    assert str(endpoint.port) not in told
    assert post.journal.known().messages["m1"].to[0].startswith("json-")


def test_nothing_goes_elsewhere(
    post: Post, endpoint: AlertEndpoint, other: AlertEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No redirect is followed, no outside image is named, nothing is kept on disk."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    endpoint.status, endpoint.location = 307, f"http://127.0.0.1:{other.port}/"
    post.write("m1")
    assert post.send() == [False]
    assert (endpoint.asked, other.asked) == (1, 0)
    endpoint.status, endpoint.location = 200, ""
    assert post.send(timedelta(minutes=1)) == [True]
    assert "http" not in str(endpoint.taken)
    assert not (tmp_path / "home").exists()
