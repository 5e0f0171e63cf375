"""One response by itself: how it is rated, what a critique says of it, and the response with a fault put right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif.starter.judging import Look, Piece, Principle, restated
from rlaif.starter.responses import STYLES, Draft, Part, Response, finish
from rlaif.starter.scenes import Scene
from rlaif.starter.world import World, texts

# Sentences of these stand by themselves: they can be put in and taken out.
_ADDED = frozenset({*STYLES, "warning", "empathy"})
_MOST_QUOTED = 3


def keeps(response: Response, principle: Principle) -> bool:
    """Whether a response has what a principle asks for."""
    return response.marks[principle.family] == principle.present


def decided(response: Response) -> tuple[str, ...]:
    """Families that are certain of one response by itself: which of two is longer is no such thing."""
    return tuple(name for name, mark in response.marks.items() if mark is not None and name != "length")


def rated(response: Response, principles: Sequence[Principle]) -> tuple[tuple[Piece, ...], int]:
    """What a judge says of one response, and its rating from 1 to 10; each principle counts half of the one before."""
    pieces: list[Piece] = []
    share = 0.0
    for number, principle in enumerate(principles):
        kept = keeps(response, principle)
        pieces += [*restated(principle, number), *_finding(response, principle)]
        pieces += [Piece(" That counts", Look("better", 0)), Piece(" for it." if kept else " against it.")]
        share += kept * 0.5**number
    most = sum(0.5**number for number in range(len(principles)))
    return tuple(pieces), 1 + round(9 * share / most)


def criticised(response: Response, principle: Principle) -> tuple[Piece, ...]:
    """What a critique says: what is asked for, what the response does and in which words, and whether to change it."""
    kept = keeps(response, principle)
    asked, *rest = restated(principle)
    does, so = _finding(response, principle)
    words = faults(response, principle)
    return (
        Piece("Does it", asked.look),
        *rest,
        does,
        *((Piece(":"), *(Piece(f" {sentence}", quoted=True) for sentence in words)) if words else (so,)),
        Piece(" So", Look("better", 0)),
        Piece(" nothing needs to change." if kept else " this should change."),
    )


def faults(response: Response, principle: Principle) -> tuple[str, ...]:
    """The sentences with what a principle does not want, the first three; none where no sentence by itself has it."""
    if keeps(response, principle) or principle.present:
        return ()
    found = dict.fromkeys(sentence for sentence, families in response.parts if principle.family in families)
    return tuple(found)[:_MOST_QUOTED]


def dropped(scene: Scene, response: Response, sentence: str) -> Response | None:
    """The response without a sentence; `None` where nothing would be left. What it has after that is not looked at."""
    draft = response.draft
    assert draft is not None, "only a response that was made here can be mended"

    def rest(parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple(part for part in parts if part[0] != sentence)

    body = rest(draft.body)
    left = replace(
        draft, first=rest(draft.first), body=body, last=rest(draft.last), listed=draft.listed and len(body) > 1
    )
    return finish(scene, left) if left.parts else None


def garbled(world: World, scene: Scene, response: Response) -> Response:
    """The response with words put in that nobody knows, in sentences that nothing depends on: only to be copied."""
    draft = response.draft
    assert draft is not None, "only a response that was made here can be garbled"

    fixed = {*draft.core.sentences, *(sentence for sentence, families in draft.parts if families)}

    def odd(parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple((one if one in fixed else _with_odd_word(world, one), families) for one, families in parts)

    return finish(scene, replace(draft, first=odd(draft.first), body=odd(draft.body), last=odd(draft.last)))


def _with_odd_word(world: World, sentence: str) -> str:
    words = sentence.split(" ")
    place = world.rng.randrange(len(words))
    words[place] = world.invented_word() + words[place][len(words[place].rstrip(".,!?:;")) :]
    return " ".join(words)


def _finding(response: Response, principle: Principle) -> tuple[Piece, Piece]:
    has = response.marks[principle.family]
    return Piece(" The response does", Look("a", principle.family)), Piece("." if has else " not.")


def mended(world: World, scene: Scene, response: Response, principle: Principle) -> Response | None:
    """The response with one thing changed, so that it keeps a principle; itself where it does.

    `None` where nothing that can be said in the scene would do.
    """
    if keeps(response, principle):
        return response
    draft = response.draft
    assert draft is not None, "only a response that was made here can be mended"
    family = principle.family
    changed: Draft | None
    if family == "repetition":
        changed = _without(draft, family) if not principle.present else _said_twice(world, draft)
    elif family == "format":
        changed = replace(draft, listed=not draft.listed) if len(draft.body) > 1 else None
    elif family in _ADDED:
        changed = _with(world, scene, draft, family) if principle.present else _without(draft, family)
    else:
        changed = _other_core(world, scene, draft, principle)
    if changed is None or not changed.parts:
        return None
    made = finish(scene, changed)
    return made if keeps(made, principle) else None


def _without(draft: Draft, family: str) -> Draft:
    def rest(parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple(part for part in parts if family not in part[1])

    body = rest(draft.body)
    return replace(
        draft, styles=draft.styles - {family}, first=rest(draft.first), body=body, last=rest(draft.last),
        listed=draft.listed and len(body) > 1,
    )  # fmt: skip


def _with(world: World, scene: Scene, draft: Draft, family: str) -> Draft | None:
    if not draft.core.styled:
        return None
    part = (world.one_of(texts()["style"][family], scene.slots), frozenset({family}))
    return replace(draft, styles=draft.styles | {family}, last=(*draft.last, part))


def _said_twice(world: World, draft: Draft) -> Draft:
    sentence, said = world.rng.choice(draft.body)
    again = (sentence, said | {"repetition"})
    return replace(draft, styles=draft.styles | {"repetition"}, body=(*draft.body, again))


def _other_core(world: World, scene: Scene, draft: Draft, principle: Principle) -> Draft | None:
    cores = [make() for make in scene.cores.values()]
    # What an unnamed family finds in a core is absence; language alone is open there.
    fits = [core for core in cores if core.marks.get(principle.family, False) == principle.present]
    if not fits:
        return None
    core = world.rng.choice(fits)
    old = set(draft.core.sentences)
    if not core.styled:
        fresh = Draft(core, frozenset(), (), (), (), listed=False)
    else:
        kept = tuple(part for part in draft.body if part[0] not in old and "repetition" not in part[1])
        fresh = replace(draft, core=core, styles=draft.styles - {"repetition"}, body=kept)
    said = frozenset(name for name, mark in core.marks.items() if mark)
    body = (*((sentence, said) for sentence in core.sentences), *fresh.body)
    return replace(fresh, body=body, listed=fresh.listed and len(body) > 1)
