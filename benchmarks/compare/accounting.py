"""Accounting: epsilon of Poisson-sampled Gaussian steps, and the noise for a target, by ours and by the accountants of Python.

In the process, without its start: an accountant is made, told the steps and asked, anew each time. Answers agree within
1e-3, relative: PLD with PLD, RDP with RDP. prv-accountant gives an interval of a width that it is asked for. Asked for 1e-3
of epsilon either way, as ours guarantees, its upper end must be within 2e-3 of ours. Asked for 0.01, as one would to be
quick, its estimate, which bounds nothing, must be within 1e-3.
"""

NAME = "accounting"
ENVIRONMENTS = ("accounting",)
NOTES = {"dp-accounting, RDP": "looks at few orders by default, and so answers up to some per cent more than RDP gives: a bound "
         "that holds but is looser. With orders by 0.05 it is ours."}
PEERS = [
    ("dp-accounting, PLD", "dp_pld", "pld"),
    ("dp-accounting, RDP", "dp_rdp", "rdp"),
    ("dp-accounting, RDP, orders by 0.05", "dp_rdp_fine", "rdp"),
    ("prv-accountant, within 1e-3", "prv", "pld"),
    ("prv-accountant, estimate", "prv_estimate", "pld"),
]
RATE, NOISE, DELTA = 0.001, 1.0, 1e-6


def points(quick):
    for steps in (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        yield {"steps": steps}
    yield {"steps": 10_000, "target": 3}


def unit(_point):
    return "ms", 1e3


def place(point):
    title = f"epsilon at rate {RATE}, noise {NOISE}, delta {DELTA}"
    if "target" not in point:
        return title, f"{point['steps']:,} steps"
    return f"noise for a target at rate {RATE}, delta {DELTA}", f"epsilon {point['target']}, {point['steps']:,} steps"


def inputs(_point, _folder, _options):
    return None


def sides(point, _inputs, _options, tools):
    keys = {"rate": RATE, "noise": NOISE, "delta": DELTA, **point}
    ours = {a: tools.ours("accounting", {**keys, "accountant": a}) for a in ("pld", "rdp")}
    for accountant in ours:
        yield f"ours again, {accountant.upper()}", [(f"ours, {accountant.upper()}", ours[accountant]),
                                                   ("theirs", ours[accountant])]
    for name, function, accountant in PEERS:
        theirs = tools.python("accounting", "accounting_peers.py", function, keys)
        yield name, [(f"ours, {accountant.upper()}", ours[accountant]), ("theirs", theirs)]


def agree(_point, ours, theirs):
    a, b = ours["value"], theirs["value"]
    theirs["ours"] = a
    allowed = theirs.get("allowed", 1e-3)
    if not abs(a - b) <= allowed * abs(a):
        return f"it answers {b:.6g} where ours answers {a:.6g}; {allowed:g} of it is allowed"
    return None
