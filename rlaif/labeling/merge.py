"""Put the runs of one labelling together: the run that `rlaif label` writes over the joined data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from rlaif.data.pairs import Reject, read_pairs
from rlaif.data.sources import open_source
from rlaif.errors import InputError
from rlaif.files import making_folder, replacing
from rlaif.labeling.ask import Tally
from rlaif.labeling.generate import first_usable
from rlaif.labeling.manifest import changed_settings, manifest_of, read_manifest, write_manifest
from rlaif.labeling.merge_labels import MergedLabels
from rlaif.labeling.merge_ledgers import LEDGER, MergedLedger, MergeSource, kept_still
from rlaif.labeling.settings import DataSettings
from rlaif.labeling.summary import summary_of
from rlaif.labeling.write import Written, reject_line
from rlaif.store import Ledger
from rlaif.types import Frozen, Pair

PAIRS = "pairs.jsonl"
# What says which rows are labelled, and not how.
_OF_THE_DATA = ("data", "columns", "limit")


class MergeSummary(Frozen):
    """What was put together.

    `state` is that of the merged run: `done`, or `running` where `rlaif label` is to ask what is missing. `pairs` are
    those of the data but for the `rejected`, `missing` those of them that no run was asked about. `repeated` counts the
    judgments that more than one run had.
    """

    run: str
    runs: int
    data: str
    state: Literal["done", "running"]
    pairs: int
    missing: int
    judgments: int
    repeated: int
    rejected: int
    unfinished: list[str]


@dataclass
class _Seen:
    """What the pass over the data found."""

    labelled: int = 0
    unlabelled: int = 0
    missing: int = 0
    rejected: int = 0


def merge_runs(runs: Sequence[Path], out: Path, data: DataSettings | None = None) -> MergeSummary:
    """Put runs with the same settings into one, `out`, which `rlaif label` takes for its own.

    With `data`, the dataset that was split, the merged run is a run over it: labels in its order, its rejects, and
    `rlaif label` on it goes on. Runs that have not ended are taken with what they have: their answers are paid for, and
    the merged run asks only for the rest; it has no labels until then. Without `data` the pairs are those of the runs'
    labels, one run after the other, and are written to `out/pairs.jsonl`, which takes the place of the dataset; each
    run must have ended, since only its labels hold its pairs.

    The runs stay as they are. `out` is there whole at the end, or not at all.

    Raises:
        InputError: a folder is no run or is given twice, the runs have other settings or contradict each other, they
            are not of the data, or `out` holds anything.
        RunError: a ledger is damaged or in use, or the disk is full.
    """
    sources = _open_runs(runs, out)
    first = sources[0].manifest
    _refuse_other_settings(sources)
    if data is not None and first.settings.get("policy"):
        raise InputError(
            f"{sources[0].run}: labels responses that --policy sampled, which no dataset holds; leave out --data."
        )
    unfinished = [source.run for source in sources if not source.done]
    if data is None and unfinished:
        also = "" if first.settings.get("policy") else ", or add --data DATA, the dataset that was split"
        raise InputError(f"{unfinished[0]}: has not ended; finish it with its rlaif label command{also}.")
    # Read before any work, so that a wrong name is told at once.
    whole = None if data is None else open_source(data.data, split=data.split, config=data.config)
    with ExitStack() as held:
        for source in sources:
            held.enter_context(kept_still(source))
        folder = held.enter_context(making_folder(out))
        with closing(MergedLedger(folder / LEDGER)) as ledger:
            repeated = sum(ledger.take(source) for source in sources)
            with ledger.writing(), MergedLabels(ledger.db, sources) as labels:
                if data is None:
                    _write_pairs(labels, sources, folder / PAIRS)
                else:
                    _note_labels(labels, sources)
                joined = whole or open_source(str(folder / PAIRS))
                given = data or DataSettings(data=str(out / PAIRS))
                seen = _Seen()
                with replacing(folder / "labels.jsonl") as lines, replacing(folder / "rejects.jsonl") as rejects:
                    if data is None:
                        seen.rejected += _copy_rejects(labels, sources, rejects)
                    for row in first_usable(read_pairs(joined, given.columns), given.limit):
                        _put(row, labels, lines, rejects, seen)
                stranger = labels.stranger()
                if stranger is not None:
                    raise _not_of_the_data(ledger.who_asked(stranger), stranger, data)
        done = not unfinished and not seen.unlabelled
        if not done:
            # Labels of some pairs would pass for all: rlaif label writes them when it has the rest.
            (folder / "labels.jsonl").unlink()
            (folder / "rejects.jsonl").unlink()
        counts = _counts(folder / LEDGER, seen)
        merged = {
            "state": "done" if done else "running",
            "generation": 0,
            "settings": {
                **first.settings,
                "data": joined.digest,
                "columns": dict(given.columns),
                "limit": given.limit,
                # What a policy sampled is now data like any other.
                "policy": None,
                "policy_digest": None,
            },
            "options": {**first.options, "source": given.model_dump(mode="json"), "out": str(out), "policy": None},
            "engine": _common([source.manifest.engine for source in sources]),
            "counts": counts if done else {},
            "last_session": {"merged": [str(source.run) for source in sources], "reused": counts["judgments"]},
            # The first command to go on with it looks at every pair.
            "ending": {},
        }
        write_manifest(manifest_of(folder), first.model_copy(update=merged))
    return MergeSummary(
        run=str(out),
        runs=len(sources),
        data=given.data,
        state="done" if done else "running",
        pairs=seen.labelled + seen.unlabelled,
        missing=seen.missing,
        judgments=counts["judgments"],
        repeated=repeated,
        rejected=seen.rejected,
        unfinished=[str(run) for run in unfinished],
    )


def _open_runs(runs: Sequence[Path], out: Path) -> list[MergeSource]:
    sources: list[MergeSource] = []
    known: dict[Path, Path] = {}
    for run in runs:
        if not run.is_dir():
            fact = "a file" if run.exists() else "no such folder"
            raise InputError(f"{run}: {fact}; give the folder of a labelling run.")
        manifest = read_manifest(run)
        if manifest is None or "constitution" not in manifest.settings:
            raise InputError(f"{run}: no manifest.json of a labelling run; give the folder of one.")
        if not (run / LEDGER).is_file():
            raise InputError(f"{run}: holds no {LEDGER}, the run's answers; copy the whole folder, or leave it out.")
        if manifest.settings.get("cascade"):
            raise InputError(
                f"{run}: labelled with --cascade, whose thresholds are set on a run's own pairs, so that its labels "
                "are not those of the whole; label the whole data with --cascade in one run."
            )
        whole = run.resolve()
        if whole in known:
            also = "" if known[whole] == run else f" (as {known[whole]})"
            raise InputError(f"{run}: given twice{also}; name each run once.")
        if whole == out.resolve() or whole in out.resolve().parents:
            raise InputError(f"--out {out}: is, or is inside, one of the runs; choose another folder.")
        known[whole] = run
        sources.append(MergeSource(run, manifest))
    return sources


def _refuse_other_settings(sources: Sequence[MergeSource]) -> None:
    first, others = sources[0], []
    for source in sources[1:]:
        old, new = (
            {name: value for name, value in each.manifest.settings.items() if name not in _OF_THE_DATA}
            for each in (first, source)
        )
        changed = changed_settings(old, new)
        # One that the machine chose stands in no setting and in no key, and must not be mixed in.
        before, now = first.manifest.engine.get("dtype"), source.manifest.engine.get("dtype")
        if before and now and before != now and not changed:
            changed = [f"dtype, chosen by the machine: {before} -> {now}"]
        if changed:
            others.append(f"{source.run} ({'; '.join(changed)})")
    if others:
        raise InputError(
            f"{first.run}: other settings than in {', '.join(others)}; give the rlaif label command of one again with "
            "the settings of the other and --update, which asks only what they change, or leave it out."
        )


def _write_pairs(labels: MergedLabels, sources: Sequence[MergeSource], path: Path) -> None:
    """Write the pairs that the runs labelled, one run after the other."""
    count = 0
    with replacing(path) as file:
        for number in range(len(sources)):
            for line in labels.add(number):
                file.write(line.decode())
                count += 1
    if not count:
        raise InputError(f"{', '.join(str(source.run) for source in sources)}: no label in any of the runs.")


def _note_labels(labels: MergedLabels, sources: Sequence[MergeSource]) -> None:
    for number, source in enumerate(sources):
        if source.done:
            for found in (labels.add(number), labels.add_failed(number)):
                for _ in found:
                    pass


def _copy_rejects(labels: MergedLabels, sources: Sequence[MergeSource], file: TextIO) -> int:
    """Write every run's rejects, each with its run: the lines are those of the data of each."""
    count = 0
    for number, source in enumerate(sources):
        for reject in labels.add_failed(number):
            file.write(json.dumps({**reject, "run": str(source.run)}, ensure_ascii=False) + "\n")
            count += 1
    labels.see_failed()
    return count


