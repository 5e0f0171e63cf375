"""Weights that depend on the prompt: a known gate found again, and none found where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from rlaif.errors import InputError, RunError
from rlaif.rewards.calibrate import win_probability
from rlaif.rewards.gate import FittedGate, Gate, fit_gate
from rlaif.rewards.preferences import Floats, Ints
from rlaif.rewards.weights import PRIOR, fit_scaled

pytestmark = pytest.mark.filterwarnings("error")

Data = tuple[Floats, Floats, Floats, Floats, Ints]


def topics(seed: int, pairs: int, by_topic: Floats, width: int = 6) -> tuple[Data, Ints]:
    """Pairs on two topics, two a prompt; what people weigh, (topics, objectives), depends on the topic.

    The embedding tells the topic in its first direction, mixed into all features of quite different sizes.
    """
    random = np.random.default_rng(seed)
    group = np.arange(pairs) // 2
    topic = random.integers(2, size=pairs // 2)[group]
    along = random.normal(size=(pairs // 2, 3))[group]
    along[:, 0] = 6 * topic + 0.3 * along[:, 0]
    noise = 0.01 * random.normal(size=(pairs // 2, width))[group]
    e = (along @ random.normal(size=(3, width)) + noise) * random.uniform(0.1, 100, size=width) + 7
    x = random.normal(size=(pairs, by_topic.shape[1]))
    y = (random.random(pairs) < win_probability(3 * (by_topic[topic] * x).sum(axis=1), 1.0)).astype(float)
    return (e, x, y, np.ones(pairs), group), topic


OPPOSED = np.array([[0.9, 0.1], [0.1, 0.9]])
ALIKE = np.array([[0.7, 0.3], [0.7, 0.3]])


def test_weights_are_a_softmax_by_hand() -> None:
    gate = Gate(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0.0, np.log(2)]))
    # e^(log 6) = 6 and 2; then 1 and 2; then what would overflow.
    found = gate.weights(np.array([[np.log(6), 5], [0, -5], [5000, 0]]))
    assert found == pytest.approx(np.array([[0.75, 0.25], [1 / 3, 2 / 3], [1, 0]]))
    with pytest.raises(RunError, match="prompt 2: its embedding is not finite"):
        gate.weights(np.array([[0.0, 0], [np.nan, 0]]))


@pytest.mark.parametrize("width", [6, 300])
def test_gate_that_people_have_is_found(width: int) -> None:
    # 300 features of 1,200 pairs are seen along some directions only.
    (data, topic) = topics(0, 1200, OPPOSED, width)
    found = fit_gate(*data)
    weights = found.gate.weights(data[0])
    assert weights.sum(axis=1) == pytest.approx(1)
    for number, true in enumerate(OPPOSED):
        assert weights[topic == number].mean(axis=0) == pytest.approx(true, abs=0.08)
    assert found.scale == pytest.approx(3, rel=0.25)
    assert found.better
    assert found.gain_ci is not None
    assert found.gain_ci[0] > 0.02
    assert found.gain == pytest.approx(found.fixed_loss - found.loss)
    assert found.pairs == 1200


def test_gate_that_people_do_not_have_is_not_better() -> None:
    found = [fit_gate(*topics(seed, 600, ALIKE)[0], resamples=300) for seed in range(20)]
    assert sum(each.better for each in found) <= 1
    # Drawn to fixed weights, it costs little to have tried.
    assert all(abs(each.gain) < 0.02 for each in found)
    for each, seed in zip(found, range(20), strict=True):
        data, _ = topics(seed, 600, ALIKE)
        fixed = fit_scaled(data[1], data[2], data[3])
        assert each.gate.weights(data[0]).mean(axis=0) == pytest.approx(fixed / fixed.sum(), abs=0.06)


def test_chance_finds_no_gate_in_noise() -> None:
    random = np.random.default_rng(1)
    data, _ = topics(1, 400, OPPOSED)
    noise = random.normal(size=(200, 40)).repeat(2, axis=0)
    found = fit_gate(noise, *data[1:])
    assert not found.better
    assert found.strength == 0.3


def written_out(e: Floats, x: Floats, y: Floats, w: Floats, strength: float) -> tuple[Floats, float]:
    """The same posterior by a minimiser without derivatives: weights of each pair, and the least loss.

    With fewer features than directions the directions do not matter: standardised, then of mean squared length 1.
    """
    z = (e - e.mean(axis=0)) / e.std(axis=0) / np.sqrt(e.shape[1])
    fixed = fit_scaled(x, y, w)
    level = np.log(np.maximum(fixed / fixed.sum(), 0.01))
    k, width = x.shape[1], e.shape[1]

    def weights(theta: Floats) -> Floats:
        raised = np.exp(z @ theta[: k * width].reshape(k, width).T + theta[k * width : -1])
        shares: Floats = raised / raised.sum(axis=1, keepdims=True)
        return shares

    def loss(theta: Floats) -> float:
        scale = np.exp(theta[-1])
        odds = scale * (weights(theta) * x).sum(axis=1)
        prior = (theta[: k * width] ** 2).sum() / strength**2 + ((theta[k * width : -1] - level) ** 2).sum()
        return float(w @ (np.logaddexp(0, odds) - y * odds) + prior / 2 + scale**2 / PRIOR**2 / 2)

    begin = np.concatenate([np.zeros(k * width), level, [np.log(fixed.sum())]])
    found = optimize.minimize(loss, begin, method="Powell", options={"xtol": 1e-9, "ftol": 1e-14, "maxiter": 5000})
    return weights(found.x), float(np.exp(found.x[-1]))


def test_gate_is_the_best_that_scipy_finds_without_derivatives() -> None:
    data, _ = topics(2, 160, OPPOSED, width=2)
    e, x, y, _, group = data
    w = np.random.default_rng(2).choice([0.5, 1.0, 2.0], len(x))
    found = fit_gate(e, x, y, w, group, resamples=0)
    expected, scale = written_out(e, x, y, w, found.strength)
    assert found.gate.weights(e) == pytest.approx(expected, abs=2e-3)
    assert found.scale == pytest.approx(scale, rel=2e-3)
    assert found.gain_ci is None
    assert found.better == (found.gain > 0)


def test_unit_and_place_of_the_embedding_change_nothing() -> None:
    data, _ = topics(3, 300, OPPOSED)
    other = data[0] * np.array([1e3, 1, 1e-3, 5, -2, 1]) + np.array([0, 1e4, 0, -3, 0, 1])
    # A feature that never varies is left out, however large.
    wide = np.column_stack([other, np.full(300, 1e6)])
    one, two = fit_gate(*data, resamples=0), fit_gate(wide, *data[1:], resamples=0)
    assert two.gate.weights(wide) == pytest.approx(one.gate.weights(data[0]), abs=1e-3)
    assert two.loss == pytest.approx(one.loss, abs=1e-3)
    assert (two.gate.matrix[:, -1] == 0).all()


def same(first: FittedGate, second: FittedGate) -> bool:
    """Whether two fits are equal to the last bit."""
    matrices = (first.gate.matrix == second.gate.matrix).all() and (first.gate.bias == second.gate.bias).all()
    return bool(matrices) and (first.loss, first.gain_ci) == (second.loss, second.gain_ci)


def test_same_preferences_give_the_same_gate_and_pairs_without_one_do_not_count() -> None:
    data, _ = topics(4, 240, OPPOSED, width=80)
    e, x, y, w, group = data
    found = fit_gate(*data, seed=3)
    assert same(fit_gate(*data, seed=3), found)
    more = (np.vstack([e, np.full((2, 80), np.nan)]), np.vstack([x, np.full((2, 2), np.nan)]))
    rest = (np.append(y, [np.nan, 1]), np.append(w, [1, 0]), np.append(group, [5000, 5001]))
    assert same(fit_gate(*more, *rest, seed=3), found)


def test_embedding_that_is_always_the_same_gives_fixed_weights() -> None:
    data, _ = topics(5, 200, ALIKE)
    found = fit_gate(np.ones_like(data[0]), *data[1:])
    assert (found.gate.matrix == 0).all()
    assert np.ptp(found.gate.weights(data[0]), axis=0).max() == 0
    assert not found.better


def test_what_a_gate_cannot_be_fitted_to_is_refused() -> None:
    e, x, y, w, group = topics(6, 100, OPPOSED)[0]
    with pytest.raises(InputError, match="48 pairs of 24 conversations have one; a gate needs 50 of 10"):
        fit_gate(e[:48], x[:48], y[:48], w[:48], group[:48])
    with pytest.raises(InputError, match="100 pairs of 2 conversations have one"):
        fit_gate(e, x, y, w, group % 2)
    e[7, 0] = np.nan
    with pytest.raises(RunError, match="a prompt's embedding is not finite"):
        fit_gate(e, x, y, w, group)
