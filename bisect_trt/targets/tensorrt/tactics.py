"""Tactics: the kernels that a builder chooses from for each layer, and how the choice is taken from it.

TensorRT has an algorithm selector from 8.6 on and until 10; later releases have none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bisect_trt.errors import UsageError
from bisect_trt.targets.tensorrt import api

_BITS = 2**64 - 1  # numbers of tactics are signed in the algorithm selector and not in the engine inspector


def number(tactic: int) -> str:
    """Return the number of a tactic as the engine inspector writes it."""
    return f"0x{tactic & _BITS:016x}"


def choose(trt: Any, config: Any, *, among: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Have the builder choose, by `number`, among some tactics or without some, where a layer has such.

    Raises:
        UsageError: this TensorRT has no algorithm selector.
    """
    if not lets_choose(trt):
        title = f"TensorRT {trt.__version__}"
        raise UsageError(f"{title} has no algorithm selector", "TensorRT 8.6 to 10 have one.")

    base = trt.IAlgorithmSelector

    class Selector(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def select_algorithms(self, context: Any, choices: Sequence[Any]) -> list[int]:
            numbers = [number(one.algorithm_variant.tactic) for one in choices]
            left = [k for k, one in enumerate(numbers) if one not in without and (not among or one in among)]
            return left or list(range(len(choices)))

        def report_algorithms(self, contexts: Any, choices: Any) -> None:
            return None  # the engine inspector tells what was chosen, with names

    config.algorithm_selector = Selector()


def lets_choose(trt: Any) -> bool:
    """Return whether this TensorRT has an algorithm selector."""
    return not api.is_rtx(trt) and hasattr(trt, "IAlgorithmSelector")
