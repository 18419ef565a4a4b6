"""What shapes were built of inputs whose dimensions the model leaves open, and who chose them."""

from __future__ import annotations

from bisect_trt.model.graph import is_static
from bisect_trt.model.load import LoadedModel
from bisect_trt.options import shape_text
from bisect_trt.session.samples import Samples, graph_inputs
from bisect_trt.settings import Settings
from bisect_trt.writing.text import printable, some_names

_SHOWN_INPUTS = 4  # inputs


def shape_notes(
    loaded: LoadedModel, samples: Samples, settings: Settings
) -> list[str]:
    """Return a sentence for a model with dynamic dimensions, as `--help` of `--shapes` writes them.

    Else nothing.
    """
    given = dict(settings.target.shapes) | dict(settings.target.opt_shapes)
    found, chosen = [], []
    for item in graph_inputs(loaded.proto):
        shape = samples[0][item.name].shape
        if is_static(item.dims) or settings.run.anonymise:
            continue
        found.append(f"{printable(item.name)}:{shape_text(shape)}")
        if settings.run.inputs is None and item.name not in given:
            chosen += [str(dim) for dim in item.dims or () if isinstance(dim, str)] or ["unnamed"]
    if not found:
        return []
    said = f"Shapes: {some_names(found, _SHOWN_INPUTS)}."
    if chosen:
        names = printable(", ".join(dict.fromkeys(chosen)))
        said += f" Dynamic dimensions ({names}) were chosen here: give yours with --shapes or --inputs."
    return [said]
