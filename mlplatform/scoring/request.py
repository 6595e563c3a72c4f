"""Requests as they come out of JSON: checked field by field against the declared columns, and typed.

The same columns give the check and the published schema, so that the API page promises what the gateway does. The
check is plain Python over decoded values (a row of eight columns costs some 80 µs, half of it the frame), since one
row is the common case; only patterns go through Polars, whose regular expressions are the ones of the pipeline and take
linear time whatever a stranger sends.

It refuses to guess: text is no number, true is no 1, NaN is no number, a timestamp without a zone is no instant, an
unknown field is not ignored (a misspelt one would otherwise be a silent null). A nullable field may be left out, which
means null, so that a column can be added without breaking the callers there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import isfinite
from struct import Struct
from typing import Any

import numpy as np
import polars as pl

from mlplatform.domain.column import Column, RowRule
from mlplatform.errors import DeclarationError, InvalidRequest

MAX_TEXT = 256
"""Longest text of a field, characters. Names, codes and addresses are shorter; what is longer is no category."""

MAX_FAULTS = 1_000
"""Faults told of one call. A batch of nothing but faults must not cost more to refuse than to answer."""

FEW_ROWS = 8
"""Below so many rows a frame is made row by row; from there on column by column."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FLOAT32_MAX = 3.4028234663852886e38
_SINGLE = Struct("f")
# Floats hold every whole number up to here; beyond, a JSON `1e300` would be some other integer than was meant.
EXACT = 2**53
_PATTERN_MEMORY = 10_000
_ABSENT = object()


class Fault(str):
    """Why a value is refused, told apart from a value by its class."""

    __slots__ = ()


Read = Callable[[Any], Any]
"""A decoded JSON value, null excepted -> the value to store, or a `Fault`."""


@dataclass(frozen=True, slots=True)
class Field:
    """How one column is read out of JSON."""

    name: str
    required: bool
    nullable: bool
    read: Read
    stored: pl.DataType
    """The dtype `read` gives; cast to `dtype` when the frame is made."""

    dtype: pl.DataType
    pattern: str | None
    verdicts: dict[str, bool] = field(default_factory=dict)
    """Text -> whether it matches the pattern: the same few names come again and again."""


def parse_requests(rows: object, columns: tuple[Column, ...], *, batch: bool | None = None) -> pl.DataFrame:
    """Decoded JSON rows as a typed frame, or a refusal that names every field at fault.

    Parameters
    ----------
    rows : list of dict, one JSON object per request, as `json` or `msgspec` decode it; anything else is refused
    columns : what a request holds. Rules of severity `warning` are not held against a caller
    batch : whether fields are named `rows[3].carrier` rather than `carrier`. None: when there is not exactly one row

    Returns
    -------
    One row per request, in the same order, with `columns` in declared order and dtypes. No row gives an empty frame.

    Raises
    ------
    InvalidRequest
        With the reason for every field at fault, up to `MAX_FAULTS` of them.
    DeclarationError
        A column has a dtype that JSON cannot hold.

    Examples
    --------
    >>> columns = (Column(name="carrier", dtype=pl.String(), meaning="airline", allowed=("UA", "B6")),)
    >>> parse_requests([{"carrier": "UA"}], columns).rows()
    [('UA',)]
    >>> parse_requests([{"carrier": 7, "gate": "A3"}], columns)
    Traceback (most recent call last):
    ...
    mlplatform.errors.InvalidRequest: carrier: expected text, got a number; gate: is no field of a request
    """
    fields = request_fields(columns)
    if not isinstance(rows, list):
        raise InvalidRequest({"rows": f"expected a list of objects, got {_json_type(rows)}"})
    in_batch = len(rows) != 1 if batch is None else batch
    faults: dict[str, str] = {}
    taken: list[tuple[Any, ...]] = []
    for number, row in enumerate(rows):
        prefix = f"rows[{number}]." if in_batch else ""
        if not isinstance(row, dict):
            faults[prefix.rstrip(".") or "request"] = f"expected an object, got {_json_type(row)}"
            taken.append((None,) * len(fields))
        else:
            taken.append(_read_row(row, fields, prefix, faults))
        if len(faults) >= MAX_FAULTS:
            break
    for position, each in enumerate(fields):
        if each.pattern is not None and len(faults) < MAX_FAULTS:
            _match(each, each.pattern, position, taken, faults, in_batch=in_batch)
    if faults:
        raise InvalidRequest(_bounded(faults))
    return _frame(taken, fields)


