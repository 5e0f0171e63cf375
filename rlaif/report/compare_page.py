"""The report of `rlaif compare --html`: the verdict, pictures, tables, and the pairs on which the two sides differ."""

from __future__ import annotations

from pathlib import Path

from rlaif.agreement.results import Comparison, ObjectiveComparison
from rlaif.report.compare_examples import disagreements
from rlaif.report.compare_figures import pictures, ranking_picture
from rlaif.report.compare_tables import differences_table, glance_table, judges_table, standings_table, tables
from rlaif.report.compare_words import facts, verdict
from rlaif.report.figures import fitted
from rlaif.report.page import Block, Details, Gallery, Notes, Page, Section, reading_section, save_page

_TERMS = (
    (
        "Majority",
        "What more annotators prefer of a pair than anything else. Pairs without one are counted, not scored.",
    ),
    (
        "Interval",
        "Where the figure would lie for 95 of 100 such samples of pairs: Wilson's for shares, by resampling the pairs "
        "for the rest, with pairs of one prompt drawn together.",
    ),
    (
        "A person against the others",
        "Each annotator against the majority of the other annotators. It is the ceiling of what a judge can reach, "
        "since people do not agree with each other always.",
    ),
    (
        "Alternative annotator test",
        "Calderon et al. 2025, The alternative annotator test for LLM-as-a-judge. For each annotator it asks whether "
        "the judge is as close to the other annotators, given that the judge costs less (epsilon).",
    ),
    (
        "Kappa, alpha, AC1",
        "Agreement beyond what chance alone gives: 1 is full, 0 is chance. They count chance in different ways.",
    ),
    ("Abstained", "The judge gave no verdict that could be read. It is never counted as a tie or as a mistake."),
)


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the report: one file that needs nothing else, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    save_page(compare_page(comparison), path)


def compare_page(comparison: Comparison) -> Page:
    """Lay out the report; the same comparison gives the same page."""
    sections = [
        _objective(name, found, number, alone=len(comparison.objectives) == 1)
        for number, (name, found) in enumerate(comparison.objectives.items())
    ]
    if len(comparison.objectives) > 1:
        sections.insert(0, Section(name="glance", title="At a glance", blocks=(glance_table(comparison),)))
    sections += _judges(comparison)
    sections.append(_disagreements(comparison))
    return Page(
        title=f"{fitted(comparison.judge, 80)} compared with people",
        verdict=verdict(comparison),
        sections=(*sections, reading_section(_TERMS)),
        facts=_made_from(comparison),
    )


def _objective(name: str, found: ObjectiveComparison, number: int, alone: bool) -> Section:
    blocks: list[Block] = [facts(found)]
    if found.warnings:
        blocks.append(Notes(title="Warnings", lines=found.warnings))
    blocks.append(Gallery(pictures=pictures(found, f"o{number}")))
    blocks += tables(found)
    title = "Agreement and biases" if alone and name == "overall" else fitted(name, 60)
    return Section(name=f"objective-{number}", title=title, blocks=tuple(blocks))


def _judges(comparison: Comparison) -> list[Section]:
    """Where there are several judges: how they rank, objective by objective."""
    rankings = {ranking.objective: ranking for ranking in comparison.ranking}
    if not (rankings or comparison.against):
        return []
    blocks: list[Block] = []
    for number, objective in enumerate(dict.fromkeys([*comparison.objectives, *rankings])):
        made: list[Block] = []
        ranking = rankings.get(objective)
        if ranking is not None:
            made.append(Gallery(pictures=(ranking_picture(ranking, f"r{number}"),)))
            made += [standings_table(ranking), differences_table(ranking)]
        if comparison.against and objective in comparison.objectives:
            made.append(judges_table(comparison, objective))
        shown = [block for block in made if block.kind != "table" or block.rows]
        if len(comparison.objectives) > 1 and shown:
            blocks.append(Details(summary=fitted(objective, 60), blocks=tuple(shown), opened=True))
        else:
            blocks += shown
    return [Section(name="judges", title="Several judges", blocks=tuple(blocks))]


def _disagreements(comparison: Comparison) -> Section:
    title = "Where judge and people differ"
    if not comparison.examples:
        some = any(found.disagreements for found in comparison.objectives.values())
        lead = "The pairs are named by rlaif compare --json." if some else "There is no pair on which they differ."
        return Section(name="disagreements", title=title, lead=lead, blocks=())
    lead = (
        "Open a line to read the prompt, both responses and the judge's reasons. What people prefer has the bold frame."
    )
    return Section(name="disagreements", title=title, lead=lead, blocks=(disagreements(comparison),))


def _made_from(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    apart = (
        (comparison.unmatched_labels, "of the judge's labels without a human one"),
        (comparison.unmatched_humans, "of the people's pairs without a label of the judge's"),
    )
    unmatched = "; ".join(f"{count:,} {what}" for count, what in apart if count)
    resampled = (
        f"{comparison.resamples:,} resamples, seed {comparison.seed}" if comparison.resamples else "no resampling"
    )
    one_side = "; ".join(f"{fitted(name, 60)}: {fitted(side, 120)}" for name, side in comparison.not_compared.items())
    made = (
        ("Labels", fitted(comparison.labels, 200)),
        ("People", fitted(comparison.human, 200)),
        ("Not compared", "; ".join(filter(None, (unmatched, one_side)))),
        *((fitted(name, 40), fitted(given, 200)) for name, given in (comparison.provenance or {}).items()),
        ("Intervals", f"95%, {resampled}"),
        ("rlaif", comparison.rlaif),
    )
    return tuple((name, given) for name, given in made if given)
