"""What `rlaif constitution new` asks, and how what is given by options stands in for the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from rlaif.constitution import Case, Constitution, Principle, load_constitution
from rlaif.constitution.check import bare
from rlaif.constitution.draft import Draft, DraftObjective, equal_weights, principle_from, usual_objectives
from rlaif.constitution.schema import Name, Text, Weight
from rlaif.errors import InputError
from rlaif.shipped import shipped_folder

_T = TypeVar("_T")
_NAME, _WEIGHT, _TEXT = TypeAdapter[str](Name), TypeAdapter[float](Weight), TypeAdapter[str](Text)
_LONGEST_NAME = 64
_ID_WORDS = 4
_LITTLE_WORDS = re.compile(
    r"(a|an|and|as|at|be|better|by|for|in|is|it|its|of|on|or|response|terms|than|that|the|this|to|which|with)"
)


def a_name(text: str) -> str:
    """A name as the schema takes it. Raises ValueError with the fact."""
    try:
        return _NAME.validate_python(text.strip())
    except ValidationError:
        letters = f"letters, digits, - and _ only, at most {_LONGEST_NAME}, a letter or digit first"
        raise ValueError(f"{text.strip()[:80]!r} is no name; use {letters}") from None


def a_weight(text: str | float) -> float:
    """A weight as the schema takes it. Raises ValueError with the fact."""
    try:
        return _WEIGHT.validate_python(text)
    except ValidationError:
        raise ValueError(f"{text!r} is no weight; expected a number that is 0 or more, as 0.4") from None


def a_text(text: str) -> str:
    """A text that says something and can be printed. Raises ValueError with the fact."""
    try:
        text = _TEXT.validate_python(text)
    except ValidationError:
        raise ValueError("the text is empty; write a sentence") from None
    if not text.replace("\n", "").isprintable():
        raise ValueError("the text holds a character that does not print; leave it out")
    return text


def some_names(text: str) -> tuple[str, ...]:
    """Names with commas between them, each once. Raises ValueError with the fact."""
    names = tuple(a_name(part) for part in text.split(",") if part.strip())
    if not names or len(set(names)) < len(names):
        raise ValueError("expected names with commas between them, each once")
    return names


class Questions:
    """Makes a draft of what is given, and asks for the rest where there is a terminal.

    Args:
        file: Where the constitution will stand; its stem is the default name.
        given: The command's options.
        ask: Whether to ask; else defaults stand in.
    """

    def __init__(self, file: Path, given: Mapping[str, Any], ask: bool) -> None:
        self.file, self.given, self.ask = file, given, ask
        self.usual = usual_objectives()
        self.ids: set[str] = set()

    def draft(self) -> Draft:
        """The answers. Raises InputError where something is missing or cannot be used."""
        given = self.given
        if given["source"] and given["extends"]:
            raise InputError("--from and --extends are both given; a file is a copy or extends, so give one.")
        objectives = self._given_objectives()
        start = bool(given["source"] or given["extends"] or objectives)
        if not self.ask and not given["yes"]:
            missing = [] if given["name"] else ["--name"]
            missing += [] if start else ["one of --from, --extends and --objective"]
            if missing:
                hint = "there is no terminal to ask on, so give these, or --yes for the defaults"
                raise InputError(f"{self.file}: missing {' and '.join(missing)}; {hint}.")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", self.file.stem).strip("-_") or "mine"
        name = self._answer(given["name"], "--name", "Name", a_name, stem[:_LONGEST_NAME])
        description = given["description"]
        if description is None:
            description = self._prompt("What is the assistant for?", str.strip, "") if self.ask else ""
        source, extends = given["source"], given["extends"]
        if self.ask and not start:
            source, extends = self._start()
        parent = load_constitution(source or extends) if source or extends else None
        if parent is not None:
            self.ids |= {rule.id for objective in parent.objectives.values() for rule in objective.principles}
            made = self._changes(parent, objectives)
        else:
            made = self._whole(objectives)
        self._all_used(made)
        return Draft(
            name=name,
            description=description or (parent.description if parent else ""),
            source=source,
            extends=extends,
            objectives=made,
        )

    def _start(self) -> tuple[str | None, str | None]:
        start = click.prompt(
            "Start blank, as a copy of a constitution, or as one that extends it",
            type=click.Choice(["blank", "copy", "extend"]),
            default="blank",
            err=True,
        )
        if start == "blank":
            return None, None
        known = ", ".join(sorted(file.stem for file in shipped_folder("constitutions").glob("*.yaml")))
        name = self._prompt(f"Which one ({known}, or a file)", _a_constitution, "hhh")
        return (name, None) if start == "copy" else (None, name)

    def _given_objectives(self) -> dict[str, DraftObjective]:
        found: dict[str, DraftObjective] = {}
        for text in self.given["objectives"]:
            name, weight, question = (*text.split(":", 2), "", "")[:3]
            option = f"--objective {text!r}"
            name = _checked(option, a_name, name)
            if name in found:
                raise InputError(f"{option}: {name} is given twice; give each objective once.")
            found[name] = DraftObjective(
                name=name,
                weight=_checked(option, a_weight, weight) if weight.strip() else None,
                question=_checked(option, a_text, question) if question.strip() else None,
            )
        return found

    def _whole(self, given: Mapping[str, DraftObjective]) -> tuple[DraftObjective, ...]:
        names: Sequence[str] = tuple(given)
        if not names:
            default = ", ".join(self.usual)
            names = self._prompt("Objectives", some_names, default) if self.ask else tuple(self.usual)
        usual = set(names) == set(self.usual)
        shares = [self.usual[name].weight or 0 for name in names] if usual else equal_weights(len(names))
        return tuple(
            self._objective(given.get(name, DraftObjective(name=name)), share)
            for name, share in zip(names, shares, strict=True)
        )

    def _objective(self, given: DraftObjective, share: float) -> DraftObjective:
        name = given.name
        usual = self.usual.get(name, DraftObjective(name=name))
        if self.ask:
            click.echo(f"\n{name}", err=True)
        weight = self._answer(given.weight, "--objective", "  Weight", a_weight, share)
        default = usual.question or f"Which response is better in terms of {name}?"
        question = self._answer(given.question, "--objective", "  Question", a_text, default)
        principles = self._given_principles(name) or (self._principle(name, question, usual),)
        return DraftObjective(name=name, weight=weight, question=question, principles=principles)

    def _principle(self, objective: str, question: str, usual: DraftObjective) -> Principle:
        first = usual.principles[0] if usual.principles and question == usual.question else None
        default = first.text if first else principle_from(question)
        if default is None and not self.ask:
            raise InputError(
                f"{self.file}: {objective} has no principle, and none can be made from {question!r}; give --principle "
                f"{objective}:ID:TEXT."
            )
        text = self._answer(None, "--principle", "  First principle", a_text, default)
        kept = first if first is not None and text == first.text else None
        name = self._answer(None, "--principle", "  Its id", self._new_id, kept.id if kept else self._id_of(text))
        self.ids.add(name)
        cases = self._given_cases(name)
        if not cases and kept is not None and not self.ask:
            cases = kept.cases
        if not cases and self.ask:
            cases = self._asked_case(kept.cases[0] if kept and kept.cases else None)
        return Principle(id=name, text=text, cases=cases)

    def _asked_case(self, usual: Case | None) -> tuple[Case, ...]:
        prompt = self._prompt("  A prompt to test it with (- for none)", str.strip, usual.prompt if usual else "-")
        if prompt in ("-", ""):
            return ()
        default = usual if usual and prompt == usual.prompt else None
        better = self._prompt("  The better response", a_text, default.better if default else None)

        def differs(text: str) -> str:
            text = a_text(text)
            if bare(text) == bare(better):
                raise ValueError("that is the better response again; write one that the principle makes worse")
            return text

        worse = self._prompt("  The worse response", differs, default.worse if default else None)
        return (Case(prompt=prompt, better=better, worse=worse),)

    def _changes(self, parent: Constitution, given: Mapping[str, DraftObjective]) -> tuple[DraftObjective, ...]:
        """Of the parent's objectives what is to differ, and new ones."""
        made = []
        for name, objective in parent.objectives.items():
            change = given.get(name, DraftObjective(name=name))
            if self.ask and change.weight is None:
                weight = self._prompt(f"Weight of {name}", a_weight, objective.weight)
                change = change.model_copy(update={"weight": weight if weight != objective.weight else None})
            change = change.model_copy(update={"principles": self._given_principles(name)})
            if change != DraftObjective(name=name):
                made.append(change)
        made += [self._objective(each, 1.0) for name, each in given.items() if name not in parent.objectives]
        return tuple(made)

    def _given_principles(self, objective: str) -> tuple[Principle, ...]:
        found = []
        for text in self.given["principles"]:
            option = f"--principle {text!r}"
            parts = text.split(":", 2)
            if len(parts) < 3:
                raise InputError(f"{option}: expected OBJECTIVE:ID:TEXT, as kindness:listens:Prefer the response ….")
            if parts[0].strip() == objective:
                name = _checked(option, self._new_id, parts[1])
                self.ids.add(name)
                found.append(Principle(id=name, text=_checked(option, a_text, parts[2]), cases=self._given_cases(name)))
        return tuple(found)

    def _given_cases(self, principle: str) -> tuple[Case, ...]:
        found = []
        for text in self.given["cases"]:
            parts = [part.strip() for part in text.split("|")]
            if len(parts) != 4:
                raise InputError(f"--case {text!r}: expected ID|PROMPT|BETTER|WORSE.")
            if parts[0] == principle:
                prompt, better, worse = (_checked(f"--case {text!r}", a_text, part) for part in parts[1:])
                found.append(Case(prompt=prompt, better=better, worse=worse))
        return tuple(found)

    def _all_used(self, made: Sequence[DraftObjective]) -> None:
        """Refuse a principle or case that belongs to nothing: it would be lost without a word."""
        objectives = {each.name for each in made}
        ids = {rule.id for each in made for rule in each.principles}
        for option, sign, known, values in (
            ("--principle", ":", objectives, self.given["principles"]),
            ("--case", "|", ids, self.given["cases"]),
        ):
            for text in values:
                name = text.partition(sign)[0].strip()
                if name not in known:
                    shown = ", ".join(sorted(known)) or "none"
                    raise InputError(f"{option} {text!r}: names {name!r}; there are {shown}.")

    def _new_id(self, text: str) -> str:
        name = a_name(text)
        if name in self.ids:
            raise ValueError(f"{name!r} is the id of another principle; give each its own")
        return name

    def _id_of(self, text: str) -> str:
        """An id from the first words that say something."""
        words = re.findall(r"[A-Za-z0-9]+", text.lower().removeprefix("prefer the response that"))
        telling = [word for word in words if not _LITTLE_WORDS.fullmatch(word)] or words or ["principle"]
        name = "-".join(telling[:_ID_WORDS])[:_LONGEST_NAME].strip("-") or "principle"
        number = 2
        unique = name
        while unique in self.ids:
            unique = f"{name[: _LONGEST_NAME - 4]}-{number}"
            number += 1
        return unique

    def _answer(self, given: Any, option: str, question: str, check: Callable[[Any], _T], default: Any) -> _T:
        """What is given, else asked for, else the default."""
        if given is not None:
            return _checked(option, check, given)
        return self._prompt(question, check, default) if self.ask else check(default)

    def _prompt(self, question: str, check: Callable[[Any], _T], default: Any) -> _T:
        """Ask until the answer can be used."""

        def proc(text: Any) -> _T:
            try:
                return check(text)
            except ValueError as error:
                raise click.UsageError(_sentence(error)) from None

        answer: _T = click.prompt(question, default=default, value_proc=proc, show_default=default != "", err=True)
        return answer


def _a_constitution(text: str) -> str:
    try:
        load_constitution(text.strip())
    except InputError as error:
        raise ValueError(str(error).splitlines()[0].rstrip(".")) from None
    return text.strip()


def _checked(option: str, check: Callable[[Any], _T], text: Any) -> _T:
    try:
        return check(text)
    except ValueError as error:
        raise InputError(f"{option}: {_sentence(error)}") from None


def _sentence(fact: ValueError) -> str:
    text = str(fact)
    return text if text.endswith("?") else f"{text}."
