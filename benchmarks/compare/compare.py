"""The comparison's runner: starts ours and theirs, proves that they do the same work, and times them in turn.

    run.sh [training|reading|accounting|whole|accuracy]... [--quick] [--repeats N] [--only PEER,...] [--csv FILE]

A *part* is a module with
    NAME, NOTES {peer: what to know of it}, ENVIRONMENTS (of its peers)
    points(quick)                         what is measured: dicts
    unit(point)                           in words, and its factor from seconds
    place(point)                          the table and the column where a point stands
    inputs(point, folder, options)        makes the files that both sides read; their folder or name
    sides(point, inputs, options, tools)  for each peer its name and the processes that run in turn: [(side, command)];
                                          ours come first, the last is theirs
    agree(point, ours, theirs)            what is wrong with their answer, in words, or None
A part that is about answers, not times, has judge(point, answer, tools) in the place of agree and unit. Its inputs and sides
are told the repeat and the tools, sides gives one command for each name, each is asked once a repeat, and it makes its own
tables(rows) for the report (accuracy.py); a point may ask for so many times the repeats.
A process obeys the words check, prepare and time (worker.py). Everything measured is appended, as it is measured, to
results.jsonl: a line for the run, one for every repeat, one for every peer that did not run or disagrees, and how many
cores were busy with other work meanwhile.
Only Python's standard library is used here; what peers need lies in their environments.
"""
import argparse
import contextlib
import datetime
import fcntl
import importlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PARTS = ("training", "reading", "accounting", "whole", "accuracy")
MEMORY_LIMIT_MIB = 16 * 1024

# environment -> what it takes; requirements/NAME.txt pins its packages.
DOWNLOADS = {
    "torch": "PyTorch, which brings CUDA's libraries, and Opacus: about 2.5 GB to download, 5.6 GB on the disk",
    "jax": "JAX and JAX-Privacy: about 150 MB to download, 0.5 GB on the disk",
    "reading": "pandas, polars, pyarrow, DuckDB and PySpark: about 550 MB to download, 1.1 GB on the disk",
    "accounting": "dp-accounting and prv-accountant: about 60 MB to download, 0.3 GB on the disk",
}


class NotRun(Exception):
    """Why a peer has no row."""


# ---- Processes ----


