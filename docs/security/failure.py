#!/usr/bin/env python3
"""Failure probability of a batch of the bulk engine: how many standard deviations fit below q / 2.

    python3 docs/security/failure.py > docs/security/failure.txt

Coefficients of the phase are taken as Gaussian of standard deviation S. One that is beyond q / 2 in
absolute value decrypts to garbage, so with q = 2 x S

    p = erfc(x / sqrt(2))               for one coefficient,
    p_fail <= N * outputs * p           for a batch (union bound).

Prints the least x for a wanted p_fail. Standard library only: the tail is computed in the log domain,
by the continued fraction of Laplace.
"""

import math

TARGETS = [-64, -128]
RINGS = [2048, 4096, 8192, 16384]
OUTPUTS = [1, 10, 100]


def log2_tail(x):
    """log2 of erfc(x / sqrt(2)): both tails of the standard Gaussian beyond x."""
    fraction = x
    for k in range(200, 0, -1):
        fraction = x + k / fraction
    return (-x * x / 2 - math.log(fraction) - math.log(2 * math.pi) / 2) / math.log(2) + 1


def least_x(log2_p):
    """x with log2_tail(x) = log2_p, by bisection, rounded up to 1/1000."""
    low, high = 1.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if log2_tail(middle) > log2_p else (low, middle)
    return math.ceil(high * 1000) / 1000


def main():
    # Where the tail is no longer tiny, the log domain and the library agree.
    for x in [2.0, 5.0, 10.0]:
        assert abs(log2_tail(x) - math.log2(math.erfc(x / math.sqrt(2)))) < 1e-9

    print("least x, so that N * outputs coefficients beyond x standard deviations have probability p_fail")
    print()
    print("      N  outputs" + "".join(f"   p_fail 2^{target:<5}" for target in TARGETS))
    print("    one coefficient" [:16] + "".join(f"{least_x(target):17.3f}" for target in TARGETS))
    for ring_dimension in RINGS:
        for outputs in OUTPUTS:
            union = math.log2(ring_dimension * outputs)
            columns = "".join(f"{least_x(target - union):17.3f}" for target in TARGETS)
            print(f"{ring_dimension:7}  {outputs:7}{columns}")


if __name__ == "__main__":
    main()
