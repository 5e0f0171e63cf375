"""Many regularised logistic regressions on the same rows at once: the mathematics below `rlaif.rewards.frozen`.

Each problem is a column: which target it fits, how often each row counts in it, and how strong its penalty is. All
columns share every pass over the rows, so that fifteen cost little more than one. The minimum is found by L-BFGS, one
history a column, started from the Hessian at nought: the second moment of the features (Böhning and Lindsay 1988 show
that it bounds the Hessian everywhere), whose eigenvectors serve every strength of the penalty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import softplus

from rlaif.rewards.preferences import Floats, Ints

Singles = npt.NDArray[np.float32]

_CHUNK = 4096  # rows at a time on a CPU: what stays in its cache between the two products
_CHUNK_ON_GPU = 65536
_HISTORY = 12
_PASSES = 1000
_SAMPLE = 32  # rows for the second moment, for each of its columns: it only has to be near
_EXACT = 1536  # columns from which on only the leading eigenvectors are computed
_LEADING = 512
_SINGLE = 1e-4  # the gap that single precision closes, whatever the features
_CURVATURE = 0.25  # of the logistic loss at nought, and its bound everywhere
# Of the length's slope, which has no penalty but this: lengths that part the outcomes must not send it to infinity.
_FREE = 1e-6


class Rows(Protocol):
    """Rows of features, in memory or read as they are asked for, (rows, width)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""

    def __getitem__(self, rows: slice | Ints, /) -> Singles:
        """Some of the rows."""