def read_request(row: dict[Any, Any], columns: tuple[Column, ...]) -> tuple[Any, ...]:
    """One decoded JSON object as the values that `request_frame` takes, in declared order.

    Raises
    ------
    InvalidRequest
        With the reason for every field at fault.
    """
    fields = request_fields(columns)
    faults: dict[str, str] = {}
    taken = [_read_row(row, fields, "", faults)]
    for position, each in enumerate(fields):
        if each.pattern is not None:
            _match(each, each.pattern, position, taken, faults, in_batch=False)
    if faults:
        raise InvalidRequest(_bounded(faults))
    return taken[0]


def request_frame(taken: list[tuple[Any, ...]], columns: tuple[Column, ...]) -> pl.DataFrame:
    """Rows of `read_request` or of a `RequestDecoder` as a typed frame, in the same order."""
    fields = request_fields(columns)
    if len(taken) < FEW_ROWS:
        return _frame(taken, fields)
    if all(isinstance(each.dtype, pl.Float64) for each in fields):
        # No request holds NaN, so after numpy has made it of a null it can be made a null again.
        numbers = np.ascontiguousarray(np.array(taken, dtype=np.float64).T)
        # One Series and slices of it: making one of numpy's takes 4 µs, a slice 2.
        every, rows = pl.Series(numbers.reshape(-1)), len(taken)
        frame = pl.DataFrame(
            [every.slice(position * rows, rows).alias(each.name) for position, each in enumerate(fields)]
        )
        return frame.fill_nan(None) if np.isnan(numbers).any() else frame
    columns_of = zip(fields, zip(*taken, strict=True), strict=True)
    series = [pl.Series(each.name, values, dtype=each.stored) for each, values in columns_of]
    return pl.DataFrame(
        [
            each if each.dtype == field.dtype else each.cast(field.dtype)
            for each, field in zip(series, fields, strict=True)
        ]
    )


def request_schema(columns: tuple[Column, ...]) -> dict[str, Any]:
    """The JSON schema (2020-12, as OpenAPI 3.1 uses it) of one request: what `parse_requests` takes.

    Patterns are published as they are declared, in Rust's syntax; for the plain ones that is JSON schema's too.

    Parameters
    ----------
    columns : what a request holds
    """
    request_fields(columns)  # refuses what no request can hold
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [column.name for column in columns if not column.nullable],
        "properties": {column.name: _property(column) for column in columns},
    }


def _read_row(row: dict[Any, Any], fields: tuple[Field, ...], prefix: str, faults: dict[str, str]) -> tuple[Any, ...]:
    values = []
    found = 0
    for each in fields:
        value = row.get(each.name, _ABSENT)
        if value is not _ABSENT:
            found += 1
            if value is not None:
                value = each.read(value)
                if type(value) is Fault:
                    faults[prefix + each.name] = value
                    value = None
                values.append(value)
                continue
        values.append(None)
        if value is _ABSENT and each.required:
            faults[prefix + each.name] = "is missing"
        elif value is None and not each.nullable:
            faults[prefix + each.name] = "must not be null"
    if found != len(row):
        declared = {each.name for each in fields}
        for name in row:
            if name not in declared:
                faults[f"{prefix}{_shown(str(name))}"] = "is no field of a request"
                if len(faults) > MAX_FAULTS:
                    break
    return tuple(values)


def _match(
    each: Field, pattern: str, position: int, taken: list[tuple[Any, ...]], faults: dict[str, str], *, in_batch: bool
) -> None:
    """Add a fault for each text that does not match; unseen texts of a batch are matched in one go."""
    texts = {row[position] for row in taken if row[position] is not None}
    verdicts = {text: each.verdicts.get(text) for text in texts}
    unseen = [text for text, verdict in verdicts.items() if verdict is None]
    if unseen:
        matched = pl.Series(unseen, dtype=pl.String()).str.contains(rf"\A(?:{pattern})\z").to_list()
        if len(each.verdicts) + len(unseen) > _PATTERN_MEMORY:
            each.verdicts.clear()
        for text, matches in zip(unseen, matched, strict=True):
            verdicts[text] = matches
            if len(each.verdicts) < _PATTERN_MEMORY:
                each.verdicts[text] = matches
    if all(verdicts.values()):
        return
    for number, row in enumerate(taken):
        if row[position] is not None and not verdicts[row[position]]:
            name = f"rows[{number}].{each.name}" if in_batch else each.name
            faults[name] = f"{_shown(row[position])!r} does not match {pattern}"


def _bounded(faults: dict[str, str]) -> dict[str, str]:
    if len(faults) < MAX_FAULTS:
        return faults
    told = dict(list(faults.items())[: MAX_FAULTS - 1])
    told["rows"] = f"there may be more: only {MAX_FAULTS - 1} faults are told"
    return told


