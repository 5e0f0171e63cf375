"""Messages to token ids through a model's own chat template, and the spellings of a choice in its vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rlaif.engines.logprobs import longer_choices
from rlaif.errors import InputError, RunError
from rlaif.prompts import BREAK, break_up
from rlaif.types import JudgeRequest, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
# A chat template ends a prompt with a few words after its last special token.
_NEAR_CHARS = 200
_BREAKS = (BREAK, "\u2060", " ")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
# White space that a vocabulary may join to a choice.
SPACES = ("", " ", "\t", "\n", "  ", "\n\n")


def is_thinking(text: str, opened: bool = False) -> bool:
    """Tell whether a text ends inside a thought; `opened` when the prompt itself opened one."""
    start, end = text.rfind(THINK_OPEN), text.rfind(THINK_CLOSE)
    return start > end if start >= 0 else opened and end < 0


def with_thought(text: str, opened: bool) -> str:
    """The text with the `<think>` that the prompt gave it: what a model thought can then be told from what it said."""
    return f"{THINK_OPEN}\n{text.lstrip()}" if opened and not text.lstrip().startswith(THINK_OPEN) else text


def before_verdict(rationale: str, marker: str, *, thought_opened: bool = False) -> str:
    """The judge's turn up to the place where a choice is read: its rationale, then the marker.

    Depends on the text alone, so that a recorded rationale is read the same way again. A thought that was cut off is
    closed first: a verdict is read from the answer, never from inside a thought.
    """
    if is_thinking(rationale, thought_opened):
        rationale = f"{rationale.rstrip()}\n{THINK_CLOSE}"
    body = rationale.rstrip()
    return f"{body}\n\n{marker}" if body else marker


def cut_at_verdict(text: str, marker: str, *, thought_opened: bool = False) -> tuple[str, bool]:
    """Cut a judge's text at the first marker outside its thoughts; also tell whether there was one."""
    # A thought may end that no `<think>` in the text began: then the prompt opened it.
    opened = thought_opened or THINK_CLOSE in text.partition(THINK_OPEN)[0]
    place = text.find(marker)
    while place >= 0 and is_thinking(text[:place], opened):
        place = text.find(marker, place + 1)
    return (text[:place], True) if place >= 0 else (text, False)


class LongerChoices(NamedTuple):
    """Choices that a vocabulary writes as a shorter one and one more token: `10` as `1` and `0`.

    `token` is the shorter choice's; `rests` holds the token that follows it, by longer choice.
    """

    first: str
    token: int
    rests: Mapping[str, int]


class Spellings(NamedTuple):
    """How a vocabulary writes the choices: the single tokens of each, and those that take two tokens."""

    tokens: Mapping[str, Sequence[int]]
    longer: tuple[LongerChoices, ...]

    @property
    def steps(self) -> int:
        """Tokens that are read one after the other to know every choice."""
        return 2 if self.longer else 1


class RefusedMessages(RunError):
    """A chat template does not take a conversation."""


