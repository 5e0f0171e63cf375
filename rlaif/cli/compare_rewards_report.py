"""How a comparison of reward models reads in a terminal of 80 columns: a line an objective, then where they part."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rlaif.cli.options import counted
from rlaif.cli.words import aligned, cut, number, p_value, share
from rlaif.optimize.compare_rewards_results import REWARD, Agreement, ComparedPair, Drift, Measure, RewardComparison
from rlaif.optimize.compare_rewards_words import short_names
from rlaif.report.wording import tag_text

_WIDTH = 80
_LONGEST = 24
_MOST_PARTED = 5
_MOST_TAGS = 6
_MOST_FAR = 5


def comparison_shown(found: RewardComparison) -> Iterator[str]:
    """The lines of a whole comparison."""
    names = short_names([model.name for model in found.models])
    yield from _wrapped(found.conclusion, "")
    for place, pair in enumerate(found.compared):
        yield ""
        yield from _pair(pair, names, explained=place == 0)
    for drift in found.drift:
        yield ""
        yield from _drift(drift, names, several=len(found.drift) > 1)


def _pair(pair: ComparedPair, names: dict[str, str], *, explained: bool) -> Iterator[str]:
    first, second = (cut(names[name], _LONGEST) for name in (pair.first, pair.second))
    yield from _wrapped(f"{first} and {second}, {counted(pair.reward.prompts, 'prompt')}:", "")
    each = {**pair.objectives, REWARD: pair.reward}
    rows = [
        [
            cut(name, _LONGEST),
            f"{one.n:,}",
            share(one.same.value),
            _ci(one.same),
            share(one.same_clear.value),
            number(one.kendall.value, 2),
            number(one.pearson.value, 2),
        ]
        for name, one in each.items()
    ]
    for line in aligned(("objective", "pairs", "same", "95% interval", "clear", "tau", "r"), rows):
        yield f"  {line}".rstrip()
    if explained:
        yield from _wrapped(
            "same: both prefer the same response. clear: of the half that both find clearest. tau, r: Kendall and "
            "Pearson of the margins."
        )
    for name, one in each.items():
        yield from _more(name, one, first, second)
    yield from _parted(pair.reward, first, second)


def _more(name: str, one: Agreement, first: str, second: str) -> Iterator[str]:
    parts = []
    within = one.within_rows
    if within is not None and within.kendall.value is not None:
        parts.append(
            f"within {counted(within.rows, 'row')} of candidates tau {number(within.kendall.value, 2)}, Spearman "
            f"{number(within.spearman.value, 2)}"
        )
    if one.probabilities is not None:
        parts.append(
            f"probabilities differ by {number(one.probabilities.difference.value, 2)} on average, contrary on "
            f"{share(one.probabilities.contradicted)}"
        )
    if one.first_longer is not None:
        parts.append(f"where they part {first} takes the longer response on {share(one.first_longer.value)}")
    if one.labels is not None:
        parts.append(
            f"people agree with {first} on {share(one.labels.first.value)} and with {second} on "
            f"{share(one.labels.second.value)} of {one.labels.n:,}; of the {one.labels.parting:,} on which they part "
            f"{first} is right on {share(one.labels.first_right.value)} ({_ci(one.labels.first_right)}, p "
            f"{p_value(one.labels.p_value)})"
        )
    if parts:
        yield from _wrapped(f"{cut(name, _LONGEST)}: {'; '.join(parts)}.")
    far = sorted((group for group in one.by_tag if group.same.value is not None), key=lambda g: g.same.value or 0.0)
    if far and name == REWARD:
        told = [f"{cut(f'{g.tag} {tag_text(g.value)}', 40)} {share(g.same.value)} of {g.n:,}" for g in far[:_MOST_TAGS]]
        yield from _wrapped(f"By tag, least alike first: {', '.join(told)}.")


def _parted(one: Agreement, first: str, second: str) -> Iterator[str]:
    if not one.parted:
        return
    rows = [
        [
            cut(pair.id, 30),
            f"{pair.responses[0]} / {pair.responses[1]}",
            f"{pair.first_margin:+.2f}",
            f"{pair.second_margin:+.2f}",
            "-" if pair.people is None else str(pair.people),
        ]
        for pair in one.parted[:_MOST_PARTED]
    ]
    head = ("they part most on", "responses", cut(first, 14), cut(second, 14), "people")
    for line in aligned(head, rows):
        yield f"  {line}".rstrip()


def _drift(found: Drift, names: dict[str, str], *, several: bool) -> Iterator[str]:
    who = f" by the features of {', '.join(cut(names[name], _LONGEST) for name in found.models)}" if several else ""
    both = f", {found.matched:,} of the prompts in both" if found.matched else ""
    yield from _wrapped(
        f"Drift{who}: {counted(found.new, 'response')} against {found.reference:,} of {cut(found.source, 40)}{both}.",
        "",
    )
    yield from _wrapped(found.conclusion, "")
    rows = [
        [
            cut(name if len(found.rewards) == 1 else f"{names[model]}: {name}", 40),
            f"{shift.reference_mean:+.2f}",
            f"{shift.new_mean:+.2f}",
            f"{shift.reference_std:.2f}",
            f"{shift.new_std:.2f}",
        ]
        for model, each in found.rewards.items()
        for name, shift in each.items()
    ]
    for line in aligned(("reward", "mean before", "now", "sd before", "now"), rows):
        yield f"  {line}"
    if found.by_tag:
        tags = [
            [
                cut(f"{one.tag}: {tag_text(one.value)}", 40),
                f"{one.n:,}",
                number(one.energy),
                number(one.by_chance),
                p_value(one.p_value),
            ]
            for one in found.by_tag[:_MOST_TAGS]
        ]
        for line in aligned(("by tag", "new", "energy", "by chance", "p"), tags):
            yield f"  {line}"
    far = [[cut(f"{one.id} {one.response}", 50), f"{one.distance:.2f}"] for one in found.farthest[:_MOST_FAR]]
    for line in aligned(("farthest out", "times the reference's median"), far):
        yield f"  {line}"


def _ci(measure: Measure) -> str:
    return "-" if measure.ci is None else f"{share(measure.ci[0])} to {share(measure.ci[1])}"


def _wrapped(text: str, indent: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