def _frame(taken: list[tuple[Any, ...]], fields: tuple[Field, ...]) -> pl.DataFrame:
    # Row-wise construction takes 30 µs for a row of eight, column-wise 110 to 150; casting a column in place 3.
    frame = pl.DataFrame(taken, schema={each.name: each.stored for each in fields}, orient="row")
    for position, each in enumerate(fields):
        if each.stored != each.dtype:
            frame.replace_column(position, frame.to_series(position).cast(each.dtype))
    return frame


@lru_cache(maxsize=128)
def request_fields(columns: tuple[Column, ...]) -> tuple[Field, ...]:
    """How each column is read, in declared order."""
    return tuple(_field(column) for column in columns)


def _field(column: Column) -> Field:
    dtype = column.dtype
    stored = dtype
    pattern = None
    read: Read
    if dtype.is_integer():
        read = _integer(column)
    elif isinstance(dtype, pl.Float32 | pl.Float64):
        read = _float(column)
    elif isinstance(dtype, pl.Boolean):
        read = _boolean
    elif isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        read, stored = _text(column), pl.String()
        pattern = column.pattern if _held(column) else None
    elif isinstance(dtype, pl.Datetime):
        read, stored = _timestamp(dtype), pl.Int64()
    elif isinstance(dtype, pl.Date):
        read, stored = _day, pl.Int32()
    else:
        raise DeclarationError(f"request column {column.name}: JSON holds no {dtype}. Use a number, text or time")
    return Field(column.name, not column.nullable, _may_be_null(column), read, stored, dtype, pattern)


def _held(column: Column | RowRule) -> bool:
    """Whether value rules are held against a caller."""
    return column.severity != "warning"


def _may_be_null(column: Column) -> bool:
    """Where a missing value is no more than a warning, a null is taken; the field itself must be there all the same."""
    return column.nullable or not _held(column)


def held_bounds(column: Column) -> tuple[float | None, float | None]:
    """Minimum and maximum that are held against a caller."""
    return (column.minimum, column.maximum) if _held(column) else (None, None)


def _words(column: Column) -> tuple[str, ...] | None:
    """The only texts that fit, if they are few: the declared set, the categories of an Enum, or what both share."""
    declared = column.allowed if _held(column) else None
    if isinstance(column.dtype, pl.Enum):
        return tuple(word for word in column.dtype.categories.to_list() if declared is None or word in declared)
    return declared


def integer_range(dtype: pl.DataType) -> tuple[int, int]:
    """Smallest and largest value of an integer dtype."""
    low, high = pl.select(dtype.min(), dtype.max().alias("max")).row(0)  # type: ignore[attr-defined]  # integers only
    return int(low), int(high)


def _integer(column: Column) -> Read:
    dtype = column.dtype
    low, high = integer_range(dtype)
    minimum, maximum = held_bounds(column)

    def read(value: Any) -> Any:
        if type(value) is float:
            # JSON has one kind of number: 3.0 is the integer 3, as JSON schema has it too.
            if not (value.is_integer() and -EXACT <= value <= EXACT):
                return Fault("expected a whole number, got a number with a fraction or beyond 2^53")
            value = int(value)
        elif type(value) is not int:
            return Fault(f"expected a whole number, got {_json_type(value)}")
        if not low <= value <= high:
            return Fault(f"is beyond {dtype} ({low} to {high})")
        return _out_of_range(value, minimum, maximum) or value

    return read


def _float(column: Column) -> Read:
    dtype = column.dtype
    minimum, maximum = held_bounds(column)
    single = isinstance(dtype, pl.Float32)
    if single:
        minimum, maximum = _as_single(minimum), _as_single(maximum)

    def read(value: Any) -> Any:
        if type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                return Fault(f"is beyond {dtype}")
        elif type(value) is not float:
            return Fault(f"expected a number, got {_json_type(value)}")
        if not isfinite(value):
            return Fault("must not be NaN or infinite")
        if single:
            if abs(value) > _FLOAT32_MAX:
                return Fault(f"is beyond {dtype}")
            value = _as_single(value)
        return _out_of_range(value, minimum, maximum) or value

    return read


def _as_single(value: float | None) -> float | None:
    """The value as a Float32 holds it: bounds are compared there, as the pipeline does."""
    return None if value is None else _SINGLE.unpack(_SINGLE.pack(value))[0]


def _out_of_range(value: float, minimum: float | None, maximum: float | None) -> Fault | None:
    if minimum is not None and value < minimum:
        return Fault(f"{value:.15g} is below the minimum of {minimum:.15g}")
    if maximum is not None and value > maximum:
        return Fault(f"{value:.15g} is above the maximum of {maximum:.15g}")
    return None


def _boolean(value: Any) -> Any:
    return value if type(value) is bool else Fault(f"expected true or false, got {_json_type(value)}")


