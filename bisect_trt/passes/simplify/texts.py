"""Texts that are values: none, else `s0`, `s1`, ... for those that differ."""

from __future__ import annotations

import numpy as np

from bisect_trt.model.edit import Draft
from bisect_trt.model.edit_texts import replace_texts
from bisect_trt.passes.simplify.propose import Edit, attempt, counted
from bisect_trt.problem import Problem


def simple_texts(problem: Problem) -> None:
    """Texts of tensors, inputs and attributes: empty, else `s0`, `s1`, ...; equal ones stay equal."""
    attempt(problem, (all_texts(numbered=numbered) for numbered in (False, True)))


def all_texts(*, numbered: bool) -> Edit:
    """The same for all texts at once, so that those that are equal stay equal."""

    def edit(draft: Draft) -> str:
        new: dict[str, str] = {}

        def give(text: str) -> str:
            return new.setdefault(text, f"s{len(new)}") if numbered else ""

        changed = replace_texts(draft.graph, give)
        for k, sample in enumerate(draft.samples):
            for name, array in list(sample.items()):
                if array.dtype.kind in "OU" and array.size:
                    made = np.array([give(str(item)) for item in array.flat], object).reshape(array.shape)
                    changed += int((made != array).sum())
                    draft.set_input(k, name, made)
        return f"{counted(changed, 'text')}: {'s0, s1, ...' if numbered else 'empty'}" if changed else ""

    return edit
