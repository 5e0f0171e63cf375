"""Random labels for the tests of agreement, with ties, gaps and one-sided raters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlaif.agreement.metrics import Codes, Floats, Ints


def random_codes(seed: int, size: int | tuple[int, ...], missing: float = 0.2) -> Codes:
    """Codes 0, 1, 2 with random shares, and -1 for some."""
    random = np.random.default_rng(seed)
    codes = random.choice(3, size=size, p=random.dirichlet((1, 1, 0.5)))
    return np.where(random.random(size) < missing, -1, codes).astype(np.int8)


def rating_counts(codes: Codes) -> Ints:
    """Raters per category of each pair, (pairs, 3), from the codes of all raters, (pairs, raters)."""
    return np.stack([(codes == category).sum(axis=1) for category in range(3)], axis=1)


def random_tables(number: int = 200) -> Iterator[tuple[Codes, Codes]]:
    """Two raters' codes of 1 to 60 pairs, who agree more or less often."""
    for seed in range(number):
        random = np.random.default_rng(seed)
        n = int(random.integers(1, 61))
        first, other = random_codes(seed, n), random_codes(seed + 10_000, n)
        yield first, np.where(random.random(n) < random.random(), first, other)


def outcomes(seed: int, x: Floats, intercept: float = 0.3, slope: float = 0.8, ties: float = 0.1) -> Floats:
    """Preferences 1, 0 and some 0.5 whose log-odds follow a line in x."""
    random = np.random.default_rng(seed)
    sides = (random.random(len(x)) < 1 / (1 + np.exp(-intercept - slope * x))).astype(np.float64)
    return np.where(random.random(len(x)) < ties, 0.5, sides)
