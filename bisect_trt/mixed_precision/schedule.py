"""Which steps of a search run when, and how many questions each may ask."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from bisect_trt.errors import StoppedEarly
from bisect_trt.mixed_precision.answer import Keep
from bisect_trt.mixed_precision.exchange import exchanged
from bisect_trt.mixed_precision.improve import improve
from bisect_trt.mixed_precision.search import Ask, Hints, Search
from bisect_trt.writing.text import counted

Tell = Callable[[str], None]

ENOUGH = 94
"""Questions in all where nothing smaller can pass unless a node more in FP32 hurts; those of the written form
count, too. With the run of the reference, that for the ranges and the fresh ones a hundred runs suffice."""
PROOF = 500
"""Questions for a proof: what takes more does not end in one, as a rule."""
FEW_QUESTIONS = 40
"""Questions for improvements of the largest models."""
WRITTEN = 40
"""Questions that take as long as one of the written form."""
SHARES = (1.0, 0.5, 0.25)
"""Of the tolerance: for each of these an emulation finds a set, to be tried on a target."""
GROSS = 8.0
"""Tolerances: a node without which an emulation is that far off has to stay on a target, too, as a rule."""
BUILDS = 15
"""What a target is asked beside one question for each kept node, unless the user says how far to go."""
MORE = "the same command with --max-probes goes on"
LOOSE = 2.0
"""Times the error that is left in an emulation with all suspects in FP32: some of them may come to it."""


def effort(nodes: int, weights: int) -> int:
    """Questions that may be asked for improvements: what takes some seconds, the same on any machine.

    A question takes about as long for each node as for 20 kB of weights.
    """
    return max(FEW_QUESTIONS, min(4000, 900_000 // max(1, nodes + weights // 20_000)))


def cheap_questions(search: Search, weights: int, seed: int, tell: Tell) -> None:
    """List all steps, where a question costs milliseconds; `weights` are the bytes of the model."""
    most = effort(len(search.items), weights)
    tell("a first set that passes")
    with search.limited(ENOUGH):
        search.first()
    sums = True
    if not search.found.first:  # many nodes count, and to look for each of them takes long
        tell(f"{len(search.found.best)} nodes do; fewer of them, by what each rounding does alone")
        sums = exchanged(search, random.Random(seed), max(most, len(search.items)) - search.asked)
        if sums:
            search.finish()
            search.found.first, most = search.asked, max(FEW_QUESTIONS, most - search.asked)
        else:
            search.first()
    tell(f"{len(search.found.best)} nodes; is there anything smaller?")
    search.prove(min(PROOF, most // 3))
    # What a proof by monotony says is looked at a little more only.
    written = len(search.found.best) + 1  # by `agree`
    if search.settled:
        most = min(most, max(0, ENOUGH - search.asked - written))
    improve(search, most, seed, sums)
    search.finish()


def dear_questions(search: Search, tell: Tell, builds: Callable[[], int] | None = None) -> None:
    """Search for a 1-minimal set, where a question is a build; `builds` gives how many there were.

    Raises:
        StoppedEarly: where `builds` is given: there were `BUILDS` and one for each node that is kept.
    """

    def require(new: int) -> None:
        # Whatever passes is smaller, and so is what is allowed then; the last one of a proof hardly will.
        if builds and builds() + new + (search.unproven > 1) > BUILDS + len(search.found.best):
            left = counted(search.unproven, "node")
            spent = f"{BUILDS} builds and one for each kept node are used up"
            raise StoppedEarly(f"{spent}: not proven, {left} not asked alone; {MORE}")

    search.before = require
    tell("a first set that passes")
    search.first()
    search.finish()


def by_emulation(search: Search, passes: Callable[[Keep], bool], tell: Tell) -> Hints:
    """Give what cheap questions of an emulation say of the target, which `passes` asks whether a set does.

    Where the target loses as much as the emulation does, the emulation's set passes there, and all that is
    left to ask is whether each node of it can be spared. A target that loses more may take the set for a half
    or a quarter of the tolerance, which takes longer to find and is not looked for before. One that loses
    less, as it adds up in FP32, may need no more than what ranges condemn: that is tried before all else.
    """
    whole, low = search.answers([frozenset(search.items), frozenset()])
    if not whole.passes or low.passes:
        return search.hints
    tell("what an emulation says, before the target is asked")
    found = _among_suspects(search, passes)
    for share in () if found else SHARES:
        part = search.within(share)
        part.first()
        if share == 1:
            part.prove(ENOUGH)
            improve(part, max(0, ENOUGH - part.asked))
        part.finish()
        found.append(part.found.best)
        if passes(part.found.best):
            break
    last = max(found, key=len)
    harm = _harm(search, last)
    order = sorted(last, key=lambda item: (-harm[item], search.place[item]))
    hard = [item for item in order if harm[item] >= GROSS]
    if len(found) > 1 and passes(last) and not passes(found[0]):
        found = [*found[:-1], *_shorter(order, len(hard), passes), last]
    rest = [item for item in search.hints.rank if item not in last]
    starts = tuple(tuple(search.sorted(keep)) for keep in dict.fromkeys(found))
    return replace(
        search.hints, starts=starts, suspects=tuple(order), rank=(*order, *rest), hard=frozenset(hard)
    )


def _harm(search: Search, keep: Keep) -> dict[str, float]:
    """Give how far off outputs are with one of a set lowered, by node."""
    items = search.sorted(keep)
    answers = search.answers([keep - {item} for item in items])
    return {item: answer.error for item, answer in zip(items, answers, strict=True)}


def _shorter(order: Sequence[str], least: int, passes: Callable[[Keep], bool]) -> list[Keep]:
    """Give beginnings of a list that passes, asked for by halving: those that fail, then the shortest."""
    tried: dict[Keep, bool] = {}
    low, high = least, len(order)
    while low < high:
        middle = (low + high) // 2
        keep = frozenset(order[:middle])
        tried[keep] = passes(keep)
        low, high = (low, middle) if tried[keep] else (middle + 1, high)
    shortest = [keep for keep, passed in tried.items() if passed][-1:]
    return [*(keep for keep, passed in tried.items() if not passed), *shortest]


def _among_suspects(search: Search, passes: Callable[[Keep], bool]) -> list[Keep]:
    """Give what ranges condemn and the fewest of these that the emulation needs to be no further off.

    Nothing, where that is enough for the emulation, does not help it, or does not pass on the target.
    """
    suspects = frozenset(search.hints.suspects) & frozenset(search.items)
    all_of_them, none = search.answers([suspects, frozenset()])
    if all_of_them.passes or none.error <= LOOSE * all_of_them.error or not passes(suspects):
        return []
    part = search.within(LOOSE * all_of_them.error)
    part.minimal(part.sorted(suspects))
    part.finish()
    return [part.found.best, *([] if passes(part.found.best) else [suspects])]


def agree(search: Search, weights: int, written: Ask, tell: Tell) -> None:
    """Ask for the answers that matter once more, of the models that would be written; else begin again.

    To make each takes long: of a large model the one that will be written is asked for, and some or none of
    those with a node less.
    """
    best, most = search.found.best, effort(len(search.items), weights)
    asked: list[Keep] = [best]
    if most > FEW_QUESTIONS:
        asked += [best - {item} for item in search.sorted(best)[: most // WRITTEN]]
    answers = written([keep | search.always for keep in asked])
    if all(a.passes == search.known[keep].passes for keep, a in zip(asked, answers, strict=True)):
        return
    tell("again, by the models as they would be written")
    search.start_again(written)
    search.first()
    search.finish()
