"""Feature references: what a name stands for, and what is said of one that stands for nothing."""

from dataclasses import replace

import pytest

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import OtherViewVersion, UnknownFeature
from mlplatform.features.references import model_references, resolve
from mlplatform.features.version import view_version
from mlplatform.features.view import view_feature_names

COURIER = DOMAIN.views[0]
VERSION = view_version(DOMAIN, COURIER)


def test_columns_come_in_the_order_of_the_references() -> None:
    """All of a view in declared order; what is named twice comes once."""
    asked = resolve(
        DOMAIN, ["district:district_mean_minutes_3d", "courier:*", f"courier@{VERSION}:courier_deliveries_3d"]
    )
    assert asked.columns == ("district_mean_minutes_3d", *(feature.name for feature in COURIER.features))
    assert [(each.label, each.version) for each in asked.views][1] == ("synthetic/courier", VERSION)


def test_a_shared_name_is_told_apart() -> None:
    """Two features of one name have their view before them, and where that is shared too, their domain."""
    copy = replace(DOMAIN, name="copy")
    name = COURIER.features[0].name
    assert resolve(copy, [f"courier:{name}", f"synthetic/courier:{name}"]).columns == (
        f"copy__courier__{name}",
        f"synthetic__courier__{name}",
    )
    other = replace(copy, views=(replace(COURIER, name="rider"),), models=())
    assert resolve(other, [f"rider:{name}", f"synthetic/courier:{name}"]).columns == (
        f"rider__{name}",
        f"courier__{name}",
    )


def test_a_models_references_are_its_inputs() -> None:
    """In the order of its view features."""
    for model in DOMAIN.models:
        assert resolve(DOMAIN, model_references(DOMAIN, model)).columns == view_feature_names(DOMAIN, model)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("courier", r"is not of the form `view:feature`"),
        ("courier:", r"is not of the form"),
        ("courier:a:b", r"is not of the form"),
        ("curier:*", r"no view of synthetic is called 'curier'. Is `courier` meant\? There is courier, district"),
        ("courier:courier_deliverys_3d", r"Is `courier_deliveries_3d` meant\?"),
        ("synthetik/courier:*", r"no domain is called 'synthetik'. Is `synthetic` meant\?"),
    ],
)
def test_what_there_is_not_is_refused(reference: str, message: str) -> None:
    """The message names what there is, and what was likely meant."""
    with pytest.raises(UnknownFeature, match=message):
        resolve(DOMAIN, [reference])


def test_another_version_is_refused() -> None:
    """It says which one there is."""
    with pytest.raises(OtherViewVersion, match=f"courier@0123 is asked for, but there is synthetic/courier@{VERSION}"):
        resolve(DOMAIN, ["courier@0123:*"])
