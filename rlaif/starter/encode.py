"""Token sequences for training: one pair as a shared prefix, then several questions about it as branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlaif.engines.chat import before_verdict
from rlaif.prompts import Template
from rlaif.starter.families import NAMES
from rlaif.starter.judging import Look, Piece, Principle, Question, restated
from rlaif.starter.negation import is_turned
from rlaif.starter.responses import Response, WorldPair
from rlaif.starter.tokens import ASSISTANT, CHOOSE, END, JUDGE, USER
from rlaif.starter.world import texts
from rlaif.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORE = -100
# What the auxiliary heads tell of a response: every family but length, which is told of the pair.
MARKED = tuple(name for name in NAMES if name != "length")
GUIDES = ("parts", "marks", "lengths", "wants", "bases", "turns", "copies", "requests", "tongues", "lists")
LOOKS = ("principle", "a", "b", "better", "same", "again")
TONGUES = ("English", *texts()["languages"])
REQUESTS = ("", "list", "plain", *TONGUES)


@dataclass
class Row:
    """One row of a batch.

    Attributes:
        weight: of its tokens in the loss.
        segments: 0 for the prefix, then 1, 2, … for the branches; a branch sees the prefix and itself.
        targets: the next token where it is to be learned, else `IGNORE`.
        marks: (place, 1/0/IGNORE for each of `MARKED`) at the end of each response.
        parts: (place, 1/0 for each of `MARKED`) at the end of each sentence of a response.
        copies: (place, [is in the conversation too, ends three tokens that this response had before]) at each token of
            a response: matching is what a small model learns last when it is only told the outcome.
        lengths: (place, 0 A longer, 1 B longer, 2 as long) at the end of response B.
        wants: (place, 2 * family + present) at the end of each principle.
        bases: the same without its negations, and turns: whether they turn it round.
        looks: (place, what is looked for, places where it is found): before each word that has to be decided; and from
            each token of a response to the `same` one in the conversation, and to where it stood before `again`.
        requests, tongues, lists: (place, number) at the ends of sentences and responses: what form or language is asked
            for, which language it is, and whether it is a list.
    """

    weight: float = 1.0
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    marks: list[tuple[int, list[int]]] = field(default_factory=list)
    parts: list[tuple[int, list[int]]] = field(default_factory=list)
    copies: list[tuple[int, list[int]]] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    wants: list[tuple[int, int]] = field(default_factory=list)
    bases: list[tuple[int, int]] = field(default_factory=list)
    turns: list[tuple[int, int]] = field(default_factory=list)
    looks: list[tuple[int, str, tuple[int, ...]]] = field(default_factory=list)
    requests: list[tuple[int, int]] = field(default_factory=list)
    tongues: list[tuple[int, int]] = field(default_factory=list)
    lists: list[tuple[int, int]] = field(default_factory=list)

    def tells(self, place: int, pair: WorldPair, response: Response) -> None:
        """Note what was asked for, and the language, where a response or a sentence of it ends."""
        self.requests.append((place, REQUESTS.index(pair.scene.request)))
        self.tongues.append((place, TONGUES.index(response.language)))

    def asks(self, place: int, principle: Principle, text: str) -> None:
        """Note what a principle that ends here asks for."""
        turned = is_turned(text)
        self.wants.append((place, 2 * NAMES.index(principle.family) + int(principle.present)))
        self.bases.append((place, 2 * NAMES.index(principle.family) + int(principle.present != turned)))
        self.turns.append((place, int(turned)))

    def add(self, ids: Sequence[int], segment: int, position: int, *, learn: bool = False) -> int:
        """Append tokens, with `learn` each as the target of the one before it; returns the position after."""
        if learn:
            for place, token in enumerate(ids):
                self.targets[-1] = token
                self.targets.append(IGNORE)
                self.ids.append(token)
                self.segments.append(segment)
                self.positions.append(position + place)
        else:
            self.ids.extend(ids)
            self.targets.extend([IGNORE] * len(ids))
            self.segments.extend([segment] * len(ids))
            self.positions.extend(range(position, position + len(ids)))
        return position + len(ids)


class Encoder:
    """Encodes pairs and conversations as the engines would.

    No token spans a line break, so lines are encoded one by one and remembered.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: Template) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._lines: dict[str, list[int]] = {}
        self._newline = self._encode("\n")
        self._special = {token: self._encode(token) for token in (USER, ASSISTANT, END, JUDGE, CHOOSE)}

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def text(self, text: str) -> list[int]:
        """Encode a text without special tokens."""
        ids: list[int] = []
        for number, line in enumerate(text.split("\n")):
            ids += self._newline if number else []
            if line not in self._lines:
                if len(self._lines) > 100_000:
                    self._lines.clear()
                self._lines[line] = self._encode(line) if line else []
            ids += self._lines[line]
        return ids

    def judged(self, pair: WorldPair, questions: Iterable[Question], verdicts: Iterable[str], *, reason: bool) -> Row:
        """A pair and questions about it, each with its answer: a verdict, and with `reason` a rationale before it."""
        row = Row()
        quoted = self._template.pair(pair.pair("0"))
        at = row.add(self._special[JUDGE if reason else CHOOSE] + self._special[USER], 0, 0)
        left: list[tuple[str, frozenset[str]]] = []
        conversation: dict[int, list[int]] = {}
        begin = 0
        telling = pair.a
        for line in quoted.split("\n"):
            start = len(row.ids)
            at = row.add(self.text(line), 0, at)
            for response, letter in ((pair.a, "A"), (pair.b, "B")):
                if line.endswith(f" response {letter}]") and " end of " not in line:
                    left, telling = list(response.parts), response
                    for place, token in enumerate(row.ids if not conversation else ()):
                        conversation.setdefault(token, []).append(place)
                    begin = len(row.ids)
                elif line.endswith(f" end of response {letter}]"):
                    marks = [
                        IGNORE if response.marks[name] is None else int(bool(response.marks[name])) for name in MARKED
                    ]
                    _tell_copies(row, begin, start, conversation)
                    row.marks.append((len(row.ids) - 1, marks))
                    row.tells(len(row.ids) - 1, pair, response)
                    row.lists.append((len(row.ids) - 1, int(response.listed)))
            found = 0
            while left and (place := line.find(left[0][0], found)) >= 0:
                sentence, families = left.pop(0)
                found = place + len(sentence)
                end = start + len(self.text(line[:found])) - 1
                row.parts.append((end, [int(name in families) for name in MARKED]))
                row.tells(end, pair, telling)
            at = row.add(self._newline, 0, at)
        longer = pair.marks("length")
        if None not in longer:
            row.lengths.append((row.marks[-1][0], 0 if longer[0] else 1 if longer[1] else 2))
        at = row.add(self._newline, 0, at)
        for segment, (question, verdict) in enumerate(zip(questions, verdicts, strict=True), 1):
            self._branch(row, question, verdict, segment, at, reason=reason)
        return row

    def _branch(self, row: Row, question: Question, verdict: str, segment: int, at: int, *, reason: bool) -> None:
        asked = self._template.objective("", question.question, question.texts)
        # The last lines are the principles, one each.
        lines = asked.split("\n")
        first = len(lines) - len(question.principles)
        ends = []
        for number, line in enumerate(lines):
            at = row.add((self._newline if number else []) + self.text(line), segment, at)
            if number >= first:
                principle = question.principles[number - first]
                ends.append(len(row.ids) - 1)
                row.asks(ends[-1], principle, question.texts[number - first])
        at = row.add(self._special[END] + self._special[ASSISTANT], segment, at)
        marker = self._template.head.verdict
        if reason:
            at = self._reasoned(row, question.pieces, ends, segment, at)
            at = row.add(self.text(before_verdict(".", marker).removeprefix(".")), segment, at, learn=True)
        else:
            at = row.add(self.text(marker), segment, at)
        row.add(self.text(f" {verdict}") + self._special[END], segment, at, learn=True)

    def _reasoned(self, row: Row, pieces: Iterable[Piece], ends: Sequence[int], segment: int, at: int) -> int:
        answers: list[int] = []
        for piece in pieces:
            at = row.add(self.text(piece.text), segment, at, learn=True)
            if piece.look:
                place = len(row.ids) - 1
                found = tuple(answers[-2:]) if piece.look.where == "better" else _found(row, piece.look, ends)
                row.looks.append((place, piece.look.where, found))
                if piece.look.where in ("a", "b"):
                    # The word that comes next tells.
                    answers.append(place + 1)
        return at

    def drilled(self, principles: Iterable[tuple[Principle, str]]) -> Row:
        """Principles without a pair, side by side: the answer only restates what each asks for."""
        row = Row()
        opener = self._special[JUDGE] + self._special[USER]
        for segment, (principle, text) in enumerate(principles, 1):
            at = row.add(
                opener + self.text(self._template.objective("", "Which response is better?", (text,))), segment, 0
            )
            end = len(row.ids) - 1
            row.asks(end, principle, text)
            at = row.add(self._special[END] + self._special[ASSISTANT], segment, at)
            self._reasoned(row, restated(principle), [end], segment, at)
        return row

    def answered(self, conversations: Iterable[tuple[Sequence[Message], str]]) -> Row:
        """Conversations with an answer to each, side by side in one row.

        Most of what an answer says is free, so that its loss never ends: it must not drown the few tokens of a
        judge's answer that matter.
        """
        row = Row(weight=0.1)
        for segment, (prompt, answer) in enumerate(conversations, 1):
            at = 0
            for turn in prompt:
                opener = self._special[USER if turn.role == "user" else ASSISTANT]
                at = row.add(opener + self.text(turn.content) + self._special[END], segment, at)
            at = row.add(self._special[ASSISTANT], segment, at)
            row.add(self.text(answer) + self._special[END], segment, at, learn=True)
        return row


def _tell_copies(row: Row, begin: int, end: int, conversation: dict[int, list[int]]) -> None:
    """Note of each token of a response where else it stands; at the row's first token where nowhere."""
    seen: dict[tuple[int, ...], list[int]] = {}
    for place in range(begin, end):
        three = tuple(row.ids[max(begin, place - 2) : place + 1])
        asked, said = conversation.get(row.ids[place], []), seen.setdefault(three, [])
        row.copies.append((place, [int(bool(asked)), int(bool(said))]))
        row.looks.append((place, "same", tuple(asked) or (0,)))
        row.looks.append((place, "again", tuple(said) or (0,)))
        said.append(place)


def _found(row: Row, look: Look, ends: Sequence[int]) -> tuple[int, ...]:
    """A principle's end; the ends of a response's sentences that have a feature, or the response's own end."""
    if look.where == "principle":
        return (ends[int(look.what)],)
    (end_a, _), (end_b, _) = row.marks
    begin, end = (0, end_a) if look.where == "a" else (end_a, end_b)
    if look.what == "length":
        return (end_b,)
    family = MARKED.index(str(look.what))
    return tuple(place for place, has in row.parts if begin < place < end and has[family]) or (end,)
