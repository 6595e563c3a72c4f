"""The landing bucket: what S3 adds to files in a folder."""

import pytest

from mlplatform.domain.source import Bucket
from mlplatform.errors import ChangedWhileRead, MalformedFile, Unavailable
from mlplatform.features.landing.bucket import LandingBucket
from mlplatform.features.resources import s3_client
from mlplatform.settings import settings
from mlplatform_tests.fakes.s3_endpoint import Held

PREFIX = "shop/orders"


def landing(held: Held, prefix: str = PREFIX) -> LandingBucket:
    """The landing under a prefix."""
    return LandingBucket(Bucket(bucket=held.bucket, prefix=prefix), lambda: held.client)


def test_only_what_lies_right_below_the_prefix_is_listed(s3: Held) -> None:
    """No neighbour whose name begins alike; a folder is told by its name, temporary objects are not."""
    for key in (
        f"{PREFIX}/2024-01-01.parquet",
        f"{PREFIX}/2024-01-02.csv.part",
        f"{PREFIX}/.hidden",
        f"{PREFIX}/2024/01/03.csv",
        f"{PREFIX}-old/2024-01-04.csv",
        "2024-01-05.csv",
    ):
        s3.put(key, b"a\n1\n")
    assert sorted(landing(s3).list()) == ["2024-01-01", "2024/"]
    assert list(landing(s3, f"/{PREFIX}/").list()) == list(landing(s3).list())
    assert sorted(landing(s3, "").list()) == ["2024-01-05", "shop/"]


def test_a_listing_goes_on_after_its_first_page(s3: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 gives a thousand names at a time."""
    for number in range(7):
        s3.put(f"{PREFIX}/2024-01-0{number + 1}.csv", b"a\n1\n")
    asked = s3.client.list_objects_v2
    monkeypatch.setattr(s3.client, "list_objects_v2", lambda **options: asked(**options, MaxKeys=3))
    assert len(landing(s3).list()) == 7


def test_the_same_bytes_are_the_same_version(s3: Held) -> None:
    """Landing a day again as it was changes nothing."""
    landing(s3).write("2024-01-02.csv", b"a\n1\n")
    before = landing(s3).list()
    assert landing(s3).write("2024-01-02.csv", b"a\n1\n") == f"s3://{s3.bucket}/{PREFIX}/2024-01-02.csv"
    assert landing(s3).list() == before
    landing(s3).write("2024-01-02.csv", b"a\n2\n")
    assert landing(s3).list() != before


def test_an_object_that_changes_between_listing_and_bytes_is_refused(s3: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ETag that comes with the bytes decides; so it is with one that has just gone."""
    place = landing(s3)
    place.write("2024-01-02.csv", b"a\n1\n")
    planned = place.list()["2024-01-02"]
    get = s3.client.get_object

    def corrected_first(**asked: str) -> object:
        s3.put(asked["Key"], b"a\n2\n")
        return get(**asked)

    def removed_first(**asked: str) -> object:
        s3.remove(asked["Key"])
        return get(**asked)

    for happens, told in ((corrected_first, "landed again while"), (removed_first, "has gone while")):
        with monkeypatch.context() as patched:
            patched.setattr(s3.client, "get_object", happens)
            with pytest.raises(ChangedWhileRead, match=told):
                place.read("2024-01-02", planned)


def test_two_objects_of_one_day_are_refused(s3: Held) -> None:
    """The message names both, with their address."""
    place = landing(s3)
    place.write("2024-01-02.csv", b"a\n1\n")
    place.write("2024-01-02.parquet", b"PAR1")
    with pytest.raises(MalformedFile, match=rf"{PREFIX}/2024-01-02\.csv: 2024-01-02\.csv and .*parquet are both"):
        place.read("2024-01-02", place.list()["2024-01-02"])


def test_an_object_that_came_beside_another_is_no_fault_of_that_one(s3: Held) -> None:
    """When the day was listed it had one; and one without a suffix is nobody's day."""
    place = landing(s3)
    place.write("2024-01-02.csv", b"a\n1\n")
    planned = place.list()
    place.write("2024-01-02", b"a\n2\n")
    assert place.list()["2024-01-02"] == planned["2024-01-02"]
    assert "2024-01-02 (no suffix)" in place.list()
    place.write("2024-01-02.parquet", b"PAR1")
    with pytest.raises(ChangedWhileRead, match=r"2024-01-02\.csv got 2024-01-02\.parquet beside it"):
        place.read("2024-01-02", planned["2024-01-02"])


def test_a_bucket_that_is_not_there_is_said_to_be(s3: Held) -> None:
    """It must not look like one in which nothing has landed."""
    nowhere = LandingBucket(Bucket(bucket="no-such-bucket"), lambda: s3.client)
    for attempt in (nowhere.list, lambda: nowhere.read("2024-01-02", "")):
        with pytest.raises(Unavailable, match=r"s3://no-such-bucket cannot be reached.*Make the bucket, or correct"):
            attempt()


def test_an_endpoint_that_does_not_answer_is_said_not_to(s3: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable to look at."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = s3_client(settings())
    with pytest.raises(Unavailable, match="AWS_ENDPOINT_URL"):
        LandingBucket(Bucket(bucket="shop"), lambda: away).list()


def test_the_region_may_be_told_by_either_of_its_names(s3: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """`AWS_REGION`, as the tables are told, or `AWS_DEFAULT_REGION`, as the client's own library calls it."""
    assert s3_client(settings()).meta.region_name == "eu-central-1"
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3_client(settings()).meta.region_name == "eu-west-1"
