"""Conflicting gradients: resolved on what is shared, added up on what is not, and counted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.optimize import minimize
from torch import nn

from rlaif.errors import InputError, RunError
from rlaif.rewards.checkpoints import GRADIENTS, read_gradients
from rlaif.rewards.pareto_training import GradientResolver, conflict_counts, dual_cone, make_weighting

CONFLICT = np.array([[1.0, 0.0], [-1.0, 1.0]])


def resolved(gradients: np.ndarray, aggregator: str = "upgrad", present: tuple[bool, ...] = ()) -> GradientResolver:
    """A resolver after one step on losses that have these gradients, (objectives, parameters), and an own part each."""
    shared = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(gradients.shape[1] - 1))]
    own = nn.Parameter(torch.ones(len(gradients)))
    weighting = make_weighting(aggregator, len(gradients))  # type: ignore[arg-type]
    resolver = GradientResolver(shared, [own], len(gradients), weighting, memory=0)
    losses = torch.tensor(gradients, dtype=torch.float32) @ torch.cat([each * 1 for each in shared]) + own**2
    resolver.add(losses, present or (True,) * len(gradients))
    resolver.resolve()
    return resolver


def step_of(resolver: GradientResolver) -> list[float]:
    """The shared gradient."""
    found: list[float] = []
    for each in resolver.shared:
        assert each.grad is not None
        found += each.grad.tolist()
    return found


def test_projection_by_hand() -> None:
    # The dual cone of (1, 0) and (-1, 1) is x1 >= 0, x2 >= x1. The nearest to (1, 0) in it is (0.5, 0.5), and to
    # (-1, 1) it is (0, 1).
    gramian = CONFLICT @ CONFLICT.T
    assert dual_cone(np.array([1.0, 0.0]), gramian) @ CONFLICT == pytest.approx([0.5, 0.5])
    assert dual_cone(np.array([0.0, 1.0]), gramian) @ CONFLICT == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("seed", range(5))
def test_projection_agrees_with_a_general_solver(seed: int) -> None:
    draw = np.random.default_rng(seed)
    gradients = draw.normal(size=(4, 3 + seed))
    gramian = gradients @ gradients.T
    vector = draw.random(4)
    found = dual_cone(vector, gramian)
    solved = minimize(
        lambda v: v @ gramian @ v,
        vector,
        jac=lambda v: 2 * gramian @ v,
        bounds=[(low, None) for low in vector],
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    assert found @ gradients == pytest.approx(solved.x @ gradients, abs=1e-4)
    # In the dual cone: against none of the gradients.
    assert (gradients @ (found @ gradients) >= -1e-9).all()


def test_upgrad_by_hand() -> None:
    # Both projections, (0.5, 0.5) and (0, 1), added up.
    assert step_of(resolved(CONFLICT)) == pytest.approx([0.5, 1.5], abs=1e-5)


@pytest.mark.parametrize("aggregator", ["upgrad", "dualproj", "pcgrad"])
def test_without_a_conflict_gradients_are_added_up(aggregator: str) -> None:
    assert step_of(resolved(np.array([[1.0, 0.0, 2.0], [0.0, 2.0, 1.0]]), aggregator)) == pytest.approx([1, 2, 3])


@pytest.mark.parametrize("aggregator", ["upgrad", "dualproj", "mgda", "aligned-mtl"])
def test_a_resolved_step_is_against_no_objective(aggregator: str) -> None:
    gradients = np.random.default_rng(3).normal(size=(3, 6))
    gradients[1] = -0.9 * gradients[0] + 0.1 * gradients[1]
    step = np.array(step_of(resolved(gradients, aggregator)))
    assert np.linalg.norm(step) > 0
    assert (gradients @ step >= -1e-4).all()
    # Plain adding is: that is what the aggregators are for.
    assert (gradients @ gradients.sum(axis=0)).min() < 0


def test_what_objectives_have_for_themselves_keeps_its_own_gradient() -> None:
    own = resolved(CONFLICT).own[0].grad
    assert own is not None
    assert own.tolist() == [2.0, 2.0]


def test_conflicts_are_counted_by_pair_and_taken_once() -> None:
    resolver = resolved(np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    taken = resolver.take_counts(("x", "y", "z"))
    assert taken == {
        "conflicts/x|y": 1, "conflicts/x|z": 0, "conflicts/y|z": 0,
        "compared/x|y": 1, "compared/x|z": 1, "compared/y|z": 1,
    }  # fmt: skip
    assert set(resolver.take_counts(("x", "y", "z")).values()) == {0}
    conflicts, compared = conflict_counts([taken, {"loss": 1.0}, taken], ("x", "y", "z"))
    assert conflicts == ((0, 2, 0), (2, 0, 0), (0, 0, 0))
    assert compared == ((0, 2, 2), (2, 0, 2), (2, 2, 0))


def test_an_objective_without_a_label_in_the_batch_moves_nothing_and_is_not_compared() -> None:
    resolver = resolved(CONFLICT, present=(True, False))
    assert step_of(resolver) == pytest.approx([1.0, 0.0])
    assert resolver.take_counts(("x", "y")) == {"conflicts/x|y": 0, "compared/x|y": 0}


def test_no_gradient_at_all_is_no_step() -> None:
    assert step_of(resolved(np.zeros((2, 3)))) == [0, 0, 0]


def test_parts_of_a_step_add_up() -> None:
    parameter, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    resolver = GradientResolver([parameter], [own], 2, make_weighting("upgrad", 2), memory=0)
    for _ in range(2):
        resolver.add(torch.tensor(CONFLICT / 2, dtype=torch.float32) @ parameter + own, (True, True))
    resolver.resolve()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == pytest.approx([0.5, 1.5], abs=1e-5)
    assert own.grad is not None
    assert own.grad.tolist() == [2.0, 2.0]


def test_fused_adam_moves_every_element_by_its_own_gradient() -> None:
    # Its CPU kernel takes a gradient for one of the parameter's strides; those of a product's gradient are others.
    signs = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
    shared, own = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(3, 2))
    scores = torch.einsum("sh,kh->sk", torch.eye(2), own + shared)
    (found,) = torch.autograd.grad((scores * signs).sum(), [own], retain_graph=True)
    assert found.stride() != own.stride()
    resolver = GradientResolver([shared], [own], 2, make_weighting("upgrad", 2))
    loss = (scores * signs).sum()
    resolver.add(torch.stack([loss, loss]), (True, True))
    resolver.resolve()
    torch.optim.AdamW([shared, own], lr=1.0, fused=True).step()
    for parameter in (shared, own):
        assert torch.equal(parameter.sign(), -signs.t())


def stepped(
    resolver: GradientResolver, gradients: np.ndarray, present: tuple[bool, bool] = (True, True)
) -> list[float]:
    """The shared gradient after another step of two objectives with two parameters."""
    (shared,) = resolver.shared
    shared.grad = None
    resolver.add(torch.tensor(gradients, dtype=torch.float32) @ shared, present)
    resolver.resolve()
    return step_of(resolver)


def test_conflicts_are_those_of_the_mean_gramian_of_the_last_steps() -> None:
    resolver = GradientResolver([nn.Parameter(torch.zeros(2))], [], 2, make_weighting("upgrad", 2), memory=0.5)
    straight = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert stepped(resolver, straight) == pytest.approx([2, 1])
    # Lengths: means of 4 and 1, and of 1 and 2. Products with the other's gradient of the step before are
    # (1, 0) (0, 1) = 0 and (-1, 1) (2, 0) = -2, the mean -1. So the second gradient needs 1 / 2.5 of the first added,
    # the first 1 / 1.5 of the second: weights 7/5 and 5/3. This step alone would have taken 3/2 and 2.
    assert stepped(resolver, CONFLICT) == pytest.approx([7 / 5 - 5 / 3, 5 / 3], abs=1e-5)
    assert resolver.memory[0].tolist() == [[2.5, -1], [-1, 1.5]]
    # Without a label of the second it keeps its length; there is one product, (2, 0) (-1, 1) = -2.
    assert stepped(resolver, straight, (True, False))[1] == 0
    assert resolver.memory[0].tolist() == [[3.25, -1.5], [-1.5, 1.5]]
    assert resolver.memory[1].tolist() == [[3, 2], [2, 2]]


def test_the_mean_is_a_plain_one_until_it_is_of_all_that_is_remembered() -> None:
    resolver = GradientResolver([nn.Parameter(torch.zeros(2))], [], 2, make_weighting("upgrad", 2), memory=0.75)
    for size in (1.0, 2.0, 3.0, 4.0, 5.0):
        stepped(resolver, size * np.eye(2))
    # Of 1, 4, 9 and 16 the mean is 7.5; the fifth counts a quarter: 7.5 + (25 - 7.5) / 4.
    assert resolver.memory[0].diagonal().tolist() == [11.875, 11.875]


def test_an_objective_that_comes_later_counts_whole_at_first() -> None:
    resolver = GradientResolver([nn.Parameter(torch.zeros(2))], [], 2, make_weighting("upgrad", 2), memory=0.5)
    assert stepped(resolver, CONFLICT, (True, False)) == pytest.approx([1, 0])
    # ((1, -1), (-1, 2)): the only product, of the second with the first of the step before, counts whole.
    assert stepped(resolver, CONFLICT) == pytest.approx([0.5, 1.5], abs=1e-5)


def test_noise_that_is_contrary_within_each_batch_is_no_conflict() -> None:
    # Both objectives want (0, 1); what each batch adds to one is taken from the other, and has no direction that lasts.
    by_mean, by_step = (
        GradientResolver([nn.Parameter(torch.zeros(2))], [], 2, make_weighting("upgrad", 2), memory=memory)
        for memory in (0.99, 0)
    )
    for noise in (2.0, 2.0, -2.0, -2.0, 2.0):
        gradients = np.array([[noise, 1.0], [-noise, 1.0]])
        last = stepped(by_mean, gradients), stepped(by_step, gradients)
    # Four products of 1 - 4, 1 + 4, 1 - 4, 1 + 4: their mean is 1, no conflict, and gradients are added up.
    assert by_mean.memory[0].tolist() == [[5, 1], [1, 5]]
    assert last[0] == pytest.approx([0, 2], abs=1e-5)
    # Within a batch it is -3, and 3/5 of each is added to the other.
    assert last[1] == pytest.approx([0, 3.2], abs=1e-5)


def test_the_state_goes_on() -> None:
    one, other = (
        GradientResolver([nn.Parameter(torch.zeros(2))], [], 2, make_weighting("upgrad", 2), memory=0.5)
        for _ in range(2)
    )
    stepped(one, np.array([[2.0, 0.0], [0.0, 1.0]]))
    other.load_state(one.state())
    assert stepped(other, CONFLICT) == stepped(one, CONFLICT) == pytest.approx([7 / 5 - 5 / 3, 5 / 3], abs=1e-5)


def test_a_state_that_is_none_is_told(tmp_path: Path) -> None:
    assert read_gradients(tmp_path) is None
    save_file({"other": torch.zeros(1)}, tmp_path / GRADIENTS)
    with pytest.raises(RunError, match=r"cannot be continued from \(it has no memory\); remove .* and run again"):
        read_gradients(tmp_path)


def test_without_torchjd_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(InputError, match=r"--aggregate pareto: torchjd .*pip install 'rlaif\[train\]'"):
        make_weighting("upgrad", 2)
