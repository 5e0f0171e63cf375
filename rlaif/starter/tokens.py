"""The starter's tokenizer: byte-level BPE over the small world, and its chat template."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from rlaif.starter.families import FAMILIES, wordings
from rlaif.starter.judging import LEADS, ask, draw_principles
from rlaif.starter.responses import kinds_of, make_pair
from rlaif.starter.world import World, texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, SYSTEM, END, JUDGE, CHOOSE, RATE, CRITIQUE, REVISE = SPECIAL = (
    "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
    "<|judge|>", "<|choose|>", "<|rate|>", "<|critique|>", "<|revise|>",
)  # fmt: skip
VOCABULARY = 2560
# Instructions are one token here: what they ask for is what the starter was trained to do.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message.role == 'system' and 'Verdict:' in message.content %}"
    "{{- '<|judge|>' if 'step by step' in message.content else '<|choose|>' }}"
    "{%- elif message.role == 'system' and 'Rating: [' in message.content %}{{- '<|rate|>' }}"
    "{%- elif message.role == 'system' and 'You write a critique' in message.content %}{{- '<|critique|>' }}"
    "{%- elif message.role == 'system' and 'You rewrite a response' in message.content %}{{- '<|revise|>' }}"
    "{%- else %}{{- '<|' + message.role + '|>' + message.content + '<|end|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
# Marker lines of quoted parts carry eight hex digits, which say nothing to a model this small.
_FENCE_CODE = r"\[[0-9a-f]{8} "


class _Spelled(World):
    """A world whose open entities are partly spelled out, so that unseen ones look like seen ones."""

    def entity(self, kind: str) -> str:
        if kind == "place":
            return f"{self.entity('place_start')}\n{self.entity('place_end')}"
        if kind in ("topic", "thing", "person", "event", "valuable"):
            known = texts()["entities"][kind]["train"]
            return cast("str", self.rng.choice(known[: len(known) // 2]))
        return super().entity(kind)


def _corpus(pairs: int, template_texts: tuple[str, ...]) -> Iterator[str]:
    world = _Spelled("train", random.Random(0))
    for family in FAMILIES:
        for present in (False, True):
            for clause in wordings(family, present, "train"):
                yield from (world.fill(clause, {}) for _ in range(3))
    for side in LEADS.values():
        yield from (lead.format("") for lead in side for _ in range(5))
    families = list(FAMILIES)
    for number in range(pairs):
        family = families[number % len(families)]
        pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
        question = ask(world, pair, draw_principles(world, pair, "later"))
        yield from (turn.content for turn in pair.scene.prompt)
        yield from (pair.a.text, pair.b.text, question.question, question.rationale, *question.texts)
    for text in template_texts:
        yield from [text] * (pairs // 2)


def make_tokenizer(pairs: int = 6000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on text of the training split."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(Regex(_FENCE_CODE), "[")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    markers = (
        "[user]", "[assistant]", "[system]", "[end of conversation]", "[response A]", "[end of response A]",
        "[response B]", "[end of response B]", "Question:", "Verdict: A", "Verdict: B", "- ",
        "[response]", "[end of response]", "[critique]", "[end of critique]", "Principle: ", "Rating: [",
        "Rate this response by the same measure:", "The response does not. So this should change.",
        "So nothing needs to change.", "That counts for it.", "That counts against it.",
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(pairs, markers), trainer)
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=4096,
        additional_special_tokens=[token for token in SPECIAL if token not in (PAD, END)],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
