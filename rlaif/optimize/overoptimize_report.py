"""The report page of `rlaif reward overoptimize --html`."""

from __future__ import annotations

from pathlib import Path

from rlaif.optimize.overoptimize_figures import objective_pictures, rule_pictures
from rlaif.optimize.overoptimize_results import ObjectiveCurve, OverOptimization, RuleCurve
from rlaif.optimize.overoptimize_words import course_words, gamed_words, rule_name
from rlaif.report.figures import fitted
from rlaif.report.page import (
    DASH,
    Block,
    Cell,
    Column,
    Details,
    Fact,
    Facts,
    Gallery,
    Notes,
    Page,
    Section,
    Table,
    Tone,
    Verdict,
    reading_section,
    save_page,
)
from rlaif.report.wording import count_cell, name_cell, number, number_cell, plural

_TERMS = (
    ("Proxy", "The reward that is optimised: that of the heads, put together by the rule that picks."),
    ("Gold", "What is really wanted, as far as it can be had: larger reward models, a judge, or people's labels."),
    (
        "Best of n",
        "Of n responses to a prompt the one that the rule likes best. Its mean over all ways to draw n of the "
        "candidates is computed, not sampled.",
    ),
    (
        "KL",
        "How far the best of n is from the policy, log n - (n - 1) / n nats: exact where no candidates tie, else the "
        "most it can be. Other ways to optimise, as reinforcement learning, have a KL of their own.",
    ),
    (
        "Standard deviations",
        "Rewards are told relative to one response (n = 1), in standard deviations among the candidates of a prompt, "
        "which are taken as known.",
    ),
    (
        "alpha and beta",
        "Of the law R = d (alpha - beta d), with d the root of the KL (Gao, Schulman and Hilton 2023). Each prompt's "
        "curve is fitted; the mean is told, and intervals are Student's t over prompts, since the points of a curve "
        "share their samples.",
    ),
    (
        "Peak",
        "Where the fitted curve is highest, alpha / (2 beta). Its interval holds all places at which the slope may be "
        "0 (Fieller); an end beyond the range measured is left open.",
    ),
    (
        "Gold falls, gold rises",
        "The fitted slope at the largest n is surely below, or above, 0. Where the law surely does not fit, what "
        "counts is the difference between the largest n and the highest point, which is chosen on the other half of "
        "the prompts.",
    ),
    (
        "Gamed",
        "Over the second half of the distance the objective's proxy surely rises, while its gold surely falls, or "
        "stays: the interval of its change holds 0 and ends below a quarter of what the proxy gains.",
    ),
)


