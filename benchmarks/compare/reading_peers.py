"""The readers that reading.py compares with ours, each by its own fastest means."""
import json
import time

import numpy as np

import worker


class Reading:
    """A reader has read() -> (features (rows, columns) float32, row-major; labels float32)."""

    def __init__(self, csv, schema, threads, output):
        self.csv, self.threads, self.output = csv, threads, output
        with open(schema) as file:
            columns = json.load(file)["columns"]
        self.label = next(c["name"] for c in columns if c["kind"] == "label")
        # name, yes-or-no, least, most, default
        self.columns = [(c["name"], c["kind"] == "binary", c.get("min", 0), c.get("max", 1), c["default"])
                        for c in columns if c["kind"] != "label"]
        self.names = [c[0] for c in self.columns]
        self.begin()

    def begin(self):
        pass

    def check(self):
        features, labels = self.read()
        assert features.dtype == labels.dtype == np.float32 and features.flags.c_contiguous
        with open(self.output, "wb") as out:
            features.tofile(out)
            labels.tofile(out)
        return {"rows": features.shape[0], "columns": features.shape[1], "file": self.output}

    def repeat(self, n):
        start = time.perf_counter()
        for _ in range(n):
            self.read()
        return time.perf_counter() - start

    def laid_out(self, label, column):
        """From numpy columns (NaN where a float is missing): cleaning and scaling, for readers without expressions."""
        keep = (label == 0) | (label == 1)
        for name, binary, *_ in self.columns:
            if binary:
                v = column(name)
                keep &= (v == 0) | (v == 1) | (v != v)
        everything = keep.all()
        features = np.empty((np.count_nonzero(keep), len(self.columns)), np.float32)
        for k, (name, _, least, most, default) in enumerate(self.columns):
            v = column(name)
            if not everything:
                v = v[keep]
            if v.dtype.kind == "f":
                v = np.where(np.isnan(v), default, v)
            features[:, k] = 2 * ((np.clip(v, least, most) - least) / (most - least)) - 1
        return features, (label if everything else label[keep]).astype(np.float32)


class by_pandas(Reading):
    def read(self):
        import pandas

        table = pandas.read_csv(self.csv, usecols=[self.label, *self.names])
        return self.laid_out(table[self.label].to_numpy(), lambda name: table[name].to_numpy())


class by_pyarrow(Reading):
    def begin(self):
        import pyarrow

        pyarrow.set_cpu_count(self.threads)

    def read(self):
        from pyarrow import csv

        table = csv.read_csv(
            self.csv, read_options=csv.ReadOptions(use_threads=self.threads > 1),
            convert_options=csv.ConvertOptions(include_columns=[self.label, *self.names], null_values=["", "NA"]),
        )
        return self.laid_out(table[self.label].to_numpy(), lambda name: table[name].to_numpy())


class by_polars(Reading):
    def begin(self):
        import os

        os.environ["POLARS_MAX_THREADS"] = str(self.threads)

    def read(self):
        import polars as pl

        good = pl.col(self.label).is_in([0, 1])
        for name, binary, *_ in self.columns:
            if binary:
                good &= pl.col(name).is_in([0, 1]) | pl.col(name).is_null()
        scaled = [
            (2 * ((pl.col(n).fill_null(default).cast(pl.Float64).clip(least, most) - least) / (most - least)) - 1)
            .cast(pl.Float32).alias(n)
            for n, _, least, most, default in self.columns
        ]
        table = (
            pl.scan_csv(self.csv, null_values=["", "NA"])
            .filter(good)
            .select(*scaled, pl.col(self.label).cast(pl.Float32))
            .collect()
        )
        return table.select(self.names).to_numpy(order="c"), table[self.label].to_numpy()


class by_duckdb(Reading):
    def begin(self):
        import duckdb

        self.base = duckdb.connect()
        self.base.execute(f"SET threads TO {self.threads}")
        good = [f"{self.label} IN (0, 1)"]
        good += [f"({n} IN (0, 1) OR {n} IS NULL)" for n, binary, *_ in self.columns if binary]
        scaled = [
            f"CAST(2 * ((greatest({least}, least({most}, CAST(coalesce({n}, {default}) AS DOUBLE))) - ({least})) / "
            f"({most} - ({least}))) - 1 AS FLOAT) AS {n}"
            for n, _, least, most, default in self.columns
        ]
        self.query = (f"SELECT {', '.join(scaled)}, CAST({self.label} AS FLOAT) AS {self.label} "
                      f"FROM read_csv('{self.csv}', nullstr=['', 'NA']) WHERE {' AND '.join(good)}")

    def read(self):
        columns = self.base.execute(self.query).fetchnumpy()
        features = np.empty((len(columns[self.label]), len(self.names)), np.float32)
        for k, name in enumerate(self.names):
            features[:, k] = columns[name]
        return features, np.ascontiguousarray(columns[self.label])


class by_pyspark(Reading):
    def begin(self):
        import shutil

        if shutil.which("java") is None:
            raise SystemExit("PySpark needs Java: apt install default-jre-headless")
        from pyspark.sql import SparkSession

        self.spark = (
            SparkSession.builder.master(f"local[{self.threads}]").config("spark.ui.enabled", "false")
            .config("spark.driver.memory", "4g").config("spark.driver.maxResultSize", "4g")
            .config("spark.sql.execution.arrow.pyspark.enabled", "true").getOrCreate()
        )

    def read(self):
        from pyspark.sql import functions as F
        from pyspark.sql.types import DoubleType, StructField, StructType

        with open(self.csv) as file:
            header = [name.strip().strip('"') for name in file.readline().split(",")]
        schema = StructType([StructField(name, DoubleType()) for name in header])
        table = self.spark.read.csv(self.csv, header=True, schema=schema, nullValue="NA")
        good = F.col(self.label).isin(0, 1)
        for name, binary, *_ in self.columns:
            if binary:
                good &= F.col(name).isin(0, 1) | F.col(name).isNull()
        scaled = [
            (2 * ((F.greatest(F.lit(float(least)), F.least(F.lit(float(most)), F.coalesce(F.col(n), F.lit(float(default)))))
                   - least) / (most - least)) - 1).cast("float").alias(n)
            for n, _, least, most, default in self.columns
        ]
        table = table.filter(good).select(*scaled, F.col(self.label).cast("float")).toPandas()
        return (np.ascontiguousarray(table[self.names].to_numpy(), np.float32),
                table[self.label].to_numpy().astype(np.float32))


if __name__ == "__main__":
    worker.serve(globals())
