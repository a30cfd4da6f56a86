"""The harness of benchmarks/compare at tiny size, with the peers of peers.py; run by ctest.

    harness.py PATH_OF_OURS
The noise's variance is judged within 6 standard errors, so a right peer is refused with probability below 1e-8.
"""
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "benchmarks/compare"))
import accuracy
import compare
import reading
import training

OURS = sys.argv.pop(1)


class Tools(compare.Tools):
    def ours(self, part, keys):
        return [OURS, part, *self.words(keys)]

    def peer(self, function, keys):
        return [sys.executable, "-B", str(HERE / "peers.py"), function, *self.words(keys)]

    def install(self, environment, where):
        raise compare.NotRun("there is no network")


def tiny(peers, widths="4-8-1", private=True):
    """The part training with one small point and these peers; "none" is one whose environment cannot be made."""
    point = {"kind": "step", "widths": widths, "threads": 1, "batch": 32, "records": 128}

    def sides(point, folder, _options, tools):
        keys = {"folder": folder, "widths": widths, "records": 128, "batch": 32, "threads": 1, "private": int(private),
                "epoch": 0, "draws": 200}
        ours = ("ours", tools.ours("training", {**keys, "output": f"{folder}/ours"}))
        for peer in peers:
            theirs = {**keys, "output": f"{folder}/theirs"}
            if peer == "none":
                yield peer, [ours, ("theirs", tools.python("accounting", "training_jax.py", "plain", theirs))]
            elif peer == "ours again":
                yield peer, [ours, ("theirs", tools.ours("training", theirs))]
            else:
                yield peer, [ours, ("theirs", tools.peer(peer, theirs))]

    return types.SimpleNamespace(**{**vars(training), "points": lambda _quick: [point], "sides": sides, "ENVIRONMENTS": ()})


def options(folder, **more):
    return types.SimpleNamespace(**{"folder": folder, "repeats": 3, "only": [], "quick": True, "patience": 60, "csv": None,
                                    "build": "", "command": "a test", **more})


def rows(folder):
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


