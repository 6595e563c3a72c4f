"""The plan: which version of a model answers whom, as one small file that every gateway watches.

It is a flag in flagd's format, so that any OpenFeature tool reads it: the variants are manifests, and a `fractional`
rule gives each key its arm. Gateways do not evaluate that rule for every request, which would cost as much as the rest
of it; they compile it to a cumulative table, which gives every key the arm that flagd gives it.

A key falls into a bucket by the hash of salt and key; the challenger's buckets come first. So a key that is in at 5 %
is in at 20 %, and at weight 0 nobody is in. A request without a key goes to the champion.

What it refuses: a file that is not whole, names arms that there are not, or has a rule that is not understood. Whoever
watches keeps the last good one.

References
----------
https://flagd.dev/reference/flag-definitions/ and https://flagd.dev/reference/custom-operations/fractional-operation/
(murmur3 of the canonical CBOR of the bucketing value, 32 bits, times the sum of the weights, shifted by 32).
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import mmh3
import msgspec

from mlplatform.domain.rollout import LARGEST_EXPLORATION
from mlplatform.errors import PlanInvalid

Arm = Literal["challenger", "champion"]
Table = tuple[tuple[int, Arm], ...]
Mode = Literal["full", "shadow", "canary", "a/b"]

WHOLE = 10_000
"""Sum of the weights that we write: the smallest share is 0.01 %."""

LARGEST_SUM = 2**31 - 1
"""Of weights, in flagd."""

_digest = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
"""A manifest's is hexadecimal. Bundles are looked for in a folder of that name: it must not lead out of theirs."""

_SCHEMA = "https://flagd.dev/schema/v0/flags.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who is answered by what."""

    model: str
    """`domain/model`."""

    champion: str
    """Digest of its manifest."""

    challenger: str | None = None
    mode: Mode = "full"
    """`full`: the champion answers all. `shadow`: it does, and the challenger scores the same requests for the log.
    `canary`, `a/b`: the challenger answers its share, and both score everything; they differ in what is wanted."""

    weight: int = 0
    """Of the challenger, in `WHOLE`."""

    salt: str = ""
    """What a rollout is known by: another salt is another draw of keys."""

    number: int = 0
    """Counts the plans of a model."""

    exploration: float = 0.0
    """Share of requests whose arm is drawn anew, whatever their key."""

    table: Table | None = None
    """Upper bounds of the buckets of each arm; None: as `weight` says."""

    def __post_init__(self) -> None:
        if wrong := _wrong(self):
            raise PlanInvalid(self.model, wrong)

    @property
    def bounds(self) -> Table:
        """Upper bounds of the buckets of each arm."""
        return self.table if self.table is not None else ((self.weight, "challenger"), (WHOLE, "champion"))

    @property
    def version(self) -> str:
        """Names the plan in the log: its number, and a hash of what it says."""
        return f"{self.number}-{blake2b(to_file(self), digest_size=4).hexdigest()}"

    @property
    def share(self) -> float:
        """Of keys that the challenger answers."""
        return self.bounds[0][0] / self.bounds[-1][0] if self.challenger else 0.0

    def arm(self, key: str | None) -> Arm:
        """Which arm answers a key.

        Examples
        --------
        >>> plan = Plan(model="d/m", champion="a", challenger="b", mode="canary", weight=2_500, salt="s")
        >>> arms = [plan.arm(f"user {number}") for number in range(10_000)]
        >>> 2_400 < arms.count("challenger") < 2_600, plan.arm(None)
        (True, 'champion')
        """
        if key is None or self.challenger is None or self.mode in ("full", "shadow"):
            return "champion"
        bucket = (mmh3.hash(_cbor(self.salt + key), signed=False) * self.bounds[-1][0]) >> 32
        return next(arm for bound, arm in self.bounds if bucket < bound)


def to_file(plan: Plan) -> bytes:
    """A plan as flagd reads it, the whole file."""
    flag: dict[str, Any] = {
        "state": "ENABLED",
        "variants": {"champion": plan.champion},
        "defaultVariant": "champion",
        "metadata": {"mode": plan.mode, "number": plan.number, "exploration": plan.exploration},
    }
    if plan.challenger is not None:
        below = [0, *(bound for bound, _ in plan.bounds[:-1])]
        weights = [[arm, bound - lower] for (bound, arm), lower in zip(plan.bounds, below, strict=True)]
        flag["variants"] = {"challenger": plan.challenger, "champion": plan.champion}
        rule = {"fractional": [{"cat": [plan.salt, {"var": "targetingKey"}]}, *weights]}
        # In shadow, and once it is over, the champion answers everybody, whatever the weights.
        flag["targeting"] = rule if plan.mode in ("canary", "a/b") else {}
        flag["metadata"] |= {"salt": plan.salt}
    return msgspec.json.format(msgspec.json.encode({"$schema": _SCHEMA, "flags": {plan.model: flag}}), indent=1) + b"\n"


