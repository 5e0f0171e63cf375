"""Write a new constitution as a commented file: from answers, as a copy of another, or as one that extends another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif.constitution.edit import ConstitutionFile
from rlaif.constitution.layout import Layout, block_lines
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution, Name, Principle, Text, Weight
from rlaif.errors import InputError
from rlaif.shipped import find_shipped, shipped_folder
from rlaif.types import Frozen

FIRST_VERSION = "0.1.0"
_REFERENCE = "# yaml-language-server: $schema="
_QUESTION = re.compile(r"Which response (.+?)\?", re.DOTALL)
_LAYOUT = Layout()

_ABOUT = """\
# Check it:            rlaif constitution lint {file}
# Try it on a judge:   rlaif constitution test {file}
# Label with it:       rlaif label DATA --constitution {file} --out RUN"""
_WEIGHT_NOTE = "# Its share in the overall preference; the weights of all objectives add up to 1."
_PRINCIPLES_NOTE = """\
# What a judge weighs. Each says one thing that can be decided from two responses; weight: 0 turns one off.
# The id is what labels and reports call it: keep it when you reword the text."""
_CASES_NOTE = "# Pairs that this principle alone tells apart; rlaif constitution test asks a judge about them."
_NO_CASES_NOTE = f"""\
{_CASES_NOTE}
# cases:
#   - prompt: What a person says.
#     better: The response that the principle prefers.
#     worse: One that is worse by this principle alone."""
_AGGREGATION_NOTE = "# weighted: the objectives' mean decides. pareto: a response wins if no objective is against it."
_FLOORS_NOTE = """\
  # The least win probability with which a response can be preferred at all, whatever the other objectives say:
  # floors: {{{objective}: 0.2}}"""


class DraftObjective(Frozen):
    """An objective as it is first written; in a file that copies or extends another, what is `None` stays as it is."""

    name: Name
    weight: Weight | None = None
    question: Text | None = None
    principles: tuple[Principle, ...] = ()


class Draft(Frozen):
    """The answers that a new file is made of; `source` and `extends` are the name of a shipped one or a file."""

    name: Name
    description: str = ""
    source: str | None = None
    extends: str | None = None
    objectives: tuple[DraftObjective, ...] = ()


def principle_from(question: str) -> str | None:
    """`Which response is kinder?` makes `Prefer the response that is kinder.`; `None` for another kind of question."""
    found = _QUESTION.fullmatch(question.strip())
    return f"Prefer the response that {found[1]}." if found else None


def usual_objectives() -> Mapping[str, DraftObjective]:
    """Objectives that most assistants have, each with a principle and a case to start from: those of `hhh`."""
    return {
        name: DraftObjective(
            name=name,
            weight=each.weight,
            question=each.question,
            principles=(each.principles[0].model_copy(update={"cases": each.principles[0].cases[:1]}),),
        )
        for name, each in load_constitution("hhh").objectives.items()
    }


def equal_weights(count: int) -> list[float]:
    """So many weights of two decimals that add up to 1, as equal as they can be."""
    least, more = divmod(100, count)
    return [(least + (number < more)) / 100 for number in range(count)]


def draft_text(draft: Draft, path: Path, schema: str | None) -> str:
    """The text of the new file.

    Args:
        draft: What it holds.
        path: Where it will stand: paths in it are written from there. Nothing is read or written at it.
        schema: Path or URL of the JSON Schema, for editors; `None` leaves the line out.

    Raises:
        InputError: the constitution to start from does not load, or the new one would not.
    """
    if draft.source is not None:
        return _copied(draft, path, schema)
    lines = [*_head(draft, path, schema), *(_extending(draft, path) if draft.extends else _whole(draft))]
    return "\n".join(lines) + "\n"


def _head(draft: Draft, path: Path, schema: str | None) -> Iterator[str]:
    if schema is not None:
        yield f"{_REFERENCE}{schema}"
    yield from _ABOUT.format(file=path.name).splitlines()
    about = {"name": draft.name, "version": FIRST_VERSION}
    about |= {"description": draft.description} if draft.description else {}
    yield from block_lines(about, 0, _LAYOUT)


