"""Every exception of the platform, sorted by what the caller can do about it.

::

    MlplatformError
    ├── DeclarationError            mend the domain's declaration
    ├── DataError                   mend or wait for the data
    │   ├── NotLanded               a source has sent nothing for that day
    │   ├── MalformedFile           a landed file cannot be read as its source declares
    │   ├── ChangedWhileRead        what landed went or changed during the read: run again
    │   ├── MissingPartition        a partition that was asked for has no revision
    │   │   └── UnknownRecipe       no recipe of that key was made
    │   ├── RemovedByPolicy         it was there, and was removed on purpose: the message says when and by which rule
    │   ├── IncompleteWindow        a trailing window lacks some of its days
    │   ├── ContractBroken          a blocking rule of a contract refused the partition
    │   ├── DomainCodeRaised        the domain's own function raised over a day
    │   ├── SegmentUnreadable       a segment of the prediction log holds no answers
    │   ├── UnknownRequest          the prediction log has no answer of that id
    │   ├── GoldenAltered           a file of stored golden traffic is not the one that was stored
    │   └── CannotJudge             a check has too little to judge a domain by
    ├── ExpectationRaised           mend the contract or Great Expectations: it gave no verdict
    ├── ReportFailed                do without the picture: Evidently gave none, the figures stand
    ├── UnknownFeature              ask for a feature that there is: the message names them
    ├── OtherViewVersion            ask for the version of the view that there is
    ├── NonDeterministicStage       mend the transformation: same inputs, other bytes
    ├── StaleRevision               somebody else wrote first: read again, decide again
    ├── Unsigned                    say who acts, and why; nothing was recorded
    ├── LedgerBroken                restore the ledger's table; nothing is decided by it before
    ├── RecordIncomplete            let what trains say all that a model is made from; it is not registered
    ├── PromotionRefused            read the decision's reasons; nothing was moved
    ├── RolloutRefused              read the reason; the rollout stands where it stood
    ├── PlanInvalid                 mend the plan file; the last good one is in force
    ├── BundleError                 the bundle must not be served
    │   ├── BundleCorrupt           a file does not match its hash in the manifest
    │   ├── ViewVersionMismatch     the bundle was trained on another version of a view
    │   ├── DeviceUnavailable       the declared device is not on this machine
    │   ├── GoldenMismatch          the golden rows are scored differently here than in training
    │   └── BentoNotBuilt           BentoML could not build a Bento of the bundle
    ├── ScoreOutOfRange             a score that is no answer: fall back, and look at the model
    ├── WorkerFailed                fall back: the model workers gave no score for a batch
    │   ├── WorkerLost              none is there, or all that were asked broke off
    │   ├── WorkerRefused           one said why it does not score the batch
    │   └── MalformedFrame          what one said, or was to be told, is no frame
    ├── InvalidRequest              mend the request: every field at fault is named
    ├── MalformedBody               mend the request: its body is not what is expected
    ├── UnknownApiKey               look the key's id up in the list
    ├── KeysUnreadable              mend the file of the API keys, or its owner
    ├── QueueFull                   ask again after `retry_after` seconds
    ├── BatchLost                   answer from the fallback, and look at what processes batches
    └── Unavailable                 start or mend an outside part (a server, a store, a port)
        └── ViewNotPublished        the online store holds nothing of a view

A class builds its own message from its arguments, and the message says what to do next.
"""

from collections.abc import Mapping, Sequence


class MlplatformError(Exception):
    """The root: catch it to tell the platform's own refusals from faults."""


class DeclarationError(MlplatformError):
    """A domain is declared in a way that cannot work; found when it is loaded, before anything runs."""


class DataError(MlplatformError):
    """The data is not what was declared, or not there yet."""


class MalformedFile(DataError):
    """A landed file cannot be read as its source declares."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}. Nothing of it was taken in; land a corrected file under the same name")
        self.path = path
        self.reason = reason


class ChangedWhileRead(DataError):
    """What has landed went or changed while it was being read: no fault of the day, so it is not kept as one."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path} {what} while it was being read. It is read again by itself, when it is there as a whole"
        )
        self.path = path


class NotLanded(DataError):
    """A source has sent nothing for a day that was asked for."""

    def __init__(self, source: str, partition: str, folder: str) -> None:
        super().__init__(
            f"nothing has landed of {source} for {partition}. Land it in {folder} (`mlplatform land` for the "
            "sample), or declare the day absent in the source"
        )
        self.source = source
        self.partition = partition