def _put(row: tuple[int, Pair] | Reject, labels: MergedLabels, lines: TextIO, rejects: TextIO, seen: _Seen) -> None:
    """Write one row of the data as the runs have it."""
    if isinstance(row, Reject):
        rejects.write(reject_line(row))
        seen.rejected += 1
        return
    line, pair = row
    labels.see(pair)
    label = labels.line_of(pair)
    if label is not None:
        lines.write(label)
        seen.labelled += 1
        return
    failure = labels.failure_of(pair)
    if failure is not None:
        rejects.write(reject_line(Reject(line, failure["reason"], failure["row"])))
        seen.rejected += 1
        return
    seen.unlabelled += 1
    seen.missing += not labels.asked(pair)


def _not_of_the_data(run: Path, pair_id: str, data: DataSettings | None) -> InputError:
    if data is None:
        return InputError(
            f"{run}: pair {pair_id[:80]!r} has answers and no label; end the run again with its rlaif label command."
        )
    return InputError(
        f"{run}: pair {pair_id[:80]!r} is not in {data.data}; give --data the dataset that was split, with its "
        "--columns and --limit, or leave out --data to join the runs as they are."
    )


def _counts(path: Path, seen: _Seen) -> dict[str, Any]:
    """The counts that a run of `rlaif label` has in its manifest."""
    with closing(Ledger(path)) as ledger:
        return summary_of(path.parent, ledger, Tally(), Written(seen.labelled, seen.rejected)).counts


def _common(details: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all engines told of themselves alike."""
    return {name: value for name, value in details[0].items() if all(each.get(name) == value for each in details)}