def _whole(draft: Draft) -> Iterator[str]:
    yield ""
    yield "objectives:"
    for number, objective in enumerate(draft.objectives):
        first = number == 0
        yield from [] if first else [""]
        yield f"  {objective.name}:"
        yield from _noted(_WEIGHT_NOTE, 4) if first else []
        yield from block_lines({"weight": objective.weight, "question": objective.question}, 4, _LAYOUT)
        yield from _noted(_PRINCIPLES_NOTE, 4) if first else []
        lines = block_lines({"principles": [_written(each) for each in objective.principles]}, 4, _LAYOUT)
        places = [at for at, line in enumerate(lines) if line == "        cases:"] if first else []
        yield from [*lines[: places[0]], *_noted(_CASES_NOTE, 8), *lines[places[0] :]] if places else lines
        if first and not places:
            yield from _noted(_NO_CASES_NOTE, 8)
    yield ""
    yield _AGGREGATION_NOTE
    yield from block_lines({"aggregation": {"method": "weighted"}}, 0, _LAYOUT)
    names = [each.name for each in draft.objectives]
    floor = "harmlessness" if "harmlessness" in names else names[0]
    yield from _FLOORS_NOTE.format(objective=floor).splitlines()


def _noted(note: str, indent: int) -> list[str]:
    return [" " * indent + line for line in note.splitlines()]


def _written(principle: Principle) -> dict[str, Any]:
    """What of a principle is not as it is by default."""
    values = principle.model_dump(exclude_defaults=True)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _extending(draft: Draft, path: Path) -> Iterator[str]:
    assert draft.extends is not None
    parent = load_constitution(draft.extends)
    reference = _from_folder(find_shipped("constitutions", draft.extends, ".yaml"), draft.extends, path)
    yield "# What is written below is put over what this one holds: objectives by name, principles by id."
    yield from block_lines({"extends": reference}, 0, _LAYOUT)
    yield ""
    objectives = {each.name: _changes(each) for each in draft.objectives if _changes(each)}
    if objectives:
        yield from block_lines({"objectives": objectives}, 0, _LAYOUT)
        return
    name, objective = next(iter(parent.objectives.items()))
    example = {"objectives": {name: {"principles": [{"id": objective.principles[0].id, "weight": 0}]}}}
    yield "# For example, to turn a principle off:"
    yield from (f"# {line}" for line in block_lines(example, 0, _LAYOUT))


def _changes(objective: DraftObjective) -> dict[str, Any]:
    values: dict[str, Any] = {"weight": objective.weight, "question": objective.question}
    if objective.principles:
        values["principles"] = [_written(each) for each in objective.principles]
    return {key: value for key, value in values.items() if value is not None}


def _copied(draft: Draft, path: Path, schema: str | None) -> str:
    """The source with its comments, under the new name."""
    assert draft.source is not None
    source = find_shipped("constitutions", draft.source, ".yaml")
    known = load_constitution(source)
    file = ConstitutionFile.load(source)
    file.set("name", draft.name)
    file.set("version", FIRST_VERSION)
    file.set("description", draft.description)
    inherited = file.value("extends")
    if inherited is not None:
        listed = inherited if isinstance(inherited, list) else [inherited]
        moved = [_from_folder(source.parent / each, each, path) for each in listed]
        file.set("extends", moved if isinstance(inherited, list) else moved[0])
    for objective in draft.objectives:
        _copied_objective(file, objective, known)
    lines = file.text.replace("\r\n", "\n").splitlines()
    if lines and lines[0].startswith(_REFERENCE):
        lines = lines[1:]
    head = [f"{_REFERENCE}{schema}"] if schema is not None else []
    head.append(f"# Started as a copy of {known.name} {known.version}.")
    return "\n".join([*head, *lines]) + "\n"


def _copied_objective(file: ConstitutionFile, objective: DraftObjective, known: Constitution) -> None:
    if objective.name not in known.objectives:
        file.add_objective(objective.name, _changes(objective))
        return
    for key, value in _changes(objective).items():
        if key != "principles":
            file.set(f"objectives.{objective.name}.{key}", value)
    for each in objective.principles:
        file.add_principle(objective.name, each.id, each.text, cases=each.cases)


def _from_folder(target: Path, reference: str, path: Path) -> str:
    """How the file at `path` names another: a shipped one by its name, a file by the way from its own folder."""
    if not target.is_file() or target.resolve().parent == shipped_folder("constitutions").resolve():
        beside = path.parent / target.stem
        if beside.is_file():
            raise InputError(f"{beside}: a file beside {path.name} that hides the shipped {target.stem}; rename it.")
        return target.stem if target.is_file() else reference
    try:
        return Path(os.path.relpath(target.resolve(), path.parent.resolve())).as_posix()
    except ValueError:
        # Another drive.
        return target.resolve().as_posix()