class MissingPartition(DataError):
    """A partition that was asked for has no revision."""

    def __init__(self, table: str, partitions: Sequence[str]) -> None:
        super().__init__(
            f"{table} has no revision of {_listed(partitions)}. Materialise that stage for these partitions first"
        )
        self.table = table
        self.partitions = tuple(partitions)


class UnknownRecipe(MissingPartition):
    """No recipe of that key was made."""

    def __init__(self, model: str, key: str, recipes: Sequence[str]) -> None:
        there = f"there is {_listed(recipes)}" if recipes else "it has none"
        DataError.__init__(
            self, f"no recipe of {model} is called {key!r}; {there}. `mlplatform train` makes the recipe of now"
        )
        self.table = model
        self.partitions = (key,)


class RemovedByPolicy(DataError):
    """What is asked for was removed on purpose, and left a tombstone."""

    def __init__(self, tombstone: str) -> None:
        super().__init__(
            f"{tombstone}. It cannot be had again; `mlplatform retention tombstones` lists what was removed, by whom "
            "and why"
        )
        self.tombstone = tombstone


class IncompleteWindow(DataError):
    """A trailing window lacks some of its days, so nothing was computed from what happens to be there."""

    def __init__(self, view: str, partition: str, missing: Sequence[str]) -> None:
        super().__init__(
            f"{view} of {partition} needs {_listed(missing)}, which did not arrive. "
            "Land and materialise those days, or declare them absent in the source"
        )
        self.view = view
        self.partition = partition
        self.missing = tuple(missing)


class ContractBroken(DataError):
    """A blocking rule of a contract refused the partition; what landed stays in `raw` and `quarantine`."""

    def __init__(self, source: str, broken: Mapping[str, Sequence[str]]) -> None:
        told = "; ".join(f"{partition}: {', '.join(rules)}" for partition, rules in sorted(broken.items()))
        super().__init__(f"{source} breaks blocking rules ({told}). Correct the source and land the day again")
        self.source = source
        self.broken = {partition: tuple(rules) for partition, rules in broken.items()}


class DomainCodeRaised(DataError):
    """A function of the domain raised over the rows of a day."""

    def __init__(self, what: str, day: str, error: Exception) -> None:
        told = " ".join(str(error).split()) or "no message"
        super().__init__(
            f"{what} raised {type(error).__name__} over {day}: {told[:300]}. Mend the function for such rows, or let "
            "the contract refuse them; the day is computed again by itself then"
        )
        self.what = what
        self.day = day


class SegmentUnreadable(DataError):
    """A segment of the prediction log cannot be read as one."""

    def __init__(self, segment: str, reason: str) -> None:
        super().__init__(
            f"{segment}: {reason}. Look at what else writes to the folder of the prediction log; delete the segment "
            "once nobody misses its answers"
        )
        self.segment = segment
        self.reason = reason


class GoldenAltered(DataError):
    """A file of stored golden traffic is not the one that was stored."""

    def __init__(self, folder: str, path: str, reason: str) -> None:
        super().__init__(
            f"{folder}/{path} is not what was stored: {reason}. Restore it from version control; what is to change is "
            "changed by `mlplatform golden record`, with a reason"
        )
        self.path = path


class UnknownRequest(DataError):
    """The prediction log has no answer of that id."""

    def __init__(self, request_id: str, where: str, advice: str, *, rows: int = 0) -> None:
        super().__init__(f"no answer is called {request_id!r} in {where}. {advice}")
        self.request_id = request_id
        self.rows = rows
        """Answers of a request of that id, where it had many rows."""


class CannotJudge(DataError):
    """A check of a domain has too little to judge by; the check is skipped, and this is the reason it gives."""


class ExpectationRaised(MlplatformError):
    """Great Expectations could not evaluate some expectations: neither kept nor broken, so nothing passes."""

    def __init__(self, suite: str, raised: Mapping[str, str]) -> None:
        first, message = next(iter(raised.items()))
        more = f" (and {len(raised) - 1} more)" if len(raised) > 1 else ""
        super().__init__(
            f"{suite}: the expectation {first!r} raised inside{more}: {message}. "
            "Check every partition against this very contract, or mend the Great Expectations install"
        )
        self.suite = suite
        self.raised = dict(raised)


