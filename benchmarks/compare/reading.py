"""Reading: a CSV of 1.2 million synthetic census records into the row-major float matrix that training wants.

Everybody does the cleaning of the original project: rows with an impossible label or an impossible yes-or-no are
dropped, values outside their bounds are clamped, missing ones are filled in; then each column is laid on [-1, 1]. Only
the columns of examples/pums.schema.json are asked for, without its cuts and scales. The matrices agree within 1e-6 in
every element. Each repetition reads the file anew (from the page cache).
"""
import array
import json
import os
import subprocess
from pathlib import Path

NAME = "reading"
ENVIRONMENTS = ("reading",)
NOTES = {"PySpark": "has its JVM running when the clock starts; the second table has its start."}
PEERS = [("pandas", "by_pandas"), ("polars", "by_polars"), ("pyarrow", "by_pyarrow"), ("DuckDB", "by_duckdb"),
         ("PySpark", "by_pyspark")]
ROOT = Path(__file__).resolve().parent.parent.parent


def points(quick):
    for threads in {1, min(2, len(os.sched_getaffinity(0)))}:
        yield {"records": 100_000 if quick else 1_200_000, "threads": threads}


def unit(_point):
    return "s", 1


def place(point):
    return f"{point['records']:,} records", f"{point['threads']} thread{'s' * (point['threads'] > 1)}"


def synthetic(folder, build, records):
    """The CSV of so many synthetic records; made once."""
    file = Path(folder) / f"pums-{records}.csv"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = file.with_suffix(".part")
        subprocess.run([f"{build}/examples/make_pums", "--rows", str(records), "--seed", "1", "--output", str(made)],
                       check=True, capture_output=True)
        made.rename(file)
    return file


def plain_schema(folder):
    """examples/pums.schema.json without cuts and scales."""
    schema = json.loads((ROOT / "examples/pums.schema.json").read_text())
    for column in schema["columns"]:
        column.pop("cuts", None)
        column.pop("scale", None)
    file = Path(folder) / "reading.schema.json"
    file.write_text(json.dumps(schema, indent=1))
    return file


def inputs(point, folder, options):
    csv = Path(options.csv).resolve() if options.csv else synthetic(folder, options.build, point["records"])
    return csv, plain_schema(folder), folder


def sides(point, inputs, _options, tools):
    csv, schema, folder = inputs
    keys = {"csv": csv, "schema": schema, "threads": point["threads"]}
    ours = ("ours", tools.ours("reading", {**keys, "output": f"{folder}/ours.matrix.f32"}))
    theirs = {**keys, "output": f"{folder}/theirs.matrix.f32"}
    yield "ours again", [ours, ("theirs", tools.ours("reading", theirs))]
    for name, function in PEERS:
        yield name, [ours, ("theirs", tools.python("reading", "reading_peers.py", function, theirs))]


def agree(_point, ours, theirs):
    if (ours["rows"], ours["columns"]) != (theirs["rows"], theirs["columns"]):
        return f"{theirs['rows']} rows of {theirs['columns']} where ours has {ours['rows']} of {ours['columns']}"
    a, b = Path(ours["file"]).read_bytes(), Path(theirs["file"]).read_bytes()
    if len(a) != len(b):
        return f"{len(b)} bytes of floats where ours has {len(a)}"
    most = 0 if a == b else max(abs(x - y) for x, y in zip(array.array("f", a), array.array("f", b)))
    theirs["largest_difference"] = most
    return None if most <= 1e-6 else f"an element differs from ours by {most:.2g}; 1e-6 is allowed"