def descendants(pid):
    """The process and all that it started and that still run."""
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        for children in Path(f"/proc/{p}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += [int(c) for c in children.read_text().split()]
    return found


def memory_mib(pid, key):
    """VmRSS (now) or VmHWM (at most so far) of a process and all below it, added up."""
    total = 0
    for p in descendants(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{p}/status").read_text().splitlines():
                if line.startswith(key + ":"):
                    total += int(line.split()[1]) / 1024
    return total


def processor_seconds(pid):
    """That a process, all below it and those of them that have ended have used."""
    total = 0
    for p in descendants(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def busy_seconds():
    """That all cores have worked, for whomever; what a hypervisor took away counts too."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


class Process:
    """A worker: started on some cores, watched for memory, asked words, always ended."""

    def __init__(self, command, cores, log, patience):
        self.log, self.patience, self.peak_mib, self.killed = log, patience, 0.0, None
        self.used = 0.0
        environment = dict(os.environ, OMP_NUM_THREADS=str(len(cores)), PYTHONDONTWRITEBYTECODE="1")
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
                start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.watch = threading.Thread(target=self.watch_memory, daemon=True)
        self.watch.start()

    def watch_memory(self):
        while self.process.poll() is None:
            self.peak_mib = max(self.peak_mib, memory_mib(self.process.pid, "VmHWM"))
            if memory_mib(self.process.pid, "VmRSS") > MEMORY_LIMIT_MIB:
                self.kill(f"it needs more than {MEMORY_LIMIT_MIB // 1024} GiB of memory")
            time.sleep(0.1)

    def kill(self, why):
        self.killed = self.killed or why
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ask(self, word):
        timer = threading.Timer(self.patience, self.kill, (f"no answer to {word} within {self.patience} s",))
        timer.start()
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            return json.loads(line)
        self.process.wait()
        raise NotRun(self.killed or f"it ended with status {self.process.returncode}: {self.last_words()}")

    def last_words(self):
        lines = [line.strip() for line in Path(self.log).read_text(errors="replace").splitlines() if line.strip()]
        named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
        return (named or lines or ["it said nothing"])[-1][:300]

    def end(self):
        self.used = processor_seconds(self.process.pid)
        self.kill("done")
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


# ---- Environments ----


class Tools:
    """Makes commands, and the environments that they need, once each."""

    def __init__(self, folder, build, enough):
        self.folder, self.build, self.enough, self.failed = Path(folder), Path(build), enough, {}

    def words(self, keys):
        return [w for key, value in {**keys, "enough": self.enough}.items() for w in (f"--{key}", str(value))]

    def ours(self, part, keys):
        return [str(self.build / "benchmarks/compare/ours"), part, *self.words(keys)]

    def python(self, environment, file, function, keys):
        """The command; or, where its environment cannot be made, the reason (NotRun is raised when it is started)."""
        return Lazy(self, environment, [str(HERE / file), function, *self.words(keys)])

    def interpreter(self, environment):
        """That environment's python; makes it if need be. Raises NotRun."""
        if environment in self.failed:
            raise NotRun(self.failed[environment])
        where = self.folder / environment
        if not self.ready(environment):
            try:
                self.install(environment, where)
            except (NotRun, OSError) as e:
                self.failed[environment] = str(e)
                raise NotRun(self.failed[environment]) from None
        return str(where / "bin/python")

    def ready(self, environment):
        """Whether it is there, with the packages that are pinned today."""
        mark = self.folder / environment / "installed.txt"
        return mark.exists() and mark.read_text() == (HERE / f"requirements/{environment}.txt").read_text()

    def install(self, environment, where):
        print(f"Installing {environment} ...", flush=True)
        free = shutil.disk_usage(self.folder).free / 1e9
        if free < 10:
            raise NotRun(f"too little disk: {free:.1f} GB are free, 10 GB are asked for")
        log = self.folder / f"{environment}.install.log"
        with open(log, "w") as output:
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(where)],
                [str(where / "bin/python"), "-m", "pip", "install", "--only-binary", ":all:", "--prefer-binary", "-r",
                 str(HERE / f"requirements/{environment}.txt")],
            ):
                if environment == "reading":  # PySpark is published as source alone
                    command = [w for w in command if w not in ("--only-binary", ":all:")]
                if subprocess.run(command, stdout=output, stderr=output).returncode != 0:
                    errors = [line for line in log.read_text().splitlines() if line.startswith(("ERROR", "Error"))]
                    raise NotRun(f"it does not install: {(errors or ['see ' + str(log)])[-1][:200]}")
        shutil.copy(HERE / f"requirements/{environment}.txt", where / "installed.txt")


class Lazy:
    """A command whose environment is made when it is first needed, so that one which fails costs one peer its row."""

    def __init__(self, tools, environment, rest):
        self.tools, self.environment, self.rest = tools, environment, rest

    def command(self):
        return [self.tools.interpreter(self.environment), *self.rest]


# ---- Measuring ----


class Journal:
    """Appends lines of JSON; each is on the disk before the next measurement begins."""

    def __init__(self, file, run):
        self.file, self.run = Path(file), run

    def add(self, row):
        row = {"run": self.run, **row}
        with open(self.file, "a") as out:
            out.write(json.dumps(row) + "\n")
            out.flush()
            os.fsync(out.fileno())


def load_average():
    return round(os.getloadavg()[0], 2)


def duel(part, point, name, commands, journal, repeats, logs, patience=600):
    """Starts all sides, compares the first one's answer with the last one's, then times them in turn, A B A B."""
    row = {"part": part.NAME, "point": point, "peer": name}
    cores = sorted(os.sched_getaffinity(0))[: point.get("threads", 1)]
    processes, answers, shown, start = [], [], {}, {}
    try:
        commands = [(side, c.command() if isinstance(c, Lazy) else c) for side, c in commands]
    except NotRun as e:
        journal.add({**row, "status": "not run", "why": str(e)})
        return f"not run: {e}"
    begun, busy, own = time.monotonic(), busy_seconds(), time.process_time()
    try:
        for side, command in commands:
            shown[side] = " ".join(command).replace(str(ROOT) + "/", "")
            log = logs / f"{part.NAME}.{name}.{side}.log".replace(" ", "_").replace("/", "_").replace("'", "")
            now = time.monotonic()
            processes.append((side, Process(command, cores, log, patience)))
            answers.append(ask(processes[-1], "check"))
            start[side] = round(time.monotonic() - now, 3)
        ours, theirs = answers[0], answers[-1]
        wrong = part.agree(point, ours, theirs)
        proof = {k: v for k, v in theirs.items() if not isinstance(v, str)}
        if wrong:
            journal.add({**row, "status": "disagrees", "why": wrong, "proof": proof, "command": shown})
            return f"DISAGREES: {wrong}"
        for side in processes:
            ask(side, "prepare")
        times = []
        for repeat in range(repeats):
            seconds = {side: ask((side, p), "time")["seconds"] for side, p in processes}
            times.append(seconds)
            journal.add({
                **row, "status": "measured", "repeat": repeat, "seconds": seconds, "load": load_average(), "start": start,
                "peak_mib": {side: round(max(p.peak_mib, memory_mib(p.process.pid, "VmHWM")), 1) for side, p in processes},
                "proof": proof, "command": shown,
            })
        middle = {side: sorted(t[side] for t in times)[len(times) // 2] for side in times[0]}
        words, factor = part.unit(point)
        return "  ".join(f"{side} {value * factor:.4g}" for side, value in middle.items()) + f" {words}"
    except NotRun as e:
        journal.add({**row, "status": "not run", "why": str(e)})
        return f"not run: {e}"
    finally:
        for _, p in processes:
            p.end()
        used = time.process_time() - own + sum(p.used for _, p in processes)
        others = max(0, busy_seconds() - busy - used) / (time.monotonic() - begun)
        journal.add({**row, "status": "others", "cores": round(others, 2)})


class OursFailed(Exception):
    """Ours must run: without it there is nothing to compare with."""


def ask(side_and_process, word):
    side, process = side_and_process
    try:
        return process.ask(word)
    except NotRun as e:
        if side == "theirs":
            raise
        raise OursFailed(f"our own side failed: {e}") from None


def chosen(name, only):
    return not only or name.startswith("ours") or any(o.lower() in name.lower() for o in only)


def survey(part, options, tools, journal, folder):
    """All points, repeats and sides of a part that is about answers: each is asked once, one after the other."""
    logs, cores, table = Path(folder) / "logs", sorted(os.sched_getaffinity(0))[:1], None
    for point in part.points(options.quick, options.csv):
        if part.place(point)[0] != table:
            table = part.place(point)[0]
            print(f"\n{part.NAME}: {table}", flush=True)
        for repeat in range(options.repeats * point.get("times", 1)):
            told, words = part.inputs(point, repeat, Path(folder) / "inputs", options, tools), []
            for name, command in part.sides(told, options, tools):
                if not chosen(name, options.only):
                    continue
                row, process = {"part": part.NAME, "point": point, "peer": name, "repeat": repeat}, None
                try:
                    command = command.command() if isinstance(command, Lazy) else command
                    process = Process(command, cores, logs / f"{part.NAME}.{name}.log".replace(" ", "_"), options.patience)
                    answer = process.ask("check")
                    wrong = part.judge(point, answer, tools)
                    row = {**row, "status": "disagrees" if wrong else "answered", "answer": answer}
                    words.append(f"{name} {answer['accuracy']:.4f}")
                except NotRun as e:
                    if name.startswith("ours"):
                        raise OursFailed(f"our own side failed: {e}") from None
                    row, wrong = {**row, "status": "not run"}, str(e)
                finally:
                    if process:
                        process.end()
                journal.add({**row, "why": wrong} if wrong else row)
            print(f"  {part.place(point)[1]:>14}, {repeat + 1}: {', '.join(words)}", flush=True)


def measure(part, options, tools, journal, folder):
    """All points and peers of a part."""
    logs = Path(folder) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    if hasattr(part, "judge"):
        return survey(part, options, tools, journal, folder)
    table = None
    for point in part.points(options.quick):
        if part.place(point)[0] != table:
            table = part.place(point)[0]
            print(f"\n{part.NAME}: {table}", flush=True)
        files = part.inputs(point, Path(folder) / "inputs", options)
        for name, commands in part.sides(point, files, options, tools):
            if chosen(name, options.only):
                words = duel(part, point, name, commands, journal, options.repeats, logs, options.patience)
                print(f"  {part.place(point)[1]:>14}  {name}: {words}", flush=True)


def machine():
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in facts if line.startswith("model name")), platform.machine())
    flags = next((line.split(":")[1].split() for line in facts if line.startswith("flags")), [])
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": f"{model}, {vectors}", "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory, 1),
            "system": f"{platform.system()} {platform.release().split('-')[0]}", "python": platform.python_version()}