class Harness(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def run_part(self, part, **more):
        status = compare.run([part], options(self.folder, **more), Tools(self.folder, "", 0.001))
        return status, [r for r in rows(self.folder) if r["status"] not in ("run", "others")]

    def test_same_work_gets_rows(self):
        for widths in ("4-8-1", "5-7-6-3"):
            for private in (True, False):
                (Path(self.folder) / "results.jsonl").unlink(missing_ok=True)
                with self.subTest(widths=widths, private=private):
                    status, found = self.run_part(tiny(["ours again", "right"], widths, private))
                    self.assertEqual(status, 0)
                    self.assertEqual([r["status"] for r in found], ["measured"] * 6, found)
                    self.assertLess(found[-1]["proof"]["relative_difference"], 1e-5)
                    self.assertEqual("noise_variance" in found[-1]["proof"], private)
                    for r in found:
                        self.assertTrue(all(s > 0 for s in r["seconds"].values()))
                        self.assertTrue(all(m > 0 for m in r["peak_mib"].values()))

    def test_the_proof_sees_the_clip(self):
        """Clipping has to bite in this data, or a peer without it would pass."""
        part = tiny(["right"])
        where = part.inputs(next(iter(part.points(True))), Path(self.folder), None)
        keys = {"folder": str(where), "widths": "4-8-1", "records": 128, "batch": 32, "threads": 1, "epoch": 0, "draws": 1}
        sums = []
        for private in (0, 1):
            command = Tools(self.folder, "", 0.001).ours("training", {**keys, "private": private, "output": f"{where}/{private}"})
            subprocess.run(command, input="check\n", text=True, check=True, capture_output=True)
            sums.append(training.floats(f"{where}/{private}.sum.f32"))
        off = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(*sums)))
        self.assertGreater(off, 0.01 * math.sqrt(math.fsum(a * a for a in sums[0])))

    def test_other_work_is_refused(self):
        status, found = self.run_part(tiny(["clips_the_mean", "little_noise", "right"]))
        self.assertEqual(status, 0)
        self.assertEqual([(r["peer"], r["status"]) for r in found],
                         [("clips_the_mean", "disagrees"), ("little_noise", "disagrees"), *[("right", "measured")] * 3])
        self.assertIn("sum of gradients", found[0]["why"])
        self.assertIn("variance 0.6", found[1]["why"])
        tables = (Path(self.folder) / "tables.md").read_text()
        self.assertIn("clips_the_mean, batch 32: disagrees: its sum of gradients", tables)
        self.assertIn("its sum of gradients", (Path(self.folder) / "page.html").read_text())

    def test_what_does_not_run_says_why_and_the_others_go_on(self):
        before, compare.MEMORY_LIMIT_MIB = compare.MEMORY_LIMIT_MIB, 256
        self.addCleanup(setattr, compare, "MEMORY_LIMIT_MIB", before)
        status, found = self.run_part(tiny(["none", "crashes", "hungry", "right"]))
        self.assertEqual(status, 0)
        self.assertEqual([(r["peer"], r["status"]) for r in found],
                         [(p, "not run") for p in ("none", "crashes", "hungry")] + [("right", "measured")] * 3)
        for row, word in zip(found, ("no network", "no room on this machine", "memory")):
            self.assertIn(word, row["why"])

    def test_an_endless_peer_is_ended(self):
        _, found = self.run_part(tiny(["hangs", "right"]), patience=5)
        self.assertIn("no answer to prepare within 5 s", found[0]["why"])
        self.assertEqual(found[-1]["status"], "measured")

    def test_without_ours_there_is_nothing_to_compare_with(self):
        part = tiny(["right"])
        part.inputs = lambda *_: str(Path(self.folder) / "nowhere")
        self.assertEqual(self.run_part(part), (1, []))

    def test_control_c_keeps_the_finished_rows(self):
        program = f"import sys; sys.argv = ['', {OURS!r}]; sys.path.insert(0, {str(HERE)!r}); import harness as h; " \
                  f"sys.exit(h.compare.run([h.tiny(['right', 'hangs'])], h.options({self.folder!r}), " \
                  f"h.Tools({self.folder!r}, '', 0.001)))"
        child = subprocess.Popen([sys.executable, "-B", "-c", program], stdout=subprocess.PIPE, text=True)
        results, end = Path(self.folder) / "results.jsonl", time.monotonic() + 60
        while not results.exists() or len(rows(self.folder)) < 4:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        started = []
        while not any(b"hangs" in Path(f"/proc/{p}/cmdline").read_bytes() for p in started if Path(f"/proc/{p}").exists()):
            self.assertLess(time.monotonic(), end)
            started = compare.descendants(child.pid)[1:]
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGINT)
        words, _ = child.communicate(timeout=30)
        self.assertEqual(child.returncode, 130)
        self.assertIn("the finished rows are kept", words)
        self.assertEqual([r["status"] for r in rows(self.folder)], ["run", *["measured"] * 3, "others", "others"])
        self.assertIn("right / ours", (Path(self.folder) / "tables.md").read_text())
        for p in started:
            self.assertFalse(Path(f"/proc/{p}").exists(), "a worker was left behind")

    def test_readers_are_compared_element_by_element(self):
        import array

        def answer(name, values, rows=2, columns=1):
            (Path(self.folder) / name).write_bytes(array.array("f", values).tobytes())
            return {"rows": rows, "columns": columns, "file": f"{self.folder}/{name}"}

        ours = answer("a", [0.5, -1, 0, 1])
        self.assertIsNone(reading.agree({}, ours, answer("b", [0.5, -1, 0, 1])))
        self.assertIsNone(reading.agree({}, ours, answer("b", [0.5 + 1e-7, -1, 0, 1])))
        self.assertIn("differs", reading.agree({}, ours, answer("b", [0.501, -1, 0, 1])))
        self.assertIn("rows", reading.agree({}, ours, answer("b", [0.5, 0], 1)))

    def census(self, records):
        """A file with the columns of examples/pums.schema.json; row i has age 18 + i % 60 and income i."""
        names = [c["name"] for c in json.loads(accuracy.SCHEMA.read_text())["columns"]]
        values = {"age": lambda i: 18 + i % 60, "income": lambda i: i, "educ": lambda i: 1 + i % 16}
        file = Path(self.folder) / "census.csv"
        rows_ = [",".join(str(values.get(n, lambda i: i % 2)(i)) for n in names) for i in range(records)]
        file.write_text("\n".join([",".join(names), *rows_]) + "\n")
        return file

    def test_accuracy_splits_by_row_number(self):
        file = self.census(500)
        lines = file.read_text().splitlines()
        seen = []
        for repeat, few in ((0, None), (0, 100), (1, None)):
            train, test, kept = accuracy.cut(file, few, repeat, Path(self.folder))
            train, test = train.read_text().splitlines(), test.read_text().splitlines()
            self.assertEqual((train[0], test[0], kept), (lines[0], lines[0], len(train) - 1))
            self.assertFalse(set(train[1:]) & set(test[1:]))
            self.assertEqual(set(train[1:]) | set(test[1:]) if few is None else set(train[1:]) - set(lines[: few + 1]),
                             set(lines[1:]) if few is None else set())
            self.assertTrue(50 < len(test) < 150)
            seen.append((train, test))
        self.assertEqual(seen[0][1], seen[1][1])  # the same test rows, however many are trained on
        self.assertNotEqual(seen[0][1], seen[2][1])

    def test_accuracy_proves_each_epsilon(self):
        file, told = self.census(500), []
        point = {"data": "census", "rows": 100, "epsilon": 0.5}

        def sides(keys, _options, tools):
            told.append(keys)
            target = {"accountant": "pld", "rate": 0.1, "steps": 30, "delta": keys["delta"], "target": 0.5}
            noise = accuracy.ask(tools.ours("accounting", target))["value"]
            for name, right, z in (("ours, as advised", 0.8, noise), ("worse", 0.7, noise), ("better", 0.9, noise),
                                   ("overspends", 0.9, 0.9 * noise), ("wastes", 0.9, 1.3 * noise)):
                yield name, tools.peer("answers", {"accuracy": right, "rate": 0.1, "noise": z, "steps": 30})
            yield "none", tools.python("accounting", "accuracy_peers.py", "opacus", {})

        part = types.SimpleNamespace(**{**vars(accuracy), "points": lambda _quick, _csv: [point], "sides": sides,
                                        "ENVIRONMENTS": ()})
        status, found = self.run_part(part, csv=str(file), repeats=2)
        self.assertEqual(status, 0)
        self.assertEqual([(r["peer"], r["status"]) for r in found[:6]],
                         [("ours, as advised", "answered"), ("worse", "answered"), ("better", "answered"),
                          ("overspends", "disagrees"), ("wastes", "disagrees"), ("none", "not run")])
        for r in found:
            if r["status"] == "answered":
                self.assertTrue(0.498 < r["answer"]["epsilon"] <= 0.5)
        self.assertIn("where 0.5 is asked for", found[3]["why"])
        self.assertEqual(told[0]["delta"], 0.001 if told[0]["train_rows"] >= 100 else 0.01)
        floats = training.floats(told[0]["train_floats"])
        self.assertEqual(len(floats), told[0]["train_rows"] * (told[0]["columns"] + 1))
        tables = (Path(self.folder) / "tables.md").read_text()
        self.assertIn("| worse | 70.00 ± 0.00 · +10.00 ± 0.00 |", tables)
        self.assertIn("| better | 90.00 ± 0.00 · -10.00 ± 0.00 **loss** |", tables)
        self.assertIn("overspends, epsilon 0.5: disagrees: it spends epsilon", tables)
        self.assertNotIn("| overspends |", tables)

    def test_accuracy_means_and_errors_are_those_of_pairs(self):
        rows_ = [{"point": {"data": "d", "rows": 9, "records": 9, "delta": 0.1, "epsilon": 1}, "peer": peer, "repeat": k,
                  "status": "answered", "answer": {"accuracy": a / 100, "rate": 1, "noise": 1, "steps": 1, "epsilon": 1}}
                 for peer, values in (("ours", (80, 84, 82)), ("theirs", (79, 84, 80))) for k, a in enumerate(values)]
        (head, ours, theirs), _ = accuracy.tables(rows_)[0].grids()
        self.assertEqual(ours[1], "82.00 ± 2.00")
        self.assertEqual(theirs[1], "81.00 ± 2.65 · +1.00 ± 0.58")  # differences 1, 0, 2: deviation 1, over the root of 3


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
