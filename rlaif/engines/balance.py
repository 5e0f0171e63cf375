"""Which of several servers is asked next, and when one is left out: the rules, without a connection."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Literal

# As Envoy's outlier detection counts; see its consecutive_5xx.
OPENS_AT = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_LONGEST_REST_S = 1.0
# In use for so long, a server is as good as one that never failed.
_STEADY_S = 60.0
_BOUND = 1.25
_GROUPS = 4096


class Balancer:
    """Gives each question to the server with the fewest outstanding ones; ties go in turn.

    Questions of one group begin with the same text, which a server that has read it keeps in its prefix cache. So a
    question follows the last one of its group, as long as that server then has no more than 1.25 times the mean
    (consistent hashing with bounded loads has the same rule, https://arxiv.org/abs/1608.01350).
    """

    def __init__(self, servers: int) -> None:
        self.outstanding = [0] * servers
        self._next = 0
        self._places: OrderedDict[Hashable, int] = OrderedDict()

    def take(self, group: Hashable, usable: Sequence[int]) -> int:
        """Choose one of the `usable` servers, and count the question there."""
        chosen = self._places.get(group, -1)
        if chosen not in usable or not self._has_room(chosen, usable):
            least = min(self.outstanding[place] for place in usable)
            ties = [place for place in usable if self.outstanding[place] == least]
            chosen = min(ties, key=lambda place: (place - self._next) % len(self.outstanding))
            self._next = chosen + 1
        self._places[group] = chosen
        # A plan keeps a group together, so that only the last groups matter.
        self._places.move_to_end(group)
        if len(self._places) > _GROUPS:
            self._places.popitem(last=False)
        self.outstanding[chosen] += 1
        return chosen

    def give_back(self, place: int) -> None:
        """Count a question no longer."""
        self.outstanding[place] -= 1

    def _has_room(self, place: int, usable: Sequence[int]) -> bool:
        mean = (1 + sum(self.outstanding[each] for each in usable)) / len(usable)
        return self.outstanding[place] + 1 <= _BOUND * mean


class Circuit:
    """A circuit breaker: closed, a server is asked; open, it is not; half-open, it is asked one question on trial.

    Times are seconds of one clock, which the caller reads.
    """

    def __init__(self, draws: random.Random) -> None:
        self.state: Literal["closed", "open", "half-open"] = "closed"
        self.until = 0.0
        self.rests_until = 0.0
        self._draws = draws
        self._faults = self._openings = self._rests = 0
        self._closed_at = 0.0

    def usable(self, now: float, outstanding: int) -> bool:
        """Whether the server may be given one more question, while it has `outstanding` ones."""
        if self.state == "open" or now < self.rests_until:
            return False
        return self.state == "closed" or outstanding == 0

    def good(self, now: float) -> bool:
        """Note an answer; true when it closes the circuit."""
        self._faults = self._rests = 0
        if self.state == "half-open":
            self.state, self._closed_at = "closed", now
            return True
        if self._openings and self.state == "closed" and now - self._closed_at > _STEADY_S:
            self._openings = 0
        return False

    def failed(self, now: float, weight: int) -> bool:
        """Note a fault; true when it opens the circuit: on trial at once, else after 5 without a good answer."""
        if self.state == "open":
            return False
        self._faults += weight
        if self.state == "closed" and self._faults < OPENS_AT:
            return False
        self.open(now)
        return True

    def open(self, now: float) -> None:
        """Leave the server out for a pause that doubles each time, up to half a minute, with jitter."""
        pause = min(_FIRST_PAUSE_S * 2 ** min(self._openings, 10), _LONGEST_PAUSE_S)
        self._openings += 1
        self._faults = 0
        self.state, self.until = "open", now + pause * self._draws.uniform(0.5, 1.0)

    def half_open(self) -> None:
        """Let one question through."""
        self.state = "half-open"

    def rest(self, now: float, asked_s: float | None) -> None:
        """Give the server no more questions for the seconds it asks for, or for a short while where it names none."""
        self._rests += 1
        own = min(0.1 * 2 ** min(self._rests, 10), _LONGEST_REST_S) * self._draws.uniform(0.5, 1.0)
        self.rests_until = max(self.rests_until, now + (own if asked_s is None else asked_s))
