"""The page of `rlaif reward compare --html`: how alike reward models are, where they part, and what has drifted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.optimize.compare_rewards_examples import parted_examples
from rlaif.optimize.compare_rewards_figures import (
    agreements,
    drift_by_tag,
    groups,
    margin_scatter,
    matrices,
    people,
    shifts,
)
from rlaif.optimize.compare_rewards_results import (
    REWARD,
    Agreement,
    ComparedPair,
    Drift,
    RewardComparison,
)
from rlaif.optimize.compare_rewards_words import short_names
from rlaif.report.figures import fitted
from rlaif.report.page import (
    Block,
    Cell,
    Column,
    Details,
    Fact,
    Facts,
    Gallery,
    Notes,
    Page,
    Picture,
    Section,
    Table,
    Tone,
    Verdict,
    reading_section,
    save_page,
)
from rlaif.report.wording import (
    count_cell,
    name_cell,
    number,
    number_cell,
    p_cell,
    p_value,
    share,
    share_cell,
    shares_between,
    tag_text,
)

if TYPE_CHECKING:
    from rlaif.optimize.compare_rewards import ComparedRewards

_ALIKE = 0.95
_MOSTLY = 0.8
_SIGNIFICANT = 0.05
_TERMS = (
    (
        "Same preference",
        "The share of pairs on which both models give the same response the higher reward. A model that gives both the "
        "same counts half; pairs on which neither prefers one are left out.",
    ),
    (
        "Clearest half",
        "A pair is as clear as the smaller of the two margins, each in units of its model's. On the half that is "
        "clearest noise decides little: who parts there wants something else.",
    ),
    (
        "Margin",
        "The reward of the first response less that of the second. Correlations take every pair both ways, so that it "
        "does not matter which is the first.",
    ),
    ("Tau, Spearman, Pearson", "Correlations of margins, 1 for the same order (or size) throughout, 0 for none."),
    (
        "Energy distance",
        "How far two samples of features are apart, 0 to 1 (Székely and Rizzo 2013). Of finite samples it is never 0; "
        "what chance gives is told beside it, and p is how often chance gives as much.",
    ),
    ("Interval", "Where the figure would lie for 95 of 100 such samples, with pairs of one prompt drawn together."),
)


def write_report(path: Path, found: ComparedRewards) -> None:
    """Write the report: one file that needs nothing else, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    save_page(comparison_page(found), path)


def comparison_page(found: ComparedRewards) -> Page:
    """Lay out the report; the same comparison gives the same page."""
    comparison = found.comparison
    names = short_names([model.name for model in comparison.models])
    sections = [_glance(comparison, names)]
    for place, pair in enumerate(comparison.compared):
        sections.append(_pair(pair, place, found, names))
    sections += [_drift(drift, place, names) for place, drift in enumerate(comparison.drift)]
    if found.texts:
        lead = (
            "The pairs on which two models are both clear and prefer different responses. Reading a few tells more "
            "than any figure what each of them wants."
        )
        blocks: tuple[Block, ...] = (parted_examples(found.texts, names),)
        sections.append(Section(name="examples", title="Pairs to read", lead=lead, blocks=blocks))
    sections.append(reading_section(_TERMS))
    return Page(
        title=f"Reward models compared: {fitted(', '.join(names.values()), 100)}",
        verdict=_verdict(comparison),
        sections=tuple(sections),
        facts=_made_from(comparison),
    )


def _verdict(found: RewardComparison) -> Verdict:
    remark = " ".join(drift.conclusion for drift in found.drift)
    known = [pair.reward.same_clear.value for pair in found.compared if pair.reward.same_clear.value is not None]
    tone: Tone = "open"
    label = "? Nothing to compare"
    if known:
        least = min(known)
        tone = "good" if least >= _ALIKE else "open" if least >= _MOSTLY else "bad"
        label = {
            "good": "✓ Alike where both are clear",
            "open": "? Alike, but not on every clear pair",
            "bad": "✗ They part, also where both are clear",
        }[tone]
    if any(drift.p_value <= _SIGNIFICANT for drift in found.drift):
        tone, label = "bad", f"{label.replace('✓', '✗').replace('?', '✗')}; the data have drifted"
    return Verdict(tone=tone, label=label, sentence=found.conclusion, remark=remark)


