"""Features that are never missing: learned from the reference that the first judged day has made, and not before."""

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.monitoring.alerts.nulls import NeverMissing
from mlplatform.monitoring.quality.reference import reference_of
from mlplatform.registry.candidate import bundle_of
from mlplatform_tests.fakes.synthetic_home import TrainedHome


def test_they_are_told_once_there_is_a_reference(own_trained: TrainedHome) -> None:
    """Names in the order of the manifest's vectors; a look makes no reference itself, which takes long."""
    platform, manifest = own_trained.platform, own_trained.entry.to_manifest
    watched = NeverMissing(platform, DOMAIN)
    assert watched.features(manifest) is None
    made = reference_of(platform, DOMAIN, manifest)
    known = watched.features(manifest)
    assert known is not None
    names, never = known
    assert names == tuple(bundle_of(platform, manifest).manifest.features)
    assert never.any()
    shares = made.sketches.nulls / made.sketches.rows
    assert (shares.max(axis=0)[never] <= 0.001).all()
    assert (shares.max(axis=0)[~never] > 0.001).all()
