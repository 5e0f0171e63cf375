"""Known alpha and beta of the law of over-optimisation, recovered: how often the 95% intervals hold them.

    python -m benchmarks.gao_recovery [--simulations 1000]

`candidates`: for each prompt a pool of candidates whose gold depends on their rank by the proxy such that the best of n
follows the law exactly, with an alpha and a beta of the prompt's own and noise on each candidate; the curve is then
estimated from the pool, so that its points share samples as they do in use. `curves`: each prompt's curve with
independent noise on its points. `points`: one curve of which only the points are known. The peak is the ratio
alpha / 2 beta of the means.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from benchmarks.common import keep, print_table
from rlaif.optimize.best_of import best_of, best_weights, kl_of_best, sizes_up_to
from rlaif.optimize.gao import GaoFit, fit_points, fit_prompts
from rlaif.rewards.preferences import Floats


class Setting(NamedTuple):
    """What is simulated: of the prompts, `spread` is the deviation of their alphas, half of it that of their betas."""

    kind: str
    alpha: float
    beta: float
    prompts: int = 100
    pool: int = 64
    noise: float = 1.0
    spread: float = 0.4


SETTINGS = (
    Setting("candidates", 1.0, 0.35),
    Setting("candidates", 1.0, 0.35, prompts=20, pool=16),
    Setting("candidates", 1.0, 0.35, prompts=400, pool=32, noise=3.0, spread=0.0),
    Setting("candidates", 0.6, 0.0),
    Setting("candidates", 0.3, 0.5, prompts=50),
    Setting("candidates", 1.0, 0.35, prompts=30, pool=256),
    Setting("curves", 1.0, 0.35, prompts=50, noise=0.5),
    Setting("curves", 0.4, 0.4, prompts=10, noise=0.2),
    Setting("points", 1.0, 0.35, noise=0.05),
    Setting("points", 0.8, 0.1, pool=16, noise=0.2),
)


def distances(pool: int) -> Floats:
    """Root of the KL at each size that is measured of a pool."""
    return np.sqrt([kl_of_best(n) for n in sizes_up_to(pool).tolist()])


@lru_cache
def _rank_gold(pool: int) -> Floats:
    """Gold by rank of which the best of n is d and d^2 at each size, (pool, 2), as smooth as can be."""
    weights, distance = best_weights(pool, sizes_up_to(pool)), distances(pool)
    bend = np.diff(np.eye(pool), n=2, axis=0)
    rows = np.concatenate([1e6 * weights, bend])
    wanted = np.concatenate([1e6 * np.column_stack([distance, distance**2]), np.zeros((len(bend), 2))])
    found: Floats = np.linalg.lstsq(rows, wanted, rcond=1e-15)[0]
    assert np.abs(weights @ found - np.column_stack([distance, distance**2])).max() < 1e-4
    return found


def simulated_candidates(setting: Setting, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Proxy and gold of each candidate, (prompts, candidates)."""
    shape = setting.prompts, setting.pool
    proxy = random.normal(size=shape)
    own = random.normal((setting.alpha, setting.beta), (setting.spread, setting.spread / 2), (setting.prompts, 2))
    by_rank = (own * (1, -1)) @ _rank_gold(setting.pool).T
    gold = np.take_along_axis(by_rank, proxy.argsort(axis=1).argsort(axis=1), axis=1)
    return proxy, gold + setting.noise * random.normal(size=shape)


def simulated_fit(setting: Setting, random: np.random.Generator) -> GaoFit:
    """One simulation."""
    distance = distances(setting.pool)
    if setting.kind == "candidates":
        proxy, gold = simulated_candidates(setting, random)
        curves = best_of(proxy, gold[..., None], sizes_up_to(setting.pool))[..., 0]
        return fit_prompts(distance, curves - curves[:, :1])
    if setting.kind == "points":
        law = distance * (setting.alpha - setting.beta * distance)
        return fit_points(distance, law + setting.noise * (distance > 0) * random.normal(size=len(distance)))
    own = random.normal((setting.alpha, setting.beta), (setting.spread, setting.spread / 2), (setting.prompts, 2))
    curves = own @ np.stack([distance, -(distance**2)])
    return fit_prompts(distance, curves + setting.noise * (distance > 0) * random.normal(size=curves.shape))


def _holds(ci: tuple[float, float | None] | None, known: float) -> bool:
    assert ci is not None
    return ci[0] <= known and (ci[1] is None or known <= ci[1])


def recovered(setting: Setting, simulations: int, seed: int = 0) -> Floats:
    """Whether the intervals of alpha, beta and the peak hold the known values, (simulations, 3).

    The peak's is nan where there is none within the range, or none was found.
    """
    furthest = float(distances(setting.pool)[-1])
    known = setting.alpha / (2 * setting.beta) if setting.beta > 0 else np.inf
    found = np.full((simulations, 3), np.nan)
    for number in range(simulations):
        fit = simulated_fit(setting, np.random.default_rng([seed, number]))
        found[number, :2] = _holds(fit.alpha_ci, setting.alpha), _holds(fit.beta_ci, setting.beta)
        peak = fit.peak(furthest)
        if peak is not None and known < furthest:
            found[number, 2] = _holds(peak.distance_ci, known)
    return found


def told(setting: Setting, found: Floats) -> dict[str, object]:
    """A row of the table: the shares, and of how many hundreds of simulations at least 93 hold the known value."""
    hundreds = (found[: len(found) // 100 * 100, :2].reshape(-1, 100, 2).sum(axis=1) >= 93).sum(axis=0)
    peaks = found[np.isfinite(found[:, 2]), 2]
    return {
        **setting._asdict(),
        "alpha held": f"{found[:, 0].mean():.1%}",
        "beta held": f"{found[:, 1].mean():.1%}",
        "hundreds with 93 or more": f"{hundreds[0]} and {hundreds[1]} of {len(found) // 100}",
        "peak held": f"{peaks.mean():.1%} of {len(peaks)}" if len(peaks) else "-",
    }


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    simulations = parser.parse_args().simulations
    rows = [told(setting, recovered(setting, simulations)) for setting in SETTINGS]
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    keep("gao_recovery", {"simulations": simulations, "rows": rows})


if __name__ == "__main__":
    main()
