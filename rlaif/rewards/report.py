"""`report.html` of trained heads, and of `rlaif evaluate --html`: how good the heads are, and what moves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif.report.figures import fitted
from rlaif.report.page import Block, Details, Gallery, Notes, Page, Section, reading_section, save_page
from rlaif.rewards.evaluation import Change, Evaluation, ObjectiveEvaluation, ScoredPair, TrainingPoint
from rlaif.rewards.report_examples import scored_pairs
from rlaif.rewards.report_figures import change_picture, overview, pictures
from rlaif.rewards.report_tables import (
    changes_table,
    glance_table,
    heads_table,
    settings_table,
    tables,
    tag_weights_table,
)
from rlaif.rewards.report_words import facts, verdict
from rlaif.rewards.spec import HeadsSpec
from rlaif.version import __version__

_TERMS = (
    (
        "Accuracy",
        "The share of pairs on which the head gives the response that the label prefers the higher score. Labels that "
        "are ties are left out, equal scores count half.",
    ),
    (
        "Length alone",
        "A rule that takes the longer response, or the shorter one, whichever agrees with more of these labels. A head "
        "that is no better has learned little but length.",
    ),
    (
        "Calibration",
        "Whether the head is right as often as it says. The temperature divides the score differences and is fitted on "
        "held-out pairs; the error (ECE) is the mean distance of the groups from the dashed line.",
    ),
    (
        "Length slope",
        "How much the log-odds of a response rise as it gets longer than the other one. Labels have such a slope too; "
        "what counts is the difference.",
    ),
    (
        "Interval",
        "Where the figure would lie for 95 of 100 such samples of pairs: Wilson's for shares, by resampling the pairs "
        "for the rest, with pairs of one prompt drawn together.",
    ),
    (
        "Reward",
        "A head's score less the mean of the responses trained on, by their standard deviation, so that weights of "
        "different objectives compare.",
    ),
)


def write_report(
    path: Path,
    spec: HeadsSpec,
    evaluation: Evaluation | None,
    history: Sequence[TrainingPoint] = (),
    examples: Sequence[ScoredPair] = (),
    changes: Sequence[Change] = (),
    *,
    held_out: bool = True,
) -> None:
    """Write the report: one file that needs nothing else, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    save_page(heads_page(spec, evaluation, history, examples, changes, held_out=held_out), path)


def heads_page(
    spec: HeadsSpec,
    evaluation: Evaluation | None,
    history: Sequence[TrainingPoint] = (),
    examples: Sequence[ScoredPair] = (),
    changes: Sequence[Change] = (),
    *,
    held_out: bool = True,
) -> Page:
    """Lay out the report; the same values give the same page.

    Args:
        spec: of the checkpoint.
        evaluation: on labelled pairs; `None` where there were none.
        history: of the training's losses; frozen heads have none, they are solved and not stepped to.
        examples: pairs to read.
        changes: against the heads that a tuning began with.
        held_out: whether the evaluation is of pairs that were held out of the training.
    """
    sections = [_glance(spec, evaluation, history)]
    if evaluation is not None:
        sections += [
            _objective(name, found, number) for number, (name, found) in enumerate(evaluation.objectives.items())
        ]
    if changes:
        blocks: tuple[Block, ...] = (Gallery(pictures=(change_picture(changes),)), changes_table(changes))
        sections.append(Section(name="changes", title="What the tuning changed", blocks=blocks))
    if examples:
        lead = (
            "The pairs on which a head is most surely wrong, and most surely right. Open a line to read it; what the "
            "label prefers has the bold frame. Read the mistakes first: some of them are the labels'."
        )
        sections.append(
            Section(name="examples", title="Examples", lead=lead, blocks=(scored_pairs(examples),)),
        )
    sections += [_making(spec), reading_section(_TERMS)]
    name = "" if evaluation is None else evaluation.heads
    return Page(
        title=f"Reward heads {fitted(name, 80)}".strip(),
        verdict=verdict(evaluation, held_out),
        sections=tuple(sections),
        facts=_made_from(spec, evaluation),
    )


def _glance(spec: HeadsSpec, evaluation: Evaluation | None, history: Sequence[TrainingPoint]) -> Section:
    blocks: list[Block] = []
    if evaluation is not None:
        blocks.append(glance_table(evaluation, spec))
        if evaluation.not_scored:
            names = ", ".join(fitted(each, 40) for each in evaluation.not_scored[:12])
            blocks.append(Notes(title="Not measured", lines=(f"Labels without a head: {names}.",)))
    made = overview(spec, evaluation, history)
    if made:
        blocks.append(Gallery(pictures=made))
    return Section(name="glance", title="At a glance", blocks=tuple(blocks))


def _objective(name: str, found: ObjectiveEvaluation, number: int) -> Section:
    blocks: list[Block] = []
    if found.labelled:
        blocks.append(facts(found))
    if found.warnings:
        blocks.append(Notes(title="Warnings", lines=found.warnings))
    if found.labelled:
        blocks.append(Gallery(pictures=pictures(found, f"o{number}")))
        blocks.append(Details(summary="All figures", blocks=tables(found)))
    return Section(name=f"objective-{number}", title=fitted(name, 60), blocks=tuple(blocks))


def _making(spec: HeadsSpec) -> Section:
    blocks: list[Block] = [heads_table(spec)]
    if spec.aggregation.by_tag:
        blocks.append(tag_weights_table(spec))
    blocks.append(Details(summary="All settings and versions", blocks=(settings_table(spec),)))
    return Section(name="making", title="What the checkpoint holds", blocks=tuple(blocks))


def _made_from(spec: HeadsSpec, evaluation: Evaluation | None) -> tuple[tuple[str, str], ...]:
    made = [("Backbone", fitted(str(spec.provenance.get("backbone") or ""), 120)), ("Mode", spec.mode)]
    if evaluation is not None:
        sources = "; ".join(f"{fitted(each.name, 80)} ({each.kind})" for each in evaluation.sources)
        resampled = (
            f"{evaluation.resamples:,} resamples, seed {evaluation.seed}" if evaluation.resamples else "no resampling"
        )
        made += [
            ("Labels", sources),
            ("Measured on", f"{evaluation.pairs:,} pairs of {evaluation.conversations:,} conversations"),
            ("Intervals", f"95%, {resampled}"),
        ]
    made.append(("rlaif", evaluation.rlaif if evaluation is not None else __version__))
    return tuple((name, given) for name, given in made if given)
