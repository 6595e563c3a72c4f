"""The settings: what the environment says about places, and what it must not say."""

from pathlib import Path

import pytest

from mlplatform.errors import DeclarationError
from mlplatform.features.online.store import open_online_store
from mlplatform.features.resources import platform_from_settings
from mlplatform.settings import own_variables, settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*own_variables, "AWS_ENDPOINT_URL", "AWS_REGION", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def test_everything_lies_in_the_home_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, ledger, landing places and MLflow, wherever that folder is."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path))
    platform = platform_from_settings()
    assert platform.table("shop", "raw", "orders") == f"{tmp_path}/tables/shop/raw/orders"
    assert platform.ledger == f"{tmp_path}/ledger"
    assert platform.landing("shop") == tmp_path / "landing" / "shop"
    assert platform.mlflow_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert platform.storage_options is None


def test_tables_and_landing_places_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another folder, or on S3; what a process needs next to it stays in the home folder."""
    monkeypatch.setenv("MLPLATFORM_TABLES", "s3://lake/shop/")
    monkeypatch.setenv("MLPLATFORM_LANDING", "incoming")
    platform = platform_from_settings()
    assert platform.table("shop", "raw", "orders") == "s3://lake/shop/tables/shop/raw/orders"
    assert platform.ledger == "s3://lake/shop/ledger"
    assert platform.landing("shop") == Path.cwd() / "incoming" / "shop"
    assert platform.bundles == Path.cwd() / "var" / "bundles"


@pytest.mark.parametrize("told", ["s3:/lake", "s3://", "gs://lake", "s3:lake", "https://lake"])
@pytest.mark.parametrize("variable", ["MLPLATFORM_TABLES", "MLPLATFORM_LANDING"])
def test_an_address_that_is_none_is_refused(variable: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise become an oddly named folder."""
    monkeypatch.setenv(variable, told)
    with pytest.raises(DeclarationError, match=f"{variable} is .*Set it to a folder or to s3://bucket/prefix"):
        settings()


def test_an_endpoint_without_tls_is_allowed_by_naming_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries beneath want to be told apart that it is meant."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert settings().storage_options == {"aws_allow_http": "true"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.example.org")
    assert settings().storage_options is None


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("MLPLATFORM_KEYS", "on"),
        ("MLPLATFORM_RATE_LIMITS", "rdis://:hidden@cache"),
        ("MLPLATFORM_RATE_LIMITS", "cache"),
        ("MLPLATFORM_ONLINE_STORE", "rdis://:hidden@cache"),
    ],
)
def test_a_slip_does_not_open_the_service(variable: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What access goes by is understood or refused; a password that stands in it is not shown."""
    monkeypatch.setenv(variable, told)
    with pytest.raises(DeclarationError, match=variable) as refused:
        settings()
    assert "hidden" not in str(refused.value)


def test_access_is_told_by_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys by the address and limits in memory, where neither is set."""
    assert (settings().keys, settings().rate_limits) == ("auto", "memory")
    monkeypatch.setenv("MLPLATFORM_KEYS", "required")
    monkeypatch.setenv("MLPLATFORM_RATE_LIMITS", "redis://:hidden@cache:6379/1")
    assert (settings().keys, settings().rate_limits) == ("required", "redis://:hidden@cache:6379/1")
    assert "hidden" not in repr(settings())


def test_the_online_store_is_in_the_home_folder_or_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pipeline and gateways read the same setting; the password that may stand in it is shown nowhere."""
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path))
    assert platform_from_settings().online_store == settings().online_store == f"{tmp_path}/online"
    monkeypatch.setenv("MLPLATFORM_ONLINE_STORE", "redis://:hidden@cache:6379/1")
    platform = platform_from_settings()
    assert platform.online_store == settings().online_store == "redis://:hidden@cache:6379/1"
    assert "hidden" not in f"{platform!r} {settings()!r} {open_online_store(platform.online_store)!r}"