class ChatTokenizer:
    """A tokenizer with its chat template, as the judge protocol needs it.

    Args:
        tokenizer: of the judge.
        max_length: most tokens the model takes, prompt and answer together.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._has_template = bool(getattr(tokenizer, "chat_template", None))
        # A word that was added to the vocabulary is text; a token of a format has a sign in it, or is special.
        added = {token for token in tokenizer.get_added_vocab() if not token.isalnum()}
        special = added | set(tokenizer.all_special_tokens)
        tokens = sorted((re.escape(token) for token in special if token.strip()), key=len, reverse=True)
        self._special = re.compile("|".join(tokens)) if tokens else None
        self._think = {THINK_OPEN, THINK_CLOSE}
        unseen = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        # Where a thought ends decides where a verdict is read, so its tokens are seen even if they are special.
        self.special_thoughts = not self._think.isdisjoint(unseen.values())
        self._unseen = {i for i, token in unseen.items() if token not in self._think}
        self._break = self._find_break(special)
        self._takes = {role: self._probe(role) for role in ("system", "developer")}
        self._choice_ids: dict[str, list[int]] = {}
        self._spellings: dict[tuple[str, tuple[str, ...]], Spellings] = {}
        self._tail_ids: dict[str, list[int]] = {}
        longest = max((len(token) for token in tokenizer.get_vocab()), default=1)
        self._most_chars = self.max_length * longest

    @classmethod
    def load(cls, model: str, max_length: int | None, **options: Any) -> ChatTokenizer:
        """Load a model's tokenizer without its weights.

        Raises:
            InputError: the folder or hub model has no usable tokenizer.
        """
        from transformers import AutoConfig, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model, **options)
            config = AutoConfig.from_pretrained(model, **options)
        except Exception as error:
            fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"{model}: the tokenizer cannot be loaded ({fact}); give a model folder or hub id."
            ) from None
        text_config = config.get_text_config()
        limits = [max_length, getattr(text_config, "max_position_embeddings", None)]
        limits.append(tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None)
        return cls(tokenizer, min((limit for limit in limits if limit), default=4096))

    def _find_break(self, special: set[str]) -> str:
        # Some tokenizers drop invisible characters before they look for special tokens: take a break that holds.
        ids = {self.tokenizer.convert_tokens_to_ids(token) for token in special}
        for candidate in _BREAKS:
            broken = [token[0] + candidate + token[1:] for token in special if len(token) > 1]
            if not any(ids.intersection(self._encode(text)) - self._unknown() for text in broken):
                return candidate
        return " "

    def _unknown(self) -> set[int]:
        unknown = self.tokenizer.unk_token_id
        return {cast("int", unknown)} if unknown is not None else set()

    def neutral(self, text: str, *, keep_thinking: bool = False) -> str:
        """Break up this tokenizer's special tokens where a text spells them out."""
        if self._special is None:
            return text
        if self._break != BREAK:
            # The tokenizer drops invisible characters, and with them what would break a token up.
            text = _INVISIBLE.sub(self._break, text)

        def broken(match: re.Match[str]) -> str:
            token = match.group()
            if keep_thinking and token in self._think:
                return token
            if len(token) == 1:
                return self._break
            return break_up(match) if self._break == BREAK else token[0] + self._break + token[1:]

        return self._special.sub(broken, text)

    def _probe(self, role: str) -> bool:
        probe = [{"role": role, "content": "rlaif-probe"}, {"role": "user", "content": "hello"}]
        if not self._has_template:
            return False
        try:
            return "rlaif-probe" in self._apply(probe)
        except Exception:
            # Templates without such a role raise their own errors.
            return False

    def _apply(self, messages: list[dict[str, str]], **options: Any) -> str:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        return cast("str", text)

    def turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Messages as the chat template takes them: special tokens broken up, and roles that it knows."""
        turns = [{"role": turn.role, "content": self.neutral(turn.content)} for turn in messages]
        if turns[0]["role"] == "developer" and not self._takes["developer"]:
            turns[0]["role"] = "system"
        if len(turns) > 1 and not self._takes.get(turns[0]["role"], True):
            system, first, *rest = turns
            turns = [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        return turns

    def prompt_text(self, messages: Sequence[Message], *, thinking: bool = True) -> str:
        """Render messages up to where the assistant's turn begins.

        `thinking=False` asks templates that have the switch for an answer without a thought.

        Raises:
            RefusedMessages: the template takes no such conversation.
        """
        turns = self.turns(messages)
        if not self._has_template:
            bos = self.tokenizer.bos_token
            return (bos if isinstance(bos, str) else "") + "".join(f"{turn['content']}\n\n" for turn in turns)
        try:
            return self._apply(turns) if thinking else self._apply(turns, enable_thinking=False)
        except Exception as error:
            fact = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RefusedMessages(f"the chat template refuses the messages ({fact}); use a chat model.") from None

    def request_text(self, request: JudgeRequest) -> str:
        """Render a request's prompt; a given rationale is read without a thought before it."""
        return self.prompt_text(request.messages, thinking=request.rationale is None)

    def verdict_text(self, request: JudgeRequest, prompt: str, rationale: str) -> str:
        """Continue `prompt` to the place where the choice is read."""
        own = self.neutral(rationale, keep_thinking=True)
        opened = prompt.rstrip().endswith(THINK_OPEN)
        return prompt + before_verdict(own, request.verdict_prefix, thought_opened=opened)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode rendered texts, special tokens in them included, none added."""
        if not texts:
            return []
        # A text that cannot fit is not worth minutes of tokenizing: one id too many says as much.
        fits = [text if len(text) <= self._most_chars else "" for text in texts]
        encoded = self.tokenizer(fits, add_special_tokens=False)["input_ids"]
        too_long = [0] * (self.max_length + 1)
        return [
            ids if text or not original else too_long for ids, text, original in zip(encoded, fits, texts, strict=True)
        ]

    def encode_on(self, prompt: str, prompt_ids: list[int], text: str) -> list[int]:
        """Encode `text`, which goes on from `prompt`, without tokenizing the whole prompt again.

        No token spans a special token, so the ids before the prompt's last one stay as they are.
        """
        near = max(0, len(prompt) - _NEAR_CHARS)
        found = [match.start() for match in self._special.finditer(prompt, near)] if self._special else []
        if not found:
            return self.encode([text])[0]
        tail = prompt[found[-1] :]
        if tail not in self._tail_ids:
            self._tail_ids[tail] = self._encode(tail)
        known = self._tail_ids[tail]
        if not known or prompt_ids[-len(known) :] != known:
            return self.encode([text])[0]
        return [*prompt_ids[: -len(known)], *self.encode([text[found[-1] :]])[0]]

    def _encode(self, text: str) -> list[int]:
        return cast("list[int]", self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Decode ids to text, `skip_special` without the special tokens but those of thoughts."""
        shown = [i for i in ids if i not in self._unseen] if skip_special else list(ids)
        return cast("str", self.tokenizer.decode(shown))

    def choice_ids(self, choice: str) -> list[int]:
        """Ids of every token that spells a choice, white space aside (`A` and ` A`).

        Raises:
            RunError: no single token does.
        """
        found = self._single_tokens(choice)
        if not found:
            raise RunError(
                f"the judge's vocabulary has no single token for the choice {choice!r}; use another template."
            )
        return found

    def _single_tokens(self, choice: str) -> list[int]:
        if choice not in self._choice_ids:
            special = {*self.tokenizer.all_special_ids, *self._unseen}
            near = {
                i
                for token, i in self.tokenizer.get_vocab().items()
                if choice in token and len(token) <= len(choice) + 8
            }
            # A byte-level vocabulary writes letters beyond ASCII in its own way: those are found by encoding.
            near.update(i for space in SPACES for i in self._encode(space + choice))
            found = [i for i in near if i not in special and self.decode([i]).strip() == choice]
            self._choice_ids[choice] = sorted(found)
        return self._choice_ids[choice]

    def spellings(self, marker: str, choices: tuple[str, ...]) -> Spellings:
        """How each choice is written after the marker.

        As the tokenizer itself writes it: where it splits numbers into digits, `10` is `1` and `0`, and where it does
        not, `10` is one token and `1` followed by `0` is not looked for.

        Raises:
            RunError: a choice is neither a single token nor another choice and one more.
        """
        if (marker, choices) not in self._spellings:
            tokens = {choice: self._single_tokens(choice) for choice in choices}
            longer = []
            for first, others in longer_choices(choices).items():
                begun = self._encode(marker + first)
                if not begun or begun[-1] not in tokens[first]:
                    continue
                whole = {choice: self._encode(marker + choice) for choice in others}
                rests = {choice: ids[-1] for choice, ids in whole.items() if ids[:-1] == begun}
                if rests:
                    longer.append(LongerChoices(first, begun[-1], rests))
            split = {choice for one in longer for choice in one.rests}
            single = {choice: tokens[choice] or self.choice_ids(choice) for choice in choices if choice not in split}
            both = {choice: tokens[choice] for choice in split if tokens[choice]}
            self._spellings[marker, choices] = Spellings(single | both, tuple(longer))
        return self._spellings[marker, choices]

    def too_long(self, tokens: int, wanted: int) -> str | None:
        """Say why a prompt does not fit; `None` when it does with `wanted` tokens to come."""
        if tokens + wanted <= self.max_length:
            return None
        count = self._count(tokens)
        return f"the prompt has {count} tokens and needs {wanted:,} more; the judge takes {self.max_length:,}"

    def _count(self, tokens: int) -> str:
        return f"over {self.max_length:,}" if tokens > self.max_length else f"{tokens:,}"
