"""The manifest: one content, one digest."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import BundleCorrupt
from mlplatform.registry.manifest import Manifest, diff
from mlplatform_tests.fakes.tiny_domain import record

# YAML in pure Python: 5 ms each, and a busy machine makes more of it.
unhurried = settings(max_examples=50)

words = st.text(max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
paths = st.text("abcdefghij/._", min_size=1, max_size=8)


def manifests() -> st.SearchStrategy[Manifest]:
    """Manifests of any content."""
    return st.builds(
        Manifest,
        model=words,
        model_version=words,
        files=st.dictionaries(paths, words, max_size=3),
        views=st.dictionaries(paths, words, max_size=3),
        fitted=words,
        features=st.lists(words, max_size=4).map(tuple),
        task=words,
        output=words,
        decision=st.none() | numbers,
        decision_reason=words,
        review_below=st.none() | numbers,
        review_reason=words,
        device=st.sampled_from(["cpu", "cuda"]),
        threads=st.integers(1, 64),
        objectives=st.dictionaries(paths, numbers, max_size=2),
        serving=st.dictionaries(paths, numbers | st.dictionaries(paths, st.integers(), max_size=2), max_size=2),
        rollback_target=st.none() | words,
        record=st.just(record()),
    )


@unhurried
@given(manifests())
def test_read_as_written(manifest: Manifest) -> None:
    """Reading the canonical form gives the same manifest and the same digest: the hash of the file's bytes."""
    text = manifest.to_yaml()
    again = Manifest.from_yaml(text)
    assert again == manifest
    assert again.digest == manifest.digest == hashlib.sha256(text.encode()).hexdigest()
    assert diff(manifest, again) == []


@unhurried
@given(manifests(), manifests())
def test_equal_digests_mean_equal_manifests(left: Manifest, right: Manifest) -> None:
    """Two manifests have one digest exactly when they say the same, and `diff` is empty exactly then."""
    same = left.to_dict() == right.to_dict()
    assert (left.digest == right.digest) == same == (not diff(left, right))


@unhurried
@given(manifests())
def test_order_of_keys_does_not_count(manifest: Manifest) -> None:
    """A mapping filled in another order is the same content."""
    turned = replace(manifest, files=dict(reversed(list(manifest.files.items()))))
    assert turned.digest == manifest.digest


@unhurried
@given(manifests(), st.sampled_from([("threads", 65), ("decision", 1e300), ("features", ("z" * 13,))]))
def test_any_change_is_a_new_digest(manifest: Manifest, change: tuple[str, Any]) -> None:
    """A changed field changes the digest, and `diff` names it."""
    name, value = change
    changed = replace(manifest, **{name: value})
    assert changed.digest != manifest.digest
    plain = list(value) if isinstance(value, tuple) else value
    assert diff(manifest, changed) == [(name, manifest.to_dict()[name], plain)]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda text: text + "surplus: 1\n",
        lambda text: text.replace("device: cpu\n", "", 1),
        lambda text: "# a comment\n" + text,
        lambda text: "just words",
        lambda text: "a: [",
    ],
)
def test_other_forms_are_refused(break_it: Any) -> None:
    """Unknown or missing fields, comments and other texts are refused."""
    text = manifest_of().to_yaml()
    with pytest.raises(BundleCorrupt, match=r"manifest\.yaml"):
        Manifest.from_yaml(break_it(text))


def test_diff_goes_into_the_parts() -> None:
    """A difference deep inside is named by its path."""
    left = manifest_of()
    right = replace(left, files={"model.ubj": "2"}, serving={"max_batch_rows": 7})
    assert diff(left, right) == [("files.model.ubj", "1", "2"), ("serving.max_batch_rows", 128, 7)]


OLD_FORM = """\
decision: 0.5
decision_reason: ''
device: cpu
features:
- a
files:
  model.ubj: '1'
fitted: fitted.json
model: harbour/waits
model_version: 2024-05-01-ab12cd34
objectives:
  p99_ms: 10.0
output: 0 or 1
package: harbour
record:
  code:
    training: cc
  commit: null
  configuration: ee
  device: cpu
  dirty: null
  inputs:
    harbour/calls: aa
  lock: dd
  python: 3.11.9
  seeds:
    booster: 1
  threads: 1
  training_set: bb
  versions:
    polars: 2.1.0
review_below: null
review_reason: ''
rollback_target: null
serving:
  max_batch_rows: 128
task: binary
threads: 1
views: {}
"""
"""As manifests were written before records told of contents, host and checkouts."""


def test_a_manifest_of_before_is_still_one() -> None:
    """What was written earlier is read, is canonical, and keeps its digest."""
    manifest = Manifest.from_yaml(OLD_FORM)
    assert manifest.to_yaml() == OLD_FORM
    assert manifest.digest == hashlib.sha256(OLD_FORM.encode()).hexdigest()
    assert (manifest.record.contents, manifest.record.host, manifest.record.checkouts) == (None, None, None)


def test_what_a_newer_record_tells_is_part_of_the_digest() -> None:
    """Another machine is another manifest."""
    newer = replace(
        manifest_of(), record=record(host={"machine": "x86_64"}, checkouts={"mlplatform": {"commit": None}})
    )
    assert Manifest.from_yaml(newer.to_yaml()) == newer
    assert newer.digest != manifest_of().digest


def manifest_of() -> Manifest:
    """A plain manifest."""
    return Manifest(
        model="harbour/waits",
        model_version="2024-05-01-ab12cd34",
        package="harbour",
        files={"model.ubj": "1"},
        views={},
        fitted="fitted.json",
        features=("a",),
        task="binary",
        output="0 or 1",
        decision=0.5,
        decision_reason="",
        review_below=None,
        review_reason="",
        device="cpu",
        threads=1,
        objectives={"p99_ms": 10.0},
        serving={"max_batch_rows": 128},
        rollback_target=None,
        record=record(),
    )