def _glance(found: RewardComparison, names: Mapping[str, str]) -> Section:
    blocks: list[Block] = []
    if found.notes:
        blocks.append(Notes(title="Notes", lines=found.notes))
    if len(found.models) > 2:
        blocks.append(Gallery(pictures=matrices(found, names)))
    blocks.append(_table(found, names))
    return Section(name="glance", title="At a glance", blocks=tuple(blocks))


def _table(found: RewardComparison, names: Mapping[str, str]) -> Table:
    several = len(found.compared) > 1
    rows = []
    for pair in found.compared:
        who = f"{fitted(names[pair.first], 40)} and {fitted(names[pair.second], 40)}"
        for objective, one in {**pair.objectives, REWARD: pair.reward}.items():
            label = "aggregate" if one is pair.reward else objective
            undefined = one.not_defined
            rows.append(
                (
                    name_cell(who, label) if several else name_cell(label),
                    count_cell(one.n),
                    share_cell(one.same.value, one.same.ci, undefined.get("same", "")),
                    share_cell(one.same_clear.value, one.same_clear.ci, undefined.get("same_clear", "")),
                    number_cell(one.kendall.value, one.kendall.ci, undefined.get("kendall", "")),
                    number_cell(one.spearman.value, one.spearman.ci, undefined.get("spearman", "")),
                    number_cell(one.pearson.value, one.pearson.ci, undefined.get("pearson", "")),
                    _within(one),
                    _probability(one),
                )
            )
    columns = (
        Column(label="Models" if several else "Objective", figures=False),
        Column(label="Pairs"),
        Column(label="Same preference"),
        Column(label="Clearest half"),
        Column(label="Tau"),
        Column(label="Spearman"),
        Column(label="Pearson"),
        Column(label="Tau within rows"),
        Column(label="Probabilities apart"),
    )
    return Table(title="How alike they are", columns=columns, rows=tuple(rows))


def _within(one: Agreement) -> Cell:
    if one.within_rows is None:
        return number_cell(None, None, "no row has more than two responses")
    measure = one.within_rows.kendall
    return number_cell(measure.value, measure.ci, one.not_defined.get("within_rows.kendall", ""))


def _probability(one: Agreement) -> Cell:
    if one.probabilities is None:
        return number_cell(None, None, one.not_defined.get("probabilities", ""))
    return number_cell(one.probabilities.difference.value, one.probabilities.difference.ci)


def _pair(pair: ComparedPair, place: int, found: ComparedRewards, names: Mapping[str, str]) -> Section:
    first, second = names[pair.first], names[pair.second]
    pictures: list[Picture] = []
    if len(found.comparison.models) == 2:
        pictures.append(agreements(pair, f"p{place}-same"))
    for number_, (objective, one) in enumerate({**pair.objectives, REWARD: pair.reward}.items()):
        title = f"Margins, {'aggregate' if one is pair.reward else fitted(objective, 40)}"
        points = found.margins[pair.first, pair.second, objective]
        pictures.append(margin_scatter(f"p{place}-margin-{number_}", title, points, first, second, one))
    sides = people(pair, names, f"p{place}-people")
    pictures += [] if sides is None else [sides]
    pictures += groups(pair.reward, f"p{place}")
    blocks: list[Block] = [_facts(pair.reward, first, second), Gallery(pictures=tuple(pictures))]
    if pair.reward.parted:
        blocks.append(_parted(pair.reward, first, second))
    title = f"{fitted(first, 30)} and {fitted(second, 30)}"
    return Section(name=f"pair-{place}", title=title, blocks=tuple(blocks))


def _facts(one: Agreement, first: str, second: str) -> Facts:
    facts = [
        Fact(label="Same preference, aggregate", value=share(one.same.value), remark=shares_between(one.same.ci)),
        Fact(label="They part on", value=f"{one.parting:,}", remark=f"of {one.n:,} pairs"),
    ]
    longer = one.first_longer
    if longer is not None and longer.value is not None:
        more = longer.value >= 0.5
        between = longer.ci if more or longer.ci is None else (1 - longer.ci[1], 1 - longer.ci[0])
        facts.append(
            Fact(
                label=f"There {fitted(first if more else second, 24)} takes the longer one",
                value=share(longer.value if more else 1 - longer.value),
                remark=shares_between(between),
            )
        )
    if one.labels is not None and one.labels.first_right.value is not None:
        better = one.labels.first_right.value >= 0.5
        right = one.labels.first_right
        between = right.ci if better or right.ci is None else (1 - right.ci[1], 1 - right.ci[0])
        facts.append(
            Fact(
                label=f"There people side with {fitted(first if better else second, 24)}",
                value=share(right.value if better or right.value is None else 1 - right.value),
                remark=f"{shares_between(between)}, p {p_value(one.labels.p_value)}",
            )
        )
    return Facts(facts=tuple(facts))


