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


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
