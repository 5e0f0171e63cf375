"""Token sequences for training: what is quoted as a shared prefix, then several questions about it as branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from rlaif.engines.chat import before_verdict
from rlaif.prompts import Kind, Template
from rlaif.starter.families import NAMES
from rlaif.starter.judging import Look, Piece, Principle, Question, restated
from rlaif.starter.negation import is_turned
from rlaif.starter.responses import Response, WorldPair
from rlaif.starter.scenes import Scene
from rlaif.starter.tokens import ASSISTANT, CHOOSE, CRITIQUE, END, JUDGE, RATE, REVISE, USER
from rlaif.starter.world import texts
from rlaif.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORE = -100
# What the auxiliary heads tell of a response: every family but length, which is told of the pair.
MARKED = tuple(name for name in NAMES if name != "length")
GUIDES = (
    "parts",
    "late_parts",
    "marks",
    "sides",
    "lengths",
    "wants",
    "bases",
    "turns",
    "copies",
    "requests",
    "tongues",
    "lists",
)
LOOKS = ("principle", "a", "b", "better", "same", "again", "a at once", "b at once", "copy")
# Which response a principle prefers.
SIDES = ("A", "B", "both are equal")
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
        parts: (place, 1/0 for each of `MARKED`) at the end of each sentence of a response, twice on the way.
        sides: (place, number in `SIDES`) at the end of each principle: what a verdict without a rationale needs.
        copies: (place, [is in the conversation too, ends three tokens that this response had before]) at each token of
            a response: matching is what a small model learns last when it is only told the outcome.
        lengths: (place, 0 A longer, 1 B longer, 2 as long) at the end of response B.
        wants: (place, 2 * family + present) at the end of each principle.
        bases: the same without its negations, and turns: whether they turn it round.
        looks: (place, what is looked for, places where it is found): before each word that has to be decided; and from
            each token of a response to the `same` one in the conversation, and to where it stood before `again`; from a
            principle to what decides it `at once`; and from each token of a revision to the next one, where it is a
            `copy`.
        requests, tongues, lists: (place, number) at the ends of sentences and responses: what form or language is asked
            for, which language it is, and whether it is a list.
    """

    weight: float = 1.0
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    marks: list[tuple[int, list[int]]] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)
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

    @property
    def late_parts(self) -> list[tuple[int, list[int]]]:
        """The parts again, for the layer that is looked at."""
        return self.parts

    def tells(self, place: int, scene: Scene, response: Response) -> None:
        """Note what was asked for, and the language, where a response or a sentence of it ends."""
        self.requests.append((place, REQUESTS.index(scene.request)))
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

    def __init__(self, tokenizer: PreTrainedTokenizerFast, templates: Mapping[Kind, Template]) -> None:
        self._tokenizer = tokenizer
        self._templates = templates
        self._lines: dict[str, list[int]] = {}
        self._newline = self._encode("\n")
        tokens = (USER, ASSISTANT, END, JUDGE, CHOOSE, RATE, CRITIQUE, REVISE)
        self._special = {token: self._encode(token) for token in tokens}

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
        template = self._templates["comparison"]
        at = row.add(self._special[JUDGE if reason else CHOOSE] + self._special[USER], 0, 0)
        at = self._quote(row, template.pair(pair.pair("0")), pair.scene, (pair.a, pair.b), at)
        longer = pair.marks("length")
        if None not in longer:
            row.lengths.append((row.marks[-1][0], 0 if longer[0] else 1 if longer[1] else 2))
        for segment, (question, verdict) in enumerate(zip(questions, verdicts, strict=True), 1):
            asked = template.objective("", question.question, question.texts)
            branch, ends = self._asked(row, asked, question.principles, question.texts, segment, at)
            for principle, end in zip(question.principles, ends, strict=True):
                a, b = pair.marks(principle.family)
                if a is not None and b is not None:
                    row.sides.append((end, 2 if a == b else int(a != principle.present)))
                for side in ("a", "b"):
                    row.looks.append((end, f"{side} at once", _found(row, Look(side, principle.family), ends)))
            branch = row.add(self._special[END] + self._special[ASSISTANT], segment, branch)
            marker = template.head.verdict
            if reason:
                branch = self._reasoned(row, question.pieces, ends, segment, branch)
                branch = self._marked(row, marker, segment, branch)
            else:
                branch = row.add(self.text(marker), segment, branch)
            row.add(self.text(f" {verdict}") + self._special[END], segment, branch, learn=True)
        return row

    def rated(self, scene: Scene, response: Response, asked: Iterable[tuple[Question, Sequence[Piece], int]]) -> Row:
        """A response by itself, and questions with what is said of it and its rating."""
        row = Row()
        template = self._templates["rating"]
        at = row.add(self._special[RATE] + self._special[USER], 0, 0)
        at = self._quote(row, template.response(scene.prompt, response.text), scene, (response,), at)
        for segment, (question, pieces, rating) in enumerate(asked, 1):
            text = template.objective("", question.question, question.texts)
            branch, ends = self._asked(row, text, question.principles, question.texts, segment, at)
            branch = row.add(self._special[END] + self._special[ASSISTANT], segment, branch)
            branch = self._reasoned(row, pieces, ends, segment, branch)
            branch = self._marked(row, template.head.verdict, segment, branch)
            row.add(self.text(f"{rating}]") + self._special[END], segment, branch, learn=True)
        return row

    def criticised(
        self, scene: Scene, response: Response, asked: Iterable[tuple[Principle, str, Sequence[Piece]]]
    ) -> Row:
        """A response and principles in words, each with its critique."""
        row = Row()
        at = row.add(self._special[CRITIQUE] + self._special[USER], 0, 0)
        for segment, (principle, text, pieces) in enumerate(asked, 1):
            quoted, request = self._halves("critique", scene, response, text)
            if segment == 1:
                at = self._quote(row, quoted, scene, (response,), at)
            branch, ends = self._asked(row, request, (principle,), (text,), segment, at)
            branch = row.add(self._special[END] + self._special[ASSISTANT], segment, branch)
            self._reasoned(row, pieces, ends, segment, branch)
            row.add(self._special[END], segment, 1 + row.positions[-1], learn=True)
        return row

    def revised(self, scene: Scene, response: Response, asked: Iterable[tuple[str, str, Response]]) -> Row:
        """A response and principles in words, each with its critique and the response put right."""
        row = Row()
        at = row.add(self._special[REVISE] + self._special[USER], 0, 0)
        for segment, (text, critique, better) in enumerate(asked, 1):
            quoted, request = self._halves("revision", scene, response, text, critique)
            if segment == 1:
                at = self._quote(row, quoted, scene, (response,), at)
            branch = row.add(self.text(request), segment, at)
            branch = row.add(self._special[END] + self._special[ASSISTANT], segment, branch)
            begin = len(row.ids)
            row.add(self.text(better.text) + self._special[END], segment, branch, learn=True)
            _tell_copied(row, begin)
        return row

    def _halves(self, kind: Kind, scene: Scene, response: Response, *asked: str) -> tuple[str, str]:
        """What is quoted, and what is asked."""
        template = self._templates[kind]
        whole = template.request(scene.prompt, response.text, *asked)[-1].content
        quoted = template.response(scene.prompt, response.text)
        return quoted, whole.removeprefix(f"{quoted}\n\n")

    def _quote(self, row: Row, quoted: str, scene: Scene, responses: Sequence[Response], at: int) -> int:
        """Add the conversation and the responses, with what is worth knowing at each place."""
        labels = [" response A]", " response B]"] if len(responses) == 2 else [" response]"]
        shown = dict(zip(labels, responses, strict=True))
        left: list[tuple[str, frozenset[str]]] = []
        conversation: dict[int, list[int]] = {}
        begin = 0
        telling = responses[0]
        for line in quoted.split("\n"):
            start = len(row.ids)
            at = row.add(self.text(line), 0, at)
            for label, response in shown.items():
                if line.endswith(label) and " end of " not in line:
                    left, telling = list(response.parts), response
                    for place, token in enumerate(row.ids if not conversation else ()):
                        conversation.setdefault(token, []).append(place)
                    begin = len(row.ids)
                elif line.endswith(f" end of{label}"):
                    marks = [
                        IGNORE if response.marks[name] is None else int(bool(response.marks[name])) for name in MARKED
                    ]
                    _tell_copies(row, begin, start, conversation)
                    row.marks.append((len(row.ids) - 1, marks))
                    row.tells(len(row.ids) - 1, scene, response)
                    row.lists.append((len(row.ids) - 1, int(response.listed)))
            found = 0
            while left and (place := line.find(left[0][0], found)) >= 0:
                sentence, families = left.pop(0)
                found = place + len(sentence)
                end = start + len(self.text(line[:found])) - 1
                row.parts.append((end, [int(name in families) for name in MARKED]))
                row.tells(end, scene, telling)
            at = row.add(self._newline, 0, at)
        return row.add(self._newline, 0, at)

    def _asked(
        self, row: Row, asked: str, principles: Sequence[Principle], texts: Sequence[str], segment: int, at: int
    ) -> tuple[int, list[int]]:
        """Add what is asked, whose last lines are the principles; the position after, and where each principle ends."""
        lines = asked.split("\n")
        first = len(lines) - len(principles)
        ends = []
        for number, line in enumerate(lines):
            at = row.add((self._newline if number else []) + self.text(line), segment, at)
            if number >= first:
                ends.append(len(row.ids) - 1)
                row.asks(ends[-1], principles[number - first], texts[number - first])
        return at, ends

    def _marked(self, row: Row, marker: str, segment: int, at: int) -> int:
        return row.add(self.text(before_verdict(".", marker).removeprefix(".")), segment, at, learn=True)

    def _reasoned(self, row: Row, pieces: Iterable[Piece], ends: Sequence[int], segment: int, at: int) -> int:
        answers: list[int] = []
        for piece in pieces:
            begin = len(row.ids)
            at = row.add(self.text(piece.text), segment, at, learn=True)
            if piece.quoted:
                _tell_copied(row, begin)
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
        template = self._templates["comparison"]
        for segment, (principle, text) in enumerate(principles, 1):
            at = row.add(opener + self.text(template.objective("", "Which response is better?", (text,))), segment, 0)
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
    end_a, end_b = row.marks[0][0], row.marks[-1][0]
    begin, end = (0, end_a) if look.where == "a" else (end_a, end_b)
    if look.what == "length":
        return (end_b,)
    family = MARKED.index(str(look.what))
    return tuple(place for place, has in row.parts if begin < place < end and has[family]) or (end,)


def _tell_copied(row: Row, begin: int) -> None:
    """Note of each token of a revision that stands in the response too where that is."""
    first = next(place for place, segment in enumerate(row.segments) if segment == 0)
    end = row.marks[-1][0]
    matcher = SequenceMatcher(None, row.ids[first:end], row.ids[begin:], autojunk=False)
    for source, target, size in matcher.get_matching_blocks():
        if size < 3:
            continue
        row.looks.extend((begin + target + n - 1, "copy", (first + source + n,)) for n in range(size))