@dataclass(frozen=True)
class Table:
    """Rows and their outcomes on one device; features count in units of their root mean square.

    Attributes:
        rows: features as they came, (rows, width).
        length: a covariate without a penalty, the last coefficient of each problem, (rows,) or None.
        target: 0 to 1, (rows, targets).
        weight: 0 where a row has no target, (rows, targets).
        inverse: one over the unit of each coefficient, 0 for a feature that is nought, (coefficients,).
    """

    rows: Rows
    length: torch.Tensor | None
    target: torch.Tensor
    weight: torch.Tensor
    inverse: torch.Tensor
    held: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.target.device

    def chunks(self, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
        """The features in pieces, each with its place."""
        step = _CHUNK if self.device.type == "cpu" else _CHUNK_ON_GPU
        for start in range(0, len(self.target), step):
            place = slice(start, start + step)
            piece = _tensor(self.rows[place]).to(self.device) if self.held is None else self.held[place]
            yield place, piece.to(dtype)


def make_table(rows: Rows, length: Floats | None, target: Floats, weight: Floats, device: torch.device) -> Table:
    """Put rows and outcomes where they are computed, and measure the features' units.

    Features stay in the device's memory where they fill at most half of what is free, else they go there piece by
    piece in every pass. A row with no target or no weight counts for nothing.

    Raises:
        ValueError: a feature is not finite.
    """
    known: npt.NDArray[np.bool_] = np.isfinite(target) & (weight > 0)
    used: npt.NDArray[np.bool_] = known.sum(axis=1) > 0
    width = rows.shape[1]
    squares = np.zeros(width)
    counted = used.astype(np.float32)
    for start in range(0, len(target), _CHUNK):
        place = slice(start, start + _CHUNK)
        squares += counted[place] @ np.square(rows[place])
    # What is not finite in a row that does not count is 0 times itself, and so not finite either.
    if not np.isfinite(squares).all():
        raise ValueError("not finite")
    unit = np.sqrt(squares / max(int(used.sum()), 1))
    if length is not None:
        length = np.where(used, length, 0.0)
        unit = np.append(unit, np.sqrt(np.mean(length[used] ** 2)) if used.any() else 0.0)
    # What is below single precision beside the largest is rounding, not a feature.
    alive = unit > 1e-9 * np.max(unit, initial=0)
    inverse = np.divide(1.0, unit, out=np.zeros_like(unit), where=alive)

    def put(values: Floats) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(device)

    return Table(
        rows,
        None if length is None else put(length),
        put(np.where(known, target, 0.5)),
        put(np.where(known, weight, 0.0)),
        put(inverse),
        _held(rows, device),
    )


@dataclass
class Problems:
    """What is solved together, one problem a column.

    Attributes:
        target: which of the table's targets, (problems,).
        draw: which column of `times`, (problems,).
        times: how often a row counts, (rows, draws).
        l2: half the penalty on the squared norm of the coefficients beside the mean loss of a row, (problems,).
        total: what the rows of a problem count together, (problems,).
    """

    table: Table
    target: torch.Tensor
    draw: torch.Tensor
    times: torch.Tensor
    l2: torch.Tensor
    total: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.total = (self.table.weight.T @ self.times)[self.target, self.draw]

    def __len__(self) -> int:
        return len(self.target)

    def penalty(self, columns: torch.Tensor) -> torch.Tensor:
        """Each coefficient's penalty in some problems, (coefficients, columns)."""
        penalty = self.l2[columns].expand(len(self.table.inverse), -1)
        if self.table.length is None:
            return penalty
        return torch.cat([penalty[:-1], torch.full_like(penalty[-1:], _FREE)])

    def losses(
        self, coefficients: torch.Tensor, columns: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss without the penalty, (columns,), and its gradient, (coefficients, columns), both double."""
        table = self.table
        scaled = coefficients * table.inverse[:, None]
        weights, slope = (scaled, None) if table.length is None else (scaled[:-1], scaled[-1].to(dtype))
        weights = weights.to(dtype)
        target, draw = self.target[columns], self.draw[columns]
        loss = torch.zeros(len(columns), dtype=torch.float64, device=table.device)
        gradient = torch.zeros_like(coefficients)
        width = len(weights)
        for place, piece in table.chunks(dtype):
            score = piece @ weights  # (chunk, columns)
            if table.length is not None and slope is not None:
                score += table.length[place, None].to(dtype) * slope
            times = (table.weight[place][:, target] * self.times[place][:, draw]).to(dtype)
            wanted = table.target[place][:, target].to(dtype)
            loss += (times * (softplus(score) - wanted * score)).sum(0)
            error = times * (torch.sigmoid(score) - wanted)
            gradient[:width] += piece.T @ error
            if table.length is not None:
                gradient[-1] += table.length[place].to(dtype) @ error
        total = self.total[columns]
        return loss / total, gradient * table.inverse[:, None] / total


@dataclass(frozen=True)
class Minimum:
    """Coefficients in the features' units, (coefficients, problems), and how good they are.

    `gap` is what is left to go, by problem: about the root mean square of the error of the scores, over two. `passes`
    counts the passes over the rows.
    """

    coefficients: torch.Tensor
    gap: torch.Tensor
    passes: int


class Curvature:
    """The Hessian at nought of every target, from a sample of its rows, ready to be inverted under any penalty."""

    def __init__(self, table: Table, seed: int) -> None:
        self._parts: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        seen: dict[bytes, int] = {}
        self._which: list[int] = []
        for labelled in (table.weight > 0).T.cpu().numpy():
            digest = labelled.tobytes()
            if digest not in seen:
                seen[digest] = len(self._parts)
                self._parts.append(_eigen(_sample(table, np.flatnonzero(labelled), seed), seed))
            self._which.append(seen[digest])

    def solve(self, problems: Problems, columns: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Multiply by the inverse of curvature and penalty, column by column, (coefficients, columns)."""
        out = torch.empty_like(values)
        which = torch.tensor(self._which, device=values.device)[problems.target[columns]]
        for number, (vectors, moments, rest) in enumerate(self._parts):
            mine = torch.nonzero(which == number)[:, 0]
            if not len(mine):
                continue
            l2, part = problems.l2[columns[mine]], values[:, mine]
            outside = 1 / (_CURVATURE * rest + l2)
            inside = 1 / (_CURVATURE * moments[:, None] + l2)
            out[:, mine] = outside * part + vectors @ ((inside - outside) * (vectors.T @ part))
        return out


def minimise(problems: Problems, curvature: Curvature, start: torch.Tensor, tolerance: float) -> Minimum:
    """Find every problem's minimum to a tolerance on `Minimum.gap`, from `start`, (coefficients, problems).

    A pass tries one step of every open problem; one that went too far is halved in the next pass, while the others go
    on. Products with the features are single until they are no longer good enough, then double; all else is double.
    """
    here, passes = start.clone(), 0
    history = _History(curvature, problems)
    gap = torch.full_like(problems.l2, torch.inf)
    for dtype in (torch.float32, torch.float64):
        wanted = max(tolerance, _SINGLE if dtype == torch.float32 else 0.0)
        if bool((gap <= tolerance).all()):
            break
        gap, used = _descend(problems, curvature, history, here, dtype=dtype, tolerance=wanted, most=_PASSES - passes)
        passes += used
    return Minimum(here, gap, passes)


def _descend(
    problems: Problems,
    curvature: Curvature,
    history: _History,
    here: torch.Tensor,
    *,
    dtype: torch.dtype,
    tolerance: float,
    most: int,
) -> tuple[torch.Tensor, int]:
    """Move `here` towards the minima in one precision; returns the gaps and the passes it took."""
    every = torch.arange(len(problems), device=here.device)
    value, slope = _penalised(problems, here, every, dtype)
    gap = _gap(problems, curvature, every, slope)
    direction, step = -history.solve(every, slope), torch.ones_like(value)
    single = dtype == torch.float32
    # In single precision a step that has to be this short goes by rounding.
    noise, shortest = (1e-6, 0.05) if single else (1e-13, 1e-8)
    passes = 1
    while passes < most:
        open_ = torch.nonzero((gap > tolerance) & (step > shortest))[:, 0]
        if not len(open_):
            break
        move = step[open_] * direction[:, open_]
        ahead, ahead_slope = _penalised(problems, here[:, open_] + move, open_, dtype)
        passes += 1
        falling = (slope[:, open_] * move).sum(0)  # below nought
        # On a convex line a slope that still falls means a lower value, also where rounding hides the difference.
        good = (ahead <= value[open_] + 1e-4 * falling + noise * ahead.abs()) | ((ahead_slope * move).sum(0) <= 0)
        good &= torch.isfinite(ahead)
        step[open_] = torch.where(good, 1.0, step[open_] / 2)
        took = open_[good]
        if not len(took):
            continue
        history.add(took, move[:, good], ahead_slope[:, good] - slope[:, took])
        here[:, took] += move[:, good]
        value[took], slope[:, took] = ahead[good], ahead_slope[:, good]
        gap[took] = _gap(problems, curvature, took, slope[:, took])
        direction[:, took] = -history.solve(took, slope[:, took])
    return gap, passes


def _gap(problems: Problems, curvature: Curvature, columns: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return (slope * curvature.solve(problems, columns, slope)).sum(0).clamp(min=0).sqrt()


class _History:
    """What L-BFGS remembers: the last moves and the changes of slope they made, column by column."""

    def __init__(self, curvature: Curvature, problems: Problems) -> None:
        self._curvature, self._problems = curvature, problems
        self._scale = torch.ones(len(problems), dtype=torch.float64, device=problems.l2.device)
        # Moves, changes, and one over their product: 0 in a column that did not move.
        self._last: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, columns: torch.Tensor, move: torch.Tensor, change: torch.Tensor) -> None:
        """Remember a move of some columns."""
        product = (move * change).sum(0)
        curved = product > 1e-14 * (move.square().sum(0) * change.square().sum(0)).sqrt()
        bent = (change * self._curvature.solve(self._problems, columns, change)).sum(0)
        self._scale[columns] = torch.where(curved, product / bent, self._scale[columns])
        shape = len(move), len(self._problems)
        moves, changes = (move.new_zeros(shape) for _ in range(2))
        moves[:, columns], changes[:, columns] = move, change
        over = torch.zeros_like(self._scale)
        over[columns] = torch.where(curved, 1 / product, 0.0)
        self._last = [*self._last[1 - _HISTORY :], (moves, changes, over)]

    def solve(self, columns: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """Multiply some columns by the inverse Hessian as far as it is known (Nocedal 1980)."""
        last = [(moves[:, columns], changes[:, columns], over[columns]) for moves, changes, over in self._last]
        out, taken = slope.clone(), []
        for moves, changes, over in reversed(last):
            part = over * (moves * out).sum(0)
            out -= part * changes
            taken.append(part)
        out = self._scale[columns] * self._curvature.solve(self._problems, columns, out)
        for (moves, changes, over), part in zip(last, reversed(taken), strict=True):
            out += moves * (part - over * (changes * out).sum(0))
        return out


def _penalised(
    problems: Problems, coefficients: torch.Tensor, columns: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss with the penalty and its gradient."""
    loss, gradient = problems.losses(coefficients, columns, dtype)
    pull = problems.penalty(columns) * coefficients
    return loss + (pull * coefficients).sum(0) / 2, gradient + pull


def _sample(table: Table, rows: Ints, seed: int) -> torch.Tensor:
    """Some rows in the features' units with the length beside them, (sample, coefficients)."""
    most = _SAMPLE * len(table.inverse)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng([seed, 1]).choice(rows, most, replace=False))
    found = _tensor(np.asarray(table.rows[rows])).to(table.device)
    if table.length is not None:
        place = torch.from_numpy(rows).to(table.device)
        found = torch.cat([found, table.length[place, None].to(found.dtype)], dim=1)
    # In single precision: this need not be exact, and the products are large.
    return found * table.inverse.to(found.dtype)


def _eigen(rows: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Eigenvectors of the rows' second moment, (width, kept), their eigenvalues, and the mean of those not kept."""
    count, width = max(len(rows), 1), rows.shape[1]
    if width <= _EXACT:
        moments, vectors = torch.linalg.eigh((rows.T @ rows).double() / count)
        return vectors, moments.clamp(min=0), 0.0
    # Subspace iteration from random directions (Halko, Martinsson and Tropp 2011).
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(width, _LEADING, generator=generator).to(rows)
    for _ in range(3):
        basis = torch.linalg.qr(rows.T @ (rows @ basis))[0]
    within = rows @ basis
    moments, vectors = torch.linalg.eigh((within.T @ within).double() / count)
    moments = moments.clamp(min=0)
    left = float(rows.square().sum(dtype=torch.float64)) / count - float(moments.sum())
    return basis.double() @ vectors, moments, max(left, 0.0) / (width - _LEADING)


def _held(rows: Rows, device: torch.device) -> torch.Tensor | None:
    """All rows on the device, or None where they are too many; in a CPU's memory arrays are used as they are."""
    if device.type == "cpu":
        as_it_is = isinstance(rows, np.ndarray) and rows.dtype == np.float32 and rows.flags.writeable
        return torch.from_numpy(rows) if as_it_is else None
    size = 4 * rows.shape[0] * rows.shape[1]
    if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // 2:
        return None
    held = torch.empty(rows.shape, dtype=torch.float32, device=device)
    for start in range(0, rows.shape[0], _CHUNK_ON_GPU):
        place = slice(start, start + _CHUNK_ON_GPU)
        held[place] = _tensor(rows[place]).to(device)
    return held


def _tensor(values: Singles) -> torch.Tensor:
    """Take an array over without a copy where that can be."""
    if not values.flags.writeable or values.dtype != np.float32:
        values = np.array(values, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))