def write_report(path: Path, found: OverOptimization) -> None:
    """Write the report: one file that needs nothing else, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    save_page(overoptimization_page(found), path)


def overoptimization_page(found: OverOptimization) -> Page:
    """Lay out the report; the same values give the same page."""
    first = found.rules[0]
    blocks: list[Block] = [_facts(first)]
    if found.notes:
        blocks.append(Notes(title="Notes", lines=found.notes))
    blocks += [Gallery(pictures=rule_pictures(found)), _rules_table(found)]
    lead = (
        "Each panel takes the best of more and more responses by one rule. The proxy goes on rising, since it is what "
        "picks; gold tells whether that is worth something. Where gold turns down, more optimisation does harm."
    )
    sections = [Section(name="curves", title="Proxy and gold", lead=lead, blocks=tuple(blocks))]
    if found.objectives:
        pictures = objective_pictures(found)
        sections.append(
            Section(
                name="objectives",
                title="Which objective is being gamed",
                blocks=(*((Gallery(pictures=pictures),) if pictures else ()), _objectives_table(found)),
            )
        )
    sections.append(Section(name="numbers", title="All numbers", blocks=_numbers(found)))
    sections.append(reading_section(_TERMS))
    resampled = f"{found.resamples:,} resamples of the prompts, seed {found.seed}" if found.resamples else "none"
    return Page(
        title="Over-optimisation",
        verdict=_verdict(found),
        sections=tuple(sections),
        facts=(
            ("Proxy", fitted(found.proxy or "heads", 120)),
            ("Gold", f"{fitted(found.gold, 100)} ({found.gold_kind})"),
            ("Measured on", f"{plural(found.candidates, 'candidate')} of {plural(found.prompts, 'prompt')}"),
            ("Gold's unit", f"{found.gold_std:.4g}, its standard deviation among the candidates of a prompt"),
            ("Resampled", resampled),
            ("rlaif", found.rlaif),
        ),
    )


def _verdict(found: OverOptimization) -> Verdict:
    first = found.rules[0]
    tone: Tone = {"falls": "bad", "rises": "good", "open": "open"}[first.course]  # type: ignore[assignment]
    label = {"falls": "gold turns down", "rises": "no peak yet", "open": "not sure"}[first.course]
    return Verdict(tone=tone, label=label, sentence=found.advice)


def _facts(rule: RuleCurve) -> Facts:
    last = rule.points[-1]
    peak = rule.peak
    span = "" if peak is None else _open(peak.n_ci, 1, last.n)
    return Facts(
        facts=(
            Fact(
                label=f"peak of gold, {rule_name(rule.rule)}",
                value=DASH if peak is None else f"n = {number(peak.n, 1)}",
                remark=rule.no_peak or f"95%: {span}" if peak is None or span else "",
            ),
            Fact(
                label="KL there",
                value=DASH if peak is None else number(peak.kl, 2),
                remark="nats" if peak is not None else "",
            ),
            Fact(label=f"gold at n = {rule.stop_n}", value=number(rule.stop_gold, 2), remark="deviations over one"),
            Fact(label=f"gold at n = {last.n}", value=number(last.gold, 2), remark="deviations over one"),
        )
    )


def _open(ci: tuple[float, float | None], digits: int, most: int) -> str:
    high = f"beyond {most}" if ci[1] is None else number(ci[1], digits)
    return f"{number(ci[0], digits)} to {high}"


def _rules_table(found: OverOptimization) -> Table:
    heads = (
        "Rule",
        "Gold at the end",
        "Peak n",
        "Peak KL",
        "Gold at peak",
        "Measured best n",
        "alpha",
        "beta",
        "Later by",
    )
    rows = []
    for rule in found.rules:
        peak, most = rule.peak, rule.points[-1].n
        none = rule.no_peak or ""
        rows.append(
            (
                name_cell(rule_name(rule.rule), "" if rule.fits else "the law does not fit"),
                Cell(text=course_words(rule), remark=number(rule.points[-1].gold, 2), sort=rule.points[-1].gold),
                Cell(text=DASH, remark=none)
                if peak is None
                else Cell(text=number(peak.n, 1), remark=_open(peak.n_ci, 1, most), sort=peak.n),
                Cell(text=DASH)
                if peak is None
                else Cell(text=number(peak.kl, 2), remark=_open_kl(peak.kl_ci), sort=peak.kl),
                Cell(text=DASH) if peak is None else Cell(text=number(peak.gold, 2), sort=peak.gold),
                Cell(text=f"{rule.best_n:,}", remark=_whole(rule.best_n_ci), sort=rule.best_n),
                number_cell(rule.alpha, rule.alpha_ci),
                number_cell(rule.beta, rule.beta_ci),
                Cell(text=DASH, remark="held against")
                if rule.later is None
                else number_cell(rule.later, rule.later_ci, digits=2),
            )
        )
    return Table(
        title="Rules side by side",
        columns=(Column(label=heads[0], figures=False), *(Column(label=head) for head in heads[1:])),
        rows=tuple(rows),
        note="Later by: how much further from the policy gold is highest than under the first rule, in roots of a nat; "
        "both within the range measured, by the same resamples of the prompts.",
    )


def _open_kl(ci: tuple[float, float | None]) -> str:
    return f"{number(ci[0], 2)} to {'the end' if ci[1] is None else number(ci[1], 2)}"


def _whole(ci: tuple[float, float] | None) -> str:
    return "" if ci is None else f"{ci[0]:,.0f} to {ci[1]:,.0f}"


def _objectives_table(found: OverOptimization) -> Table:
    columns = ("Rule", "Objective", "From n", "Proxy changes by", "Gold changes by", "Verdict")
    return Table(
        title="Every objective under every rule",
        columns=tuple(Column(label=label, figures=2 <= place <= 4) for place, label in enumerate(columns)),
        rows=tuple(_objective_row(each) for each in found.objectives),
        note="Changes are over the second half of the distance, in standard deviations of the objective's own proxy "
        "and gold among the candidates of a prompt.",
    )


def _objective_row(curve: ObjectiveCurve) -> tuple[Cell, ...]:
    return (
        name_cell(rule_name(curve.rule)),
        name_cell(curve.objective),
        count_cell(curve.from_n),
        number_cell(curve.proxy_change, curve.proxy_change_ci, digits=2),
        number_cell(curve.gold_change, curve.gold_change_ci, digits=2),
        Cell(text=gamed_words(curve)),
    )


def _numbers(found: OverOptimization) -> tuple[Block, ...]:
    columns = (Column(label="n"), Column(label="KL"), Column(label="Proxy"), Column(label="Gold"))
    tables = []
    for rule in found.rules:
        rows = tuple(
            (
                count_cell(point.n),
                number_cell(point.kl),
                number_cell(point.proxy, point.proxy_ci),
                number_cell(point.gold, point.gold_ci),
            )
            for point in rule.points
        )
        table = Table(title=f"Picked by {rule_name(rule.rule)}", columns=columns, rows=rows)
        tables.append(Details(summary=f"Picked by {fitted(rule_name(rule.rule), 60)}", blocks=(table,)))
    return tuple(tables)
