#!/usr/bin/env python3
"""Security of the bulk engine's parameter sets, by the lattice estimator.

    git clone https://github.com/malb/lattice-estimator
    git -C lattice-estimator checkout 27a581bb8e9d49f5e9e2db315bd48ac769d5f5f5
    pip install passagemath-standard==10.8.13
    python3 docs/security/estimate.py --estimator lattice-estimator

A set is RLWE over Z_q[X]/(X^N + 1), looked at as LWE of dimension N with as many samples as an attack
wants: uniform ternary secret, error centred binomial of 21 + 21 bits, q the exact product of primes
in engine/src/bulk/parameters.rs. BGV multiplies the error by t, which is invertible modulo q: that
is the same problem.

Each line of output is one attack on one set: log2 of the cost in the estimator's ring operations, then
what the estimator returns. The last lines are the same as a table.
"""

import argparse
import math
import multiprocessing
import pathlib
import platform
import re
import subprocess
import sys
import time
from importlib import metadata

# N, and how many of PRIMES: all that `Parameters` admits.
SETS = [
    (2048, 1),
    (4096, 1), (4096, 2),
    (8192, 2), (8192, 3), (8192, 4),
    (16384, 4), (16384, 5), (16384, 6), (16384, 7), (16384, 8),
]
ATTACKS = ["primal_usvp", "primal_bdd", "dual_hybrid"]
BINOMIAL = 21  # bits on each side; variance 10.5
PARAMETERS = pathlib.Path(__file__).parents[2] / "engine/src/bulk/parameters.rs"


def primes():
    """PRIMES as the engine's source has them."""
    source = PARAMETERS.read_text()
    body = re.search(r"PRIMES: \[u64; 8\] = \[(.*?)\]", source, re.S).group(1)
    found = [int(word.replace("_", ""), 16) for word in re.findall(r"0x([0-9a-f_]+)", body)]
    assert len(set(found)) == 8
    return found


def estimate(task):
    """One attack on one set."""
    ring_dimension, count, attack = task
    from estimator import LWE, ND, RC

    parameters = LWE.Parameters(
        n=ring_dimension,
        q=math.prod(primes()[:count]),
        Xs=ND.Uniform(-1, 1),
        Xe=ND.CenteredBinomial(BINOMIAL),
    )
    start = time.monotonic()
    cost = getattr(LWE, attack)(parameters, red_cost_model=RC.MATZOV)
    log2_cost = float(math.log2(cost["rop"]))
    in_one_line = " ".join(str(cost).split())
    return ring_dimension, count, attack, log2_cost, in_one_line, time.monotonic() - start


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--estimator", required=True, help="checkout of malb/lattice-estimator")
    arguments.add_argument("--processes", type=int, default=1)
    arguments = arguments.parse_args()
    sys.path.insert(0, arguments.estimator)

    from sage.all import is_prime

    for prime in primes():
        assert is_prime(prime) and prime % 2**16 == 1 and prime < 2**51

    git = ["git", "-C", arguments.estimator]
    commit = subprocess.check_output(git + ["log", "-1", "--format=%H (%cs)"], text=True).strip()
    changed = subprocess.check_output(git + ["status", "--porcelain", "--untracked-files=no"])
    print(f"lattice-estimator {commit}{', modified' if changed else ''}")
    for package in ["passagemath-standard", "passagemath-modules"]:
        print(package, metadata.version(package))
    print("Python", platform.python_version())
    print(time.strftime("run on %Y-%m-%d", time.gmtime()))
    print("secret ND.Uniform(-1, 1), error ND.CenteredBinomial(21), cost model RC.MATZOV")
    print(flush=True)

    tasks = [(n, count, attack) for n, count in SETS for attack in ATTACKS]
    bits = {}
    context = multiprocessing.get_context("fork")
    with context.Pool(arguments.processes, maxtasksperchild=1) as pool:
        for n, count, attack, log2_cost, cost, seconds in pool.imap(estimate, tasks):
            bits.setdefault((n, count), []).append(log2_cost)
            print(f"N={n} primes={count} {attack} {log2_cost:.1f}: {cost}", flush=True)
            print(f"N={n} primes={count} {attack}: {seconds:.0f} s", file=sys.stderr, flush=True)

    print("\n    N  primes   log2 q " + "".join(f"{attack:>13}" for attack in ATTACKS) + "      least")
    for (n, count), costs in bits.items():
        log2_q = math.log2(math.prod(primes()[:count]))
        columns = "".join(f"{cost:13.1f}" for cost in costs)
        print(f"{n:5}  {count:6}  {log2_q:7.3f} {columns}  {min(costs):9.1f}")


if __name__ == "__main__":
    main()
