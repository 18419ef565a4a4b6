"""From `--shapes x:1..64x3x224x224` to the shapes of one size, and input values for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from bisect_trt.errors import UsageError
from bisect_trt.model.candidate import Feeds
from bisect_trt.model.load import LoadedModel
from bisect_trt.options.kinds import SPANS, Unreadable, spans_text
from bisect_trt.session.prepare import Session, kept_value
from bisect_trt.session.samples import Samples, graph_inputs, read_samples
from bisect_trt.settings import Settings, Shapes

Spans = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
"""Input name, and the least and largest size of each of its dimensions."""
RUN, SIZE = "run", "size"


class Sizes(Struct, frozen=True):
    """The shapes that are measured: those of `spans`, where each range has the same size at a time.

    Attributes:
        low, high: of the range; both 1 where there is none.
        unit: name of the dimension that varies; `run` where none does.
    """

    loaded: LoadedModel
    settings: Settings
    spans: Spans
    low: int
    high: int
    unit: str
    _all_shapes: dict[int, dict[str, tuple[int, ...]]] = field(default_factory=dict)

    def shapes(self, size: int) -> Shapes:
        """Return the shapes of the inputs that were given, at one size."""
        return tuple((name, tuple(a if a == b else size for a, b in dims)) for name, dims in self.spans)

    def at(self, size: int) -> Settings:
        """Return the settings with these shapes as static ones."""
        target = replace(self.settings.target, shapes=self.shapes(size))
        return replace(self.settings, target=target)

    def samples(self, size: int) -> Samples:
        """Return the input values of one size, one sample. Raises UsageError."""
        found = read_samples(self.loaded, self.at(size))[:1]
        self._all_shapes[size] = {name: tuple(value.shape) for name, value in found[0].items()}
        return found

    def all_shapes(self, size: int) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of all inputs at one size, those that nobody gave as well."""
        if size not in self._all_shapes:
            self.samples(size)
        return self._all_shapes[size]

    def taken_for_granted(self) -> str:
        """Say in a sentence which shapes were chosen although the model leaves them open; empty: none."""
        if self.settings.run.inputs is not None:
            return ""
        given, chosen = {name for name, _ in self.spans}, self.all_shapes(self.high)
        same = self.all_shapes(self.low)
        texts = []
        for item in graph_inputs(self.loaded.proto):
            is_open = item.dims is None or any(not isinstance(dim, int) for dim in item.dims)
            if is_open and item.name not in given and chosen[item.name] == same[item.name]:
                size = "x".join(map(str, chosen[item.name])) or "a scalar"
                texts.append(f"{item.name} is {size} (the model says {item.shape_text()})")
        return f"--shapes does not say otherwise, so {', '.join(texts)}." if texts else ""

    def feeds(self, session: Session, size: int) -> Feeds:
        """Return the same as files in the store of a session. Raises UsageError."""
        return {name: kept_value(session.store, name, v) for name, v in self.samples(size)[0].items()}


def spans_of(texts: Sequence[str]) -> Spans:
    """Read shapes as the command line has them. Raises UsageError."""
    try:
        found: Spans = SPANS.read(texts) if texts else ()
    except Unreadable as error:
        raise UsageError(f"shapes {error}", f"write {SPANS.example}") from error
    return found


def sizes(loaded: LoadedModel, settings: Settings, spans: Spans) -> Sizes:
    """Check the shapes of the command line against each other.

    Raises:
        UsageError: two different ranges, or a range and input values of the user's.
    """
    ranges = {(a, b): name for name, dims in spans for a, b in dims if a != b}
    if len(ranges) > 1:
        listed = ", ".join(f"{a}..{b} of {name}" for (a, b), name in ranges.items())
        hint = "one range at a time: give the others one size; equal ranges go together"
        raise UsageError(f"--shapes has two ranges: {listed}", hint)
    if not ranges:
        return Sizes(loaded, settings, spans, 1, 1, RUN)
    (low, high), name = next(iter(ranges.items()))
    if low < 1:
        raise UsageError(f"--shapes {name}: a range of sizes begins at 1")
    if settings.run.inputs is not None:
        text = spans_text(dict(spans)[name])
        hint = "leave one of them out: values for each size are made up"
        raise UsageError(f"--inputs has one shape, and --shapes {name}:{text} a range", hint)
    return Sizes(loaded, settings, spans, low, high, _name(loaded, name, dict(spans)))


def _name(loaded: LoadedModel, name: str, spans: Mapping[str, tuple[tuple[int, int], ...]]) -> str:
    """Return what the model calls the dimension that varies."""
    declared = next((item.dims for item in graph_inputs(loaded.proto) if item.name == name), None)
    at = next(k for k, (a, b) in enumerate(spans[name]) if a != b)
    found = declared[at] if declared is not None and at < len(declared) else None
    return found if isinstance(found, str) and found != RUN else SIZE
