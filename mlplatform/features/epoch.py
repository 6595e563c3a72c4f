"""Times as whole numbers: microseconds since 1970, UTC, as online stores and records of the stream keep them.

Whole numbers all the way: seconds as a float lose the last digit of a time of today.

It refuses a time without a zone.
"""

from datetime import UTC, datetime, timedelta

from mlplatform.errors import DataError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def epoch_micros(at: datetime) -> int:
    """Microseconds since 1970, exactly.

    Raises
    ------
    DataError
        The time has no zone.

    Examples
    --------
    >>> epoch_micros(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if at.tzinfo is None:
        raise DataError(f"the time {at.isoformat()} has no zone; give an aware time, best in UTC")
    return (at - _EPOCH) // _MICROSECOND


def epoch_time(micros: int) -> datetime:
    """The time, in UTC.

    Examples
    --------
    >>> epoch_time(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + micros * _MICROSECOND
