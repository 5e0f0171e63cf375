"""What a comparison of reward models comes to, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.agreement.results import Interval
from rlaif.optimize.compare_rewards_results import Agreement, ComparedPair, Labelled

_SIGNIFICANT = 0.05


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last part of each path; of names that would be the same then as many parts as tell them apart."""
    parts = {name: name.rstrip("/").split("/") for name in names}
    for depth in range(1, max((len(each) for each in parts.values()), default=1) + 1):
        short = {name: "/".join(each[-depth:]) for name, each in parts.items()}
        if len(set(short.values())) == len(names):
            return short
    return {name: name for name in names}


def concluded(compared: Sequence[ComparedPair]) -> str:
    """One sentence: of two models how far they agree and who is right, of more which two are most and least alike."""
    names = short_names(list(dict.fromkeys(name for pair in compared for name in (pair.first, pair.second))))
    known = [(pair, pair.reward.same.value) for pair in compared if pair.reward.same.value is not None]
    if not known:
        return "No model prefers a response of any pair: there is nothing to compare."
    if len(compared) == 1:
        pair = known[0][0]
        return _of_two(names[pair.first], names[pair.second], pair.reward)
    most, least = max(known, key=lambda each: each[1]), min(known, key=lambda each: each[1])
    return (
        f"Of {len(names)} reward models {names[most[0].first]} and {names[most[0].second]} are most alike (the same "
        f"preference on {most[1]:.1%} of {most[0].reward.n:,} pairs), {names[least[0].first]} and "
        f"{names[least[0].second]} least ({least[1]:.1%})."
    )


def _of_two(first: str, second: str, found: Agreement) -> str:
    same = f"{found.same.value:.1%}" if found.same.value is not None else "none"
    parts = [f"{first} and {second} prefer the same response on {same} of {found.n:,} pairs{between(found.same.ci)}"]
    if found.same_clear.value is not None and found.parting:
        parts.append(f"on {found.same_clear.value:.1%} of the half that both find clearest")
    longer = found.first_longer
    if longer is not None and longer.value is not None and longer.ci is not None:
        if longer.ci[0] > 0.5:
            parts.append(f"where they part {first} takes the longer response ({longer.value:.0%})")
        elif longer.ci[1] < 0.5:
            parts.append(f"where they part {second} takes the longer response ({1 - longer.value:.0%})")
    if found.labels is not None:
        parts.append(_right(first, second, found.labels))
    return "; ".join(parts) + "."


def _right(first: str, second: str, found: Labelled) -> str:
    share = found.first_right.value
    if share is None:
        return "people's labels are of no pair on which they part"
    # Clustered where prompts repeat; the test alone would take each pair for a case of its own.
    ci = found.first_right.ci
    told = found.p_value is not None and found.p_value <= _SIGNIFICANT and (ci is None or not ci[0] <= 0.5 <= ci[1])
    if not told:
        return f"people's labels do not tell who is right there ({first} on {share:.0%} of {found.parting:,})"
    better, rate = (first, share) if share > 0.5 else (second, 1 - share)
    return f"people side with {better} there ({rate:.0%} of {found.parting:,})"


def between(ci: Interval | None) -> str:
    """` (68.0% to 74.0%)`, or nothing."""
    return "" if ci is None else f" ({ci[0]:.1%} to {ci[1]:.1%})"