def from_file(content: bytes, model: str) -> Plan:
    """The plan of a model.

    Raises
    ------
    PlanInvalid
        The file holds none, or one that is not understood.
    """
    try:
        flag = msgspec.json.decode(msgspec.json.decode(content, type=_File).flags[model], type=_Flag)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise PlanInvalid(model, f"it is no flag of flagd's ({type(error).__name__}: {error})") from error
    if (flag.state, flag.default) != ("ENABLED", "champion"):
        raise PlanInvalid(model, "its flag must be ENABLED, with `champion` as its default variant")
    salt, table = _compiled(model, flag.targeting) if flag.targeting else (flag.metadata.salt, None)
    return Plan(
        model=model,
        champion=flag.variants.get("champion", ""),
        challenger=flag.variants.get("challenger"),
        mode=flag.metadata.mode,
        salt=salt,
        number=flag.metadata.number,
        exploration=flag.metadata.exploration,
        table=table,
    )


class _Told(msgspec.Struct):
    mode: Mode = "full"
    number: int = 0
    exploration: float = 0.0
    salt: str = ""


class _Flag(msgspec.Struct):
    state: str
    variants: dict[str, str]
    default: str = msgspec.field(name="defaultVariant")
    targeting: dict[str, Any] | None = None
    metadata: _Told = msgspec.field(default_factory=_Told)


class _File(msgspec.Struct):
    flags: dict[str, msgspec.Raw]
    """Those of others too, which may be anything."""


def _compiled(model: str, targeting: dict[str, Any]) -> tuple[str, Table]:
    """Salt and cumulative table of a `fractional` rule."""
    match targeting:
        case {"fractional": [{"cat": [str(salt), {"var": "targetingKey"}]}, *weights]} if len(targeting) == 1:
            pass
        case _:
            rule = '[{"cat": [SALT, {"var": "targetingKey"}]}, ["challenger", WEIGHT], ["champion", WEIGHT]]'
            raise PlanInvalid(model, f'its targeting is not understood. Write {{"fractional": {rule}}}')
    bound = 0
    table: list[tuple[int, Arm]] = []
    for each in weights:
        match each:
            case [("challenger" | "champion") as arm, int(weight)] if not isinstance(weight, bool) and weight >= 0:
                bound += weight
                table.append((bound, arm))
            case _:
                raise PlanInvalid(model, f"{each!r} is no arm with a whole weight of 0 or more")
    return salt, tuple(table)


def _wrong(plan: Plan) -> str:
    """What makes a plan impossible; empty where nothing does."""
    if not plan.champion:
        return "it has no champion"
    if plan.mode != "full" and not plan.challenger:
        return f"mode {plan.mode} needs a challenger"
    if odd := [each for each in (plan.champion, plan.challenger) if each and not _digest.fullmatch(each)]:
        return f"{odd[0]!r} is no digest of a manifest"
    if plan.challenger == plan.champion:
        return "champion and challenger are the same manifest"
    if [arm for _, arm in plan.bounds] != ["challenger", "champion"]:
        return "its weights are those of `challenger`, then `champion`, each once: so a growing weight only adds keys"
    if not 0 <= plan.bounds[0][0] <= plan.bounds[-1][0] or not 0 < plan.bounds[-1][0] <= LARGEST_SUM:
        return f"its weights must be 0 or more, and their sum between 1 and {LARGEST_SUM:,}"
    if not 0 <= plan.exploration <= LARGEST_EXPLORATION:
        return f"exploration is {plan.exploration}; it is a share of requests, from 0 to {LARGEST_EXPLORATION}"
    return ""


def _cbor(text: str) -> bytes:
    """Canonical CBOR of a text (RFC 8949, 3.1 and 4.2.1): its length as short as can be, then its bytes."""
    content = text.encode()
    length = len(content)
    for size, head in ((0, 24), (1, 0x78), (2, 0x79), (4, 0x7A), (8, 0x7B)):
        if size == 0 and length < head:
            return bytes([0x60 + length]) + content
        if size and length < 1 << 8 * size:
            return bytes([head]) + length.to_bytes(size, "big") + content
    raise AssertionError("no text is so long")