def _parted(one: Agreement, first: str, second: str) -> Table:
    rows = [
        (
            name_cell(pair.id),
            Cell(text=f"{pair.responses[0]} / {pair.responses[1]}"),
            number_cell(pair.first_margin, digits=2),
            number_cell(pair.second_margin, digits=2),
            number_cell(pair.clearness, digits=2),
            Cell(text="" if pair.people is None else str(pair.people)),
        )
        for pair in one.parted
    ]
    columns = (
        Column(label="Pair", figures=False),
        Column(label="Responses", figures=False),
        Column(label=f"Margin, {fitted(first, 24)}"),
        Column(label=f"Margin, {fitted(second, 24)}"),
        Column(label="Clear"),
        Column(label="People prefer", figures=False),
    )
    note = (
        "A margin above 0 prefers the first response. Clear: the smaller of the two margins, in units of its model's."
    )
    return Table(title="Where they part the most", columns=columns, rows=tuple(rows), note=note)


def _drift(found: Drift, place: int, names: Mapping[str, str]) -> Section:
    facts = Facts(
        facts=(
            Fact(label="Energy distance", value=number(found.energy), remark=f"by chance {number(found.by_chance)}"),
            Fact(label="p", value=p_value(found.p_value), remark=f"{found.permutations:,} permutations"),
            Fact(
                label="Farther out than 95% of the reference",
                value=share(found.outside.value),
                remark=shares_between(found.outside.ci),
            ),
            Fact(label="Responses", value=f"{found.new:,}", remark=f"against {found.reference:,}, one a prompt"),
        )
    )
    pictures = [shifts(found, names, f"d{place}-shift")]
    by_tag = drift_by_tag(found, f"d{place}-tags")
    pictures += [] if by_tag is None else [by_tag]
    blocks: list[Block] = [facts, Gallery(pictures=tuple(pictures)), _far(found)]
    if found.by_tag:
        blocks.append(Details(summary="All figures by tag", blocks=(_tags(found),)))
    lead = f"The data against {fitted(found.source, 80)}, by {found.width:,} features. {found.conclusion}"
    who = f", {fitted(', '.join(names[name] for name in found.models), 40)}" if place else ""
    return Section(name=f"drift-{place}", title=f"Drift{who}", lead=lead, blocks=tuple(blocks))


def _far(found: Drift) -> Table:
    rows = [
        (
            name_cell(one.id),
            Cell(text=str(one.response)),
            number_cell(one.distance, digits=2),
            share_cell(one.rank),
        )
        for one in found.farthest
    ]
    columns = (
        Column(label="Row", figures=False),
        Column(label="Response", figures=False),
        Column(label="Distance"),
        Column(label="Reference as far out"),
    )
    note = "The mean distance to the nearest five of the reference, by the median of the reference's own."
    return Table(title="Farthest from the reference", columns=columns, rows=tuple(rows), note=note)


def _tags(found: Drift) -> Table:
    rows = [
        (
            name_cell(one.tag, "" if one.same_tag else "against all of the reference"),
            name_cell(tag_text(one.value)),
            count_cell(one.n),
            count_cell(one.reference),
            number_cell(one.energy),
            number_cell(one.by_chance),
            p_cell(one.p_value),
        )
        for one in found.by_tag
    ]
    labels = ("New", "Reference", "Energy distance", "By chance", "p (Holm)")
    columns = (
        Column(label="Tag", figures=False),
        Column(label="Value", figures=False),
        *(Column(label=label) for label in labels),
    )
    return Table(title="By tag", columns=columns, rows=tuple(rows))


def _made_from(found: RewardComparison) -> tuple[tuple[str, str], ...]:
    models = "; ".join(f"{fitted(model.name, 80)} ({model.kind})" for model in found.models)
    made = [
        ("Models", models),
        ("Data", fitted(found.data or "as in the files of scores", 120)),
        ("Compared on", f"{found.pairs:,} pairs of {found.responses:,} responses to {found.rows:,} rows"),
        ("Labels", fitted(found.labels or "", 120)),
        ("Intervals", f"95%, {found.resamples:,} resamples, seed {found.seed}"),
        ("rlaif", found.rlaif),
    ]
    return tuple((name, given) for name, given in made if given)