def _text(column: Column) -> Read:
    words = _words(column)
    allowed = None if words is None else frozenset(words)
    told = "" if words is None else ", ".join(words[:20]) + (f" and {len(words) - 20} more" if len(words) > 20 else "")

    def read(value: Any) -> Any:
        if type(value) is not str:
            return Fault(f"expected text, got {_json_type(value)}")
        if allowed is not None and value in allowed:
            return value
        if len(value) > MAX_TEXT:
            return Fault(f"is longer than {MAX_TEXT} characters")
        if not value.isascii() and _shown(value, len(value)) != value:
            return Fault("holds half a surrogate pair, which is no character")
        if allowed is not None:
            return Fault(f"{_shown(value)!r} is not one of {told}")
        return value

    return read


def _timestamp(dtype: pl.Datetime) -> Read:
    zoned = dtype.time_zone is not None
    wanted = "a timestamp such as 2013-03-15T14:47:00" + ("Z" if zoned else "")

    def read(value: Any) -> Any:
        if type(value) is not str:
            return Fault(f"expected {wanted}, got {_json_type(value)}")
        moment = None
        if value[10:11] == "T" and len(value) <= 40:
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                moment = None
        if moment is None:
            return Fault(f"{_shown(value)!r} is not ISO 8601: expected {wanted}")
        if zoned and moment.tzinfo is None:
            return Fault(f"{_shown(value)!r} has no time zone: append Z or an offset such as -05:00")
        if not zoned:
            if moment.tzinfo is not None:
                return Fault(f"{_shown(value)!r} has a time zone, but this is a local time: leave it out")
            moment = moment.replace(tzinfo=UTC)
        micros = (moment - _EPOCH) // _MICROSECOND
        if dtype.time_unit == "us":
            return micros
        if dtype.time_unit == "ms":
            return micros // 1_000
        return micros * 1_000 if abs(micros) < 2**63 // 1_000 else Fault(f"is beyond {dtype}")

    return read


def _day(value: Any) -> Any:
    if type(value) is not str:
        return Fault(f"expected a day such as 2013-03-15, got {_json_type(value)}")
    refused = Fault(f"{_shown(value)!r} is no day: expected YYYY-MM-DD")
    if len(value) != 10:
        return refused
    try:
        return (date.fromisoformat(value) - _EPOCH.date()).days
    except ValueError:
        return refused


def _property(column: Column) -> dict[str, Any]:
    dtype = column.dtype
    told: dict[str, Any] = {}
    minimum, maximum = held_bounds(column)
    if dtype.is_integer():
        kind = "integer"
        low, high = integer_range(dtype)
        told["minimum"] = low if minimum is None else max(low, minimum)
        told["maximum"] = high if maximum is None else min(high, maximum)
    elif dtype.is_float():
        kind = "number"
        told |= {} if minimum is None else {"minimum": minimum}
        told |= {} if maximum is None else {"maximum": maximum}
    elif isinstance(dtype, pl.Boolean):
        kind = "boolean"
    else:
        kind = "string"
        if isinstance(dtype, pl.Date):
            told["format"] = "date"
        elif isinstance(dtype, pl.Datetime):
            told |= {} if dtype.time_zone is None else {"format": "date-time"}
        else:
            told["maxLength"] = MAX_TEXT
            words = _words(column)
            if words is not None:
                told["enum"] = [*words, None] if _may_be_null(column) else list(words)
            if column.pattern is not None and _held(column):
                told["pattern"] = f"^(?:{column.pattern})$"
    return {
        "type": [kind, "null"] if _may_be_null(column) else kind,
        "description": f"{column.meaning} ({column.unit})" if column.unit else column.meaning,
        **told,
    }


def held_rules(rules: Sequence[RowRule]) -> list[RowRule]:
    """Rules over several columns that are held against a caller; a warning is not."""
    return [rule for rule in rules if _held(rule)]


def refuse_broken_rules(requests: pl.DataFrame, rules: Sequence[RowRule]) -> None:
    """Refuse parsed requests that break a rule over several columns, unless that is worth no more than a warning.

    Raises
    ------
    InvalidRequest
        Every broken rule by name, with its meaning.
    """
    held = held_rules(rules)
    kept = requests.select(rule.holds().all().alias(rule.name) for rule in held)
    broken = {rule.name: f"broken: {rule.meaning}" for rule in held if kept[rule.name].item() is False}
    if broken:
        raise InvalidRequest(broken)


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, dict) else "a list"


def _shown(text: str, length: int = 40) -> str:
    """Text fit for a message: not too long, and encodable, which a lone surrogate is not."""
    short = text if len(text) <= length else f"{text[:length]}…"
    return short.encode("utf-8", "replace").decode("utf-8")
