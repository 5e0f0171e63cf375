"""Read a run for what its principles do: the thin edge of `rlaif.labeling.attribution`."""

from __future__ import annotations

from pathlib import Path

from rlaif.constitution import Constitution, load_constitution
from rlaif.errors import InputError
from rlaif.labeling.attribution import MARGIN, Place, PrincipleReport, count_drawn, estimate_from_rationales
from rlaif.labeling.ledgers import RunLedger
from rlaif.labeling.manifest import Manifest, read_manifest
from rlaif.labeling.rationales import Reader


def read_principles(run: Path, constitution: str | None = None, margin: float = MARGIN) -> PrincipleReport:
    """Tell what each principle did in a run: measured where one was drawn at a time, else estimated.

    Args:
        constitution: the run's constitution, by name or file; by default as the run was given it.
        margin: how far from 0.5 a probability must be for a side to be taken.

    Raises:
        InputError: no run, one without judgments or rationales, or the constitution is not the run's.
        RunError: the ledger cannot be read.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise InputError(f"{run}: no manifest.json; give the folder of a labelling run.")
    if not (run / "judgments.db").is_file():
        raise InputError(f"{run}: holds no judgments.db; give the whole folder that rlaif label --out wrote.")
    ledger = RunLedger(run, manifest.settings, str(manifest.settings.get("constitution")))
    if ledger.sampled:
        rules = _constitution(run, manifest, constitution, needed=constitution is not None)
        report = count_drawn(ledger.pairs(), margin, _places(rules, manifest) if rules else ())
        if not report.uses:
            raise InputError(f"{run}: holds no judgments yet; go on with its rlaif label command.")
        return report
    _refuse_unreadable(ledger)
    rules = _constitution(run, manifest, constitution, needed=True)
    assert rules is not None, "needed"
    places = _places(rules, manifest)
    readers = {
        name: Reader([(rule.id, rule.text) for rule in rules.objectives[name].active])
        for name in dict.fromkeys(place.objective for place in places)
    }
    return estimate_from_rationales(ledger.pairs, readers, places, margin)


def _constitution(run: Path, manifest: Manifest, given: str | None, *, needed: bool) -> Constitution | None:
    """The constitution that the run was labelled under, of which it keeps a name and a digest; `None` if not needed."""
    name = given or str(manifest.options.get("constitution") or "")
    digest = str(manifest.settings.get("constitution"))
    try:
        found = load_constitution(name)
    except InputError as error:
        if not needed:
            return None
        if given is not None:
            raise
        raise InputError(
            f"{run}: its constitution {name!r} cannot be loaded ({str(error).splitlines()[0]}); give it with "
            "--constitution NAME|FILE."
        ) from None
    if found.digest == digest:
        return found
    if not needed:
        return None
    raise InputError(
        f"{run}: labelled under the constitution {digest[:12]}, and {name} is {found.digest[:12]}; give the file as it "
        "was then with --constitution FILE."
    )


def _places(constitution: Constitution, manifest: Manifest) -> tuple[Place, ...]:
    """The principles that the run asked about, in the constitution's order."""
    asked = manifest.settings.get("objectives") or list(constitution.objectives)
    return tuple(
        Place(name, rule.id)
        for name, objective in constitution.objectives.items()
        if name in asked
        for rule in objective.active
    )


def _refuse_unreadable(ledger: RunLedger) -> None:
    """Refuse a run whose judgments hold no rationale to read a comparison from."""
    judged = ((verdict, rationale) for _, pair in ledger.pairs() for verdict, rationale in pair)
    answered = False
    for verdict, rationale in judged:
        if verdict.rating is not None:
            raise InputError(
                f"{ledger.run}: its rationales rate one response each, and compare nothing; label with "
                "--principles sample to measure what principles do."
            )
        if rationale.strip():
            return
        answered = True
    why = "its judgments have no rationales" if answered else "holds no judgments yet"
    fix = "label with --principles sample to measure what principles do" if answered else "go on with its label command"
    raise InputError(f"{ledger.run}: {why}; {fix}.")