class ReportFailed(MlplatformError):
    """Evidently made no report; what it would have shown stands in the figures of the day."""

    def __init__(self, title: str, error: Exception) -> None:
        super().__init__(
            f"no report of {title}: Evidently raised {type(error).__name__} ({str(error)[:300]}). The figures stand "
            "without it; look at the columns that it names"
        )
        self.title = title


class UnknownFeature(MlplatformError):
    """A feature reference names nothing that there is."""

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(f"{reference!r} is no feature: {reason}")
        self.reference = reference
        self.reason = reason


class OtherViewVersion(MlplatformError):
    """A view was asked for in a version that is not the one there is."""

    def __init__(self, view: str, asked: str, there: str | None) -> None:
        found = f"there is {view}@{there}" if there else "no version of it is there"
        super().__init__(
            f"{view}@{asked} is asked for, but {found}. Ask for that one, or compute and publish the one asked for"
        )
        self.view = view
        self.asked = asked
        self.there = there


class NonDeterministicStage(MlplatformError):
    """The same inputs, code and environment gave other bytes than before."""

    def __init__(self, table: str, partitions: Sequence[str]) -> None:
        super().__init__(
            f"{table} of {_listed(partitions)}: same input revisions, code version and lock file, yet other content "
            "than an earlier revision. Look for an unsorted group, a random number or a clock in the transformation"
        )
        self.table = table
        self.partitions = tuple(partitions)


class StaleRevision(MlplatformError):
    """The partition has moved on since it was read."""

    def __init__(self, table: str, partition: str, expected: int, found: int) -> None:
        super().__init__(
            f"{table} of {partition} is at revision {found}, not {expected}: somebody else wrote first. "
            "Read it again and decide again"
        )
        self.table = table
        self.partition = partition
        self.expected = expected
        self.found = found


class RecordIncomplete(MlplatformError):
    """The record of a model does not say all that it was made from, so nobody could make it again."""

    def __init__(self, model: str, recipe: str, lacking: Sequence[str]) -> None:
        super().__init__(
            f"{model} {recipe} has no whole record; it lacks {', '.join(lacking)}. It is not registered: train it "
            "again by the asset `model`, or let what trains it hand over a whole record (`mlplatform.registry.origin`)"
        )
        self.model = model
        self.recipe = recipe
        self.lacking = tuple(lacking)


class PromotionRefused(MlplatformError):
    """No alias is moved without a decision that says `pass` for this very candidate and champion."""

    def __init__(self, model: str, recipe: str, reasons: Sequence[str]) -> None:
        super().__init__(f"{model} {recipe} is not promoted: {'; '.join(reasons)}. Nothing was moved")
        self.model = model
        self.recipe = recipe
        self.reasons = tuple(reasons)


class Unsigned(MlplatformError):
    """The ledger takes nothing without a name and a reason."""

    def __init__(self, model: str, action: str) -> None:
        super().__init__(
            f"`{action}` of {model} says not who acts, or not why. Give both (`--by NAME --reason TEXT`); nothing was "
            "recorded"
        )
        self.model = model
        self.action = action


class LedgerBroken(MlplatformError):
    """An entry of the ledger is not as it was written."""

    def __init__(self, model: str, number: int, reason: str) -> None:
        super().__init__(
            f"entry {number} of the ledger of {model} is not as it was written: {reason}. Restore the ledger's table "
            "from a copy, and find out what else writes to it"
        )
        self.model = model
        self.number = number
        self.reason = reason


class RolloutRefused(MlplatformError):
    """A step of a rollout that is not taken, whoever asks for it."""

    def __init__(self, model: str, action: str, reason: str) -> None:
        super().__init__(f"`{action}` of {model} is refused: {reason}. Nothing was changed")
        self.model = model
        self.action = action
        self.reason = reason


class PlanInvalid(MlplatformError):
    """A plan that cannot be gone by: who reads it keeps the last good one."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(
            f"the plan of {model} is refused: {reason}. Mend it, or have it written again by `mlplatform rollout`; "
            "the last good one is in force"
        )
        self.model = model
        self.reason = reason


class BundleError(MlplatformError):
    """The bundle must not be served."""


class BundleCorrupt(BundleError):
    """A file of the bundle is missing or does not match its hash in the manifest."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}. Restore the file from a copy; do not serve this bundle")
        self.path = path


