"""What every peer's process is: it does one piece of work as often as it is told to.

    python PEERS.py NAME --key value ...      NAME is a function or class of PEERS.py; the keys are its arguments

The work has check() -> dict, the answer that is compared with ours, and repeat(n) -> seconds of n repetitions. Words on
standard input ask for them, each answered by one line of JSON, just as benchmarks/compare/ours.cpp does:
    check      the answer
    prepare    warms up (compilers run now: "first" is the first repetition) and finds how many make a time worth reading
    time       {"seconds": of one repetition}
"""
import json
import os
import sys
import time


class Timed:
    """Work that is a plain function: its return value is the answer."""

    def __init__(self, run):
        self.run = run

    def check(self):
        return self.run()

    def repeat(self, n):
        start = time.perf_counter()
        for _ in range(n):
            self.run()
        return time.perf_counter() - start


def arguments(words):
    """--key value ... as a dict; numbers become numbers."""
    found = {}
    for key, value in zip(words[::2], words[1::2]):
        for kind in (int, float, str):
            try:
                found[key.removeprefix("--")] = kind(value)
                break
            except ValueError:
                pass
    return found


def serve(peers):
    """The program of a peer's file: serve(globals())."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries talk; the answers must stand alone
    said = arguments(sys.argv[2:])
    enough = said.pop("enough", 0.2)
    work = peers[sys.argv[1]](**said)
    if not hasattr(work, "repeat"):
        work = Timed(work)
    n = 1
    for line in sys.stdin:
        word = line.strip()
        if word == "check":
            answer = work.check()
        elif word == "prepare":
            first = work.repeat(1)
            while first < 20 * enough and work.repeat(n) < enough:
                n *= 2
            answer = {"first": first, "repetitions": n}
        elif word == "time":
            answer = {"seconds": work.repeat(n) / n}
        else:
            raise SystemExit(f"unknown word {word}; expected check, prepare or time")
        answers.write(json.dumps(answer) + "\n")