def versions():
    """Ours by commit, theirs by what is pinned."""
    ask = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    with contextlib.suppress(OSError):
        ours = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        pins = sorted((HERE / "requirements").glob("*.txt"))
        return {"dpsgd": ours or "unknown", **{p.stem: p.read_text().split() for p in pins}}
    return {}


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.split("\n\n")[0],
                                     epilog="Results: build/compare/results.jsonl, page.html and tables.md.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="a few points, short times: to see that it works")
    parser.add_argument("--repeats", type=int, help="times that every side is measured; default 7, with --quick 3")
    parser.add_argument("--only", default="", help="peers whose name contains one of these words, with commas between")
    parser.add_argument("--csv", help="whole, reading, accuracy: records of your own, with the columns of examples/pums.schema.json")
    parser.add_argument("--patience", type=float, default=900, help="seconds to wait for one answer (default 900)")
    parser.add_argument("--build", default=str(ROOT / "build/release"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", default=str(ROOT / "build/compare"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part}; the parts are {', '.join(PARTS)}")
    options.repeats = options.repeats or (3 if options.quick else 7)
    options.only = [o.strip() for o in options.only.split(",") if o.strip()]
    if options.csv and not Path(options.csv).is_file():
        parser.error(f"--csv: there is no file {options.csv}")

    options.command = "benchmarks/compare/run.sh " + " ".join(arguments or sys.argv[1:])
    if options.csv:  # by its name: where it lies is nobody's business
        options.command = options.command.replace(options.csv, Path(options.csv).name)
    tools = Tools(options.folder, options.build, 0.05 if options.quick else 0.2)
    return run([importlib.import_module(name) for name in options.parts or PARTS], options, tools)


def run(parts, options, tools):
    """Measures the parts and writes the report, whatever happens. Returns the exit status; 130 when interrupted."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    alone = open(folder / "lock", "w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"run.sh: another run is measuring into {folder}; wait for it, or end it", file=sys.stderr)
        return 1
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    journal = Journal(folder / "results.jsonl", now.isoformat(timespec="milliseconds") + "Z")
    journal.add({"status": "run", "machine": machine(), "versions": versions(), "load": load_average(),
                 "command": options.command, "quick": options.quick})
    for name in dict.fromkeys(name for part in parts for name in part.ENVIRONMENTS if not tools.ready(name)):
        print(f"Will be installed from PyPI into {folder}/{name}: {DOWNLOADS[name]}", flush=True)
    for ending in (signal.SIGINT, signal.SIGTERM):  # even where a shell in the background had them ignored
        signal.signal(ending, signal.default_int_handler)
    status = 0
    try:
        for part in parts:
            measure(part, options, tools, journal, folder)
    except KeyboardInterrupt:
        print("\ninterrupted: the finished rows are kept", flush=True)
        status = 130
    except OursFailed as e:
        print(f"run.sh: {e}", file=sys.stderr)
        status = 1
    report.write(folder / "results.jsonl")
    alone.close()
    print(f"\n{folder}/results.jsonl, page.html and tables.md are written")
    return status


if __name__ == "__main__":
    sys.exit(main())
