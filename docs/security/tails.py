#!/usr/bin/env python3
"""Tails of products of many phases: how far from Gaussian the noise of the bulk engine is.

    pip install numpy
    python3 docs/security/tails.py > docs/security/tails.txt     (some minutes)

The sum of T products of d columns each, all different, without a flood. At each of the N / 2 pairs of
complex roots of X^N + 1 the value of a column is close to complex Gaussian, so a product has
|Y|^2 = mean * E_1 * .. * E_d with exponentially distributed E_i. A coefficient of unit variance is the sum
over all pairs and products of

    2 sqrt(E_1 * .. * E_d / (N T)) cos(uniform angle).

For high d one such term can be far larger than all others together. The tail is computed as that of a
Gaussian plus that of a Gaussian and *one* large term. A simulation of ring products at small N compares.
"""

import math

import numpy as np

STEP = 0.02
LOG_EXPONENTIAL = np.arange(-14, 6.5, STEP)
DENSITY = np.exp(LOG_EXPONENTIAL - np.exp(LOG_EXPONENTIAL))
COSINES = np.cos((np.arange(200) + 0.5) / 200 * math.pi / 2)


def log2_upper(x):
    """log2 of the upper tail of the standard Gaussian."""
    if x < 3:
        return math.log2(math.erfc(x / math.sqrt(2)) / 2)
    fraction = x
    for k in range(200, 0, -1):
        fraction = x + k / fraction
    return (-x * x / 2 - math.log(fraction) - math.log(2 * math.pi) / 2) / math.log(2)


GRID = np.linspace(-5, 37, 4201)
LOG2_UPPER = np.array([log2_upper(x) for x in GRID])


class Tail:
    """Tail of one coefficient."""

    def __init__(self, degree, ring_dimension, products):
        density, low = DENSITY, LOG_EXPONENTIAL[0]
        for _ in range(degree - 1):
            density, low = np.convolve(density, DENSITY) * STEP, low + LOG_EXPONENTIAL[0]
        logs = low + STEP * np.arange(len(density))
        # Terms of less than one standard deviation are in the Gaussian.
        places = ring_dimension * products
        large = logs > math.log(places / 4)
        self.weights = density[large] * STEP * places / 2
        self.terms = 2 * np.sqrt(np.exp(logs[large]) / places)[:, None] * COSINES[None, :]

    def __call__(self, x):
        """log2 of the probability that a coefficient is beyond x, on either side."""
        upper = np.exp2(np.interp(np.clip(x - self.terms, -5, 37), GRID, LOG2_UPPER))
        # Half of all angles point to this side, and there are two sides.
        one_large = (self.weights @ upper.mean(axis=1))
        return math.log2(2 * 2 ** log2_upper(x) + one_large)


def simulate(ring_dimension, degree, batches, rng):
    """Coefficients of products of errors of the engine in Z[X]/(X^N + 1), in standard deviations."""
    twist = np.exp(1j * np.pi * np.arange(ring_dimension) / ring_dimension)
    found = []
    for _ in range(batches):
        product = np.ones((2000, ring_dimension), complex)
        for _ in range(degree):
            error = rng.binomial(42, 0.5, size=product.shape) - 21
            product *= np.fft.fft(error * twist, axis=1)
        found.append((np.fft.ifft(product, axis=1) / twist).real.ravel())
    found = np.concatenate(found)
    return found / math.sqrt(ring_dimension ** (degree - 1) * 10.5**degree)


def main():
    print("log2 of N times the probability that a coefficient is beyond x standard deviations")
    print("\n    N  products  degree   x = 14.1   x = 28.2")
    for ring_dimension in [4096, 8192, 16384]:
        for products in [1, 10, 100]:
            for degree in [2, 3, 4, 5, 6, 8]:
                tail = Tail(degree, ring_dimension, products)
                columns = "".join(f"{math.log2(ring_dimension) + tail(x):11.0f}" for x in [14.1, 28.2])
                print(f"{ring_dimension:5}  {products:8}  {degree:6}{columns}")

    print("\nlog2 of the probability for one coefficient: simulated, computed, Gaussian")
    print("\n    N  degree   x   simulated  computed  Gaussian")
    rng = np.random.default_rng(1)
    for ring_dimension, degree in [(64, 4), (256, 4), (256, 6)]:
        found = np.abs(simulate(ring_dimension, degree, 1600 // (ring_dimension // 64), rng))
        tail = Tail(degree, ring_dimension, 1)
        for x in [4, 5, 6, 8]:
            count = int((found > x).sum())
            simulated = f"{math.log2(count / found.size):.1f}" if count >= 20 else "rare"
            print(
                f"{ring_dimension:5}  {degree:6}  {x:2}  {simulated:>10}  {tail(x):8.1f}  {log2_upper(x) + 1:8.1f}"
            )


if __name__ == "__main__":
    main()
