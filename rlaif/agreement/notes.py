"""What is not defined in a comparison, and why, gathered as figures are made."""

from __future__ import annotations

from typing import Protocol

from rlaif.agreement.results import Interval


class _Figure(Protocol):
    @property
    def value(self) -> float | None: ...
    @property
    def reason(self) -> str | None: ...


class _Spread(Protocol):
    @property
    def ci(self) -> Interval | None: ...
    @property
    def reason(self) -> str | None: ...


class Notes:
    """Figures pass through; of those that are not defined the reason stays in `reasons`, by the figure's name."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def missing(self, name: str, reason: str | None) -> None:
        """Say why a figure is not defined."""
        self.reasons[name] = reason or "not defined on this data"

    def value(self, name: str, figure: _Figure) -> float | None:
        """The figure's value."""
        if figure.value is None:
            self.missing(name, figure.reason)
        return figure.value

    def spread(self, name: str, spread: _Spread) -> Interval | None:
        """The interval."""
        if spread.ci is None:
            self.missing(name, spread.reason)
        return spread.ci
