"""The parts of benchmarks/simulate that need no SimGrid; run by ctest.

    study_parts.py PATH_OF_PRICED
"""
import json
import math
import sys
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks/simulate"
sys.path.insert(0, str(FOLDER))
import cost
import platforms
import report
import study

PRICED = sys.argv.pop(1)
NET = {"alpha": 1e-6, "beta": 1e-9, "gamma": 0.0}


def price(questions):
    return study.price(PRICED, questions)


class Prices(unittest.TestCase):
    def of(self, ranks, size, net=NET):
        return {row["algorithm"]: row for row in price([(ranks, size, net)])}

    def test_few_ranks(self):
        rows = self.of(8, 8000)
        self.assertEqual(len(rows), 14)
        self.assertAlmostEqual(rows["ring"]["seconds"], 14 * (1e-6 + 1000e-9), delta=1e-12)
        self.assertEqual((rows["ring"]["rounds"], rows["ring"]["messages"], rows["ring"]["most_sent"]), (14, 112, 14000))

    def test_very_many_ranks_by_one_for_all(self):
        ranks, size = 6000, 24000  # 4 bytes a block
        rows = self.of(ranks, size)
        self.assertEqual(len(rows), 14)
        self.assertAlmostEqual(rows["ring"]["seconds"], 2 * (ranks - 1) * (1e-6 + 4e-9), delta=1e-9)
        self.assertEqual(rows["all_to_all"]["messages"], ranks * (ranks - 1))
        rounds = math.ceil(math.log2(ranks))
        for name in ("circulant", "swing"):
            self.assertEqual(rows[name]["rounds"], 2 * rounds)
            self.assertEqual(rows[name]["most_sent"], 2 * size * (ranks - 1) // ranks)
        # Where blocks are not of one length, those that were asked for one member only are left out, the others not.
        uneven = self.of(ranks, size + 4)
        self.assertEqual({name for name in rows if name not in uneven}, {"ring", "round_robin", "swing", "hierarchical"})

    def test_what_cannot_be_read_is_an_error(self):
        with self.assertRaisesRegex(SystemExit, "ranks bytes alpha beta gamma"):
            price([("many", 8, NET)])


class Platforms(unittest.TestCase):
    def test_every_shape_has_as_many_hosts_as_ranks(self):
        for kind, (topology, shapes) in platforms.KINDS.items():
            for ranks, shape in shapes.items():
                cluster = xml.fromstring(platforms.platform(kind, ranks)).find("cluster")
                self.assertEqual(cluster.get("topology"), topology)
                self.assertEqual(cluster.get("topo_parameters"), shape)
                self.assertEqual(cluster.get("radical"), f"0-{ranks - 1}")
                parts = shape.split(";")
                if kind == "fat tree":
                    self.assertEqual(math.prod(map(int, parts[1].split(","))), ranks)
                else:
                    self.assertEqual(math.prod(int(part.split(",")[0]) for part in parts), ranks)
                self.assertEqual(len(platforms.hosts(ranks).split()), ranks)

    def test_bounds(self):
        latency, bandwidth, reduction = platforms.bounds(1000, 1_000_000)
        self.assertAlmostEqual(latency, 10 * 1e-6)
        self.assertAlmostEqual(bandwidth, 2 * 999_000 / 12.5e9)
        self.assertAlmostEqual(reduction, 999_000 * 0.05e-9)


class Plan(unittest.TestCase):
    def test_the_dear_and_the_long_are_left_out_with_the_reason(self):
        def row(name, seconds, messages, size=4):
            return {"algorithm": name, "ranks": 1024, "bytes": size, "seconds": seconds, "messages": messages}
        run, left_out = study.plan([row("a", 1, 10), row("b", 19, 10), row("c", 21, 10), row("d", 2, 10**6),
                                    row("a", 1, 10, 1 << 24)])
        self.assertEqual(run, [("a", 4), ("b", 4)])
        self.assertEqual(left_out, {("c", 4): "21 times the cheapest by the model", ("d", 4): "1,000,000 messages",
                                    ("a", 1 << 24): "16 GiB of vectors"})

    def test_what_is_missing_or_too_fast_is_found(self):
        row = {"network": "fat tree", "ranks": 16, "algorithm": "ring", "bytes": 1 << 20, "seconds": 1e-3}
        key = ("fat tree", 16, "ring", 1 << 20)
        study.check([row], {key})
        with self.assertRaisesRegex(ValueError, "missing"):
            study.check([row], {key, ("fat tree", 16, "naive", 1 << 20)})
        with self.assertRaisesRegex(ValueError, "not asked for"):
            study.check([row], set())
        with self.assertRaisesRegex(ValueError, "faster than possible"):
            study.check([row | {"seconds": 1e-4}], {key})  # 157 us at 12.5 GB/s


class Cost(unittest.TestCase):
    def setUp(self):
        self.addCleanup(setattr, cost, "RANKS", cost.RANKS)
        cost.RANKS = (1, 8, 64)

    def test_a_run_by_hand(self):
        assumptions = {
            "clusters": [{"name": "c", "dollars_per_hour": 3.6, "ranks_per_node": 4, **NET}],
            "workloads": [{"name": "w", "parameters": 2000, "records": 1000, "batch": 100, "epochs": 2,
                           "seconds_per_record": 1e-3}],
        }
        rows = {(row["ranks"], row["algorithm"]): row for row in cost.runs(assumptions, price)}
        row = rows[8, "ring"]  # 20 steps of 12.5 ms and 14 messages of 1000 bytes; 2 nodes
        seconds = 20 * (100 / 8 * 1e-3 + 14 * 2e-6)
        self.assertAlmostEqual(row["hours"] * 3600, seconds, delta=1e-9)
        self.assertEqual(row["nodes"], 2)
        self.assertAlmostEqual(row["dollars"], seconds / 3600 * 2 * 3.6, delta=1e-12)
        self.assertAlmostEqual(rows[1, "ring"]["hours"] * 3600, 20 * 0.1, delta=1e-9)
        table = cost.markdown(list(rows.values()))
        self.assertEqual(len(table.strip().split("\n")), 3)
        self.assertIn("64 ranks", table)

    def test_the_assumptions_that_we_ship(self):
        assumptions = json.loads((FOLDER / "clusters.json").read_text())
        rows = cost.runs(assumptions, price)
        self.assertEqual(len(rows), 3 * 3 * len(cost.RANKS) * 14)
        self.assertTrue(all(row["hours"] > 0 and row["dollars"] > 0 for row in rows))


class Report(unittest.TestCase):
    ROWS = [{"network": network, "ranks": ranks, "bytes": size, "algorithm": name, "seconds": seconds}
            for network in ("fat tree", "dragonfly", "model") for ranks in (16, 64) for size in (1024, 1 << 20)
            for name, seconds in (("ring", 4e-4), ("circulant", 2e-4), ("naive", 3e-4))]

    def test_the_table_names_the_fastest_first(self):
        lines = report.markdown(self.ROWS).strip().split("\n")
        self.assertEqual(len(lines), 2 + 12)
        self.assertIn("| fat tree | 16 | 1 KiB | 4.0 us | circulant 50.00 | naive 75.00 | ring 100.00 |", lines)

    def test_the_pictures_are_well_formed_and_load_nothing(self):
        huge = [{"network": "model", "ranks": 100_000, "bytes": 400_000, "algorithm": "swing", "seconds": 1}]
        pictures = report.winners(self.ROWS + huge), report.curves([row for row in self.ROWS if row["network"] != "model"], 64)
        for picture in pictures:
            xml.fromstring(picture)
            self.assertNotIn("href", picture)
            self.assertIn("circulant", picture)
        self.assertIn("100,000", pictures[0])
        self.assertIn("swing", pictures[0])
        self.assertEqual(pictures[1].count("<polyline"), 6)

    def test_every_algorithm_has_a_colour(self):
        self.assertEqual(set(report.COLOURS), {row["algorithm"] for row in price([(4, 16, NET)])})


if __name__ == "__main__":
    unittest.main()