class ViewVersionMismatch(BundleError):
    """The bundle was trained on another version of a feature view than the one offered."""

    def __init__(self, view: str, trained: str, offered: str) -> None:
        super().__init__(
            f"the model was trained on {view}@{trained}, the store offers {view}@{offered}. "
            "Publish the version it was trained on, or train again"
        )
        self.view = view
        self.trained = trained
        self.offered = offered


class DeviceUnavailable(BundleError):
    """The declared device is not on this machine; XGBoost would go on silently on the CPU."""

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(
            f"device {device!r} is declared but not there: {reason}. Run on a machine with the device, "
            "or train with `device='cpu'`"
        )
        self.device = device


class ScoreOutOfRange(MlplatformError):
    """A model gave a score that is no answer: not finite, or no probability. The breaker counts it as a failure."""

    def __init__(self, model: str, rows: Sequence[int], reason: str) -> None:
        listed = ", ".join(str(row) for row in rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        super().__init__(
            f"{model}: the score of row {listed} is {reason}. Answer from the fallback, and compare the features of "
            "that row with the model's training set"
        )
        self.model = model
        self.rows = tuple(rows)
        self.reason = reason


class GoldenMismatch(BundleError):
    """The golden rows are scored differently here than where the model was trained."""

    def __init__(self, model: str, digest: str, differing: int, rows: int) -> None:
        super().__init__(
            f"{model} {digest}: {differing} of {rows} golden rows are scored differently than in training. "
            "Install the lock file of its record and use its device class; then compare again"
        )
        self.differing = differing


class BentoNotBuilt(BundleError):
    """BentoML could not build a Bento of the bundle."""

    def __init__(self, tag: str, reason: str) -> None:
        super().__init__(f"{tag} could not be built: {reason}. Nothing was stored; mend that and build again")
        self.tag = tag


class WorkerFailed(MlplatformError):
    """The model workers gave no score for a batch; the breaker counts it as one failure."""


class WorkerLost(WorkerFailed):
    """No model worker is there, or each that was asked broke off."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}. The supervisor starts model workers again; its log says why they went")
        self.reason = reason


class WorkerRefused(WorkerFailed):
    """A model worker said why it does not score a batch."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model worker does not score this batch: {reason}")
        self.reason = reason


class MalformedFrame(WorkerFailed):
    """What came over the socket between gateway and model worker, or was to be sent, is no frame."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is no frame: {reason}. The connection is closed; both ends must be of one installation")
        self.reason = reason


class InvalidRequest(MlplatformError):
    """A request breaks the contract; `fields` names each field and what is wrong with it."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in fields.items()))
        self.fields = dict(fields)


class MalformedBody(MlplatformError):
    """The body of a request is not what its path takes; of one request: a JSON object with each name once."""

    def __init__(self, reason: str, *, instead: str = "Send one JSON object, each name once, in UTF-8") -> None:
        super().__init__(f"the body is not what is expected: {reason}. {instead}")
        self.reason = reason


class UnknownApiKey(MlplatformError):
    """There is no API key of that id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id!r}. `mlplatform keys list` shows the ids; nothing was changed")
        self.key_id = key_id


class KeysUnreadable(MlplatformError):
    """The file of the API keys is damaged, or belongs to somebody else."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}. It is written by `mlplatform keys` and readable by its owner only: use the same user, "
            "or put a copy of the file back"
        )
        self.path = path


class QueueFull(MlplatformError):
    """More rows wait to be scored than may wait."""

    def __init__(self, queued_rows: int, retry_after: float) -> None:
        super().__init__(f"{queued_rows} rows wait to be scored already; ask again in {retry_after:.1f} s")
        self.queued_rows = queued_rows
        self.retry_after = retry_after


class BatchLost(MlplatformError):
    """A batch ended without an answer for each of its rows."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}, so none of the batch's rows has an answer. Answer from the fallback, or ask again")
        self.reason = reason


class Unavailable(MlplatformError):
    """An outside part (a server, a store, a port) is not there."""


class ViewNotPublished(Unavailable):
    """The online store can be read, and holds nothing of a view."""

    def __init__(self, view: str) -> None:
        super().__init__(f"the online store holds nothing of {view}. Materialise online_store")
        self.view = view


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
