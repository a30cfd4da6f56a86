#!/usr/bin/env python3
"""Plants bugs, one at a time, and looks whether a test finds them.

  tests/mutation/run.py                 every mutant (some minutes); exit 1 when a bug survives or a harmless change does not
  tests/mutation/run.py NAME...         these
  tests/mutation/run.py --check         only that each change still fits the sources (what CTest runs)

A mutant is a line of a header changed in a copy of include/; its killer is the test case that should fail then. A killer
knows the law, never the right bits: so the harmless variants at the end, which change bits and not the law, must pass
every killer. The library has no hook for any of this.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from mutants import HARMLESS, MUTANTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++20", "-O1", "-w", "-pthread"]


def apply(mutant, include):
    """Makes the change in a copy of include/; says what is wrong if it does not fit."""
    for header, old, new in mutant["changes"]:
        path = include / "dpsgd" / header
        text = path.read_text()
        if text.count(old) != 1:
            return f"{mutant['name']}: {header} has {text.count(old)} times: {old!r}"
        if old == new:
            return f"{mutant['name']}: nothing is changed"
        path.write_text(text.replace(old, new))
    return None


def command(killer, include, program, main_object):
    source, _ = killer
    return [os.environ.get("CXX", "g++"), *FLAGS, f"-I{include}", f"-I{ROOT}/tests", "-isystem", "/usr/include/eigen3",
            f'-DDPSGD_SOURCE_DIR="{ROOT}"', str(ROOT / "tests" / source), str(main_object), "-o", str(program)]


def judge(mutant, killers, main_object, scratch):
    """(survived, words): builds and runs the killers against the changed headers."""
    place = scratch / mutant["name"].replace(" ", "_")
    include = place / "include"
    shutil.copytree(ROOT / "include", include)
    problem = apply(mutant, include)
    if problem:
        return None, problem
    try:
        for source in sorted({k[0] for k in killers}):
            program = place / "killer"
            built = subprocess.run(command((source, ""), include, program, main_object), capture_output=True, text=True)
            if built.returncode:
                errors = [line for line in built.stderr.splitlines() if "error" in line] or ["no compiler?"]
                return None, f"does not compile, so it proves nothing: {errors[0]}"
            for case in [k[1] for k in killers if k[0] == source]:
                # doctest takes a comma as the end of a pattern.
                pattern = case.replace(",", "?")
                try:
                    ran = subprocess.run([program, f"-tc={pattern}"], capture_output=True, text=True, timeout=300)
                except subprocess.TimeoutExpired:
                    return False, f"{source}: {case} (it did not end)"
                if " 0 passed" in ran.stdout and " 0 failed" in ran.stdout and "test cases: 0" in ran.stdout.replace("  ", " "):
                    return None, f"{mutant['name']}: {source} has no test case {case!r}"
                if ran.returncode:
                    return False, f"{source}: {case}"
        return True, ""
    finally:
        shutil.rmtree(place)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()

    everything = MUTANTS + HARMLESS
    unknown = set(asked.names) - {m["name"] for m in everything}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [m for m in everything if not asked.names or m["name"] in asked.names]

    with tempfile.TemporaryDirectory(prefix="dpsgd-mutation-") as room:
        scratch = pathlib.Path(room)
        if asked.check:
            problems = []
            for mutant in chosen:
                include = scratch / "include"
                shutil.copytree(ROOT / "include", include)
                problems.append(apply(mutant, include))
                shutil.rmtree(include)
            problems = [p for p in problems if p]
            print("\n".join(problems) if problems else f"{len(chosen)} changes fit")
            return 1 if problems else 0

        main_object = scratch / "main.o"
        subprocess.run([os.environ.get("CXX", "g++"), *FLAGS, "-c", str(ROOT / "tests/main.cpp"), "-o", str(main_object)],
                       check=True)
        all_killers = sorted({k for m in MUTANTS for k in m["killers"]})
        wrong = 0
        print(f"{'what was planted':<62} killed by", flush=True)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = [(m, m in HARMLESS, pool.submit(judge, m, all_killers if m in HARMLESS else m["killers"],
                                                      main_object, scratch)) for m in chosen]
            for mutant, harmless, future in futures:
                survived, words = future.result()
                as_it_should = survived is not None and survived == harmless
                wrong += not as_it_should
                said = words if not survived else "nobody"
                print(f"{mutant['name'] + (' (harmless)' if harmless else ''):<62} {said}"
                      f"{'' if as_it_should else '   <-- WRONG'}", flush=True)
    print(f"{len(chosen)} planted, {wrong} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
