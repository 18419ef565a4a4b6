"""`precision --cost time`: prices of nodes, whole layers, and which set is taken."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import field

import precision_models as models
from bisect_trt.cli.app import main
from bisect_trt.errors import StoppedEarly
from bisect_trt.mixed_precision import clock
from bisect_trt.mixed_precision.answer import Answer, Keep, not_needed
from bisect_trt.mixed_precision.asking import within
from bisect_trt.mixed_precision.clock import Clock, Clocked, closures, prices
from bisect_trt.mixed_precision.schedule import dear_questions
from bisect_trt.mixed_precision.search import Hints, Search
from bisect_trt.model.candidate import Candidate
from bisect_trt.session.journal import Journal
from bisect_trt.session.prober import Budget
from bisect_trt.settings import TargetSettings

NAMES = {f"k{k}": f"n{k}" for k in range(6)}
LAYERS = ((("n0",), 1e-6), (("n1", "n2"), 6e-6), (("n3",), 2e-6), (("n4", "n5"), 8e-6))


def test_a_price_is_what_lowering_saves() -> None:
    """A layer is shared alike; what saves nothing, and what no layer has, costs a little."""
    low = ((("n0",), 2e-6), (("n1",), 1e-6), (("n2", "n3"), 2e-6))
    found = prices({**NAMES, "k6": "n6"}, LAYERS, low)
    assert [found[f"k{k}"] for k in (1, 2, 3, 4)] == pytest.approx([2, 2, 1, 4])
    assert found["k0"] == found["k6"] and 0 < found["k0"] < 0.01
    assert set(prices(NAMES, (), ()).values()) == {1.0}, "where no layer is told all cost the same"


def test_layers_that_a_set_cuts_are_closed() -> None:
    assert closures(frozenset({"k1"}), NAMES, LAYERS) == [frozenset({"k1", "k2"})]
    assert closures(frozenset({"k1", "k2", "k3"}), NAMES, LAYERS) == [], "it cuts none"
    assert closures(frozenset({"k0"}), NAMES, [(tuple(NAMES.values()), 1.0)]) == [], "that is the whole model"


class MadeUp(Clock):
    """Times that a table gives, by number of nodes; n1 alone pays for a cut layer."""

    table: dict[int, float] = field(default_factory=dict)
    asked: list[tuple[int, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, table: dict[int, float]) -> MadeUp:
        journal = Journal.open(folder / "journal.jsonl", {})
        never = Candidate(b"", Path(), ())
        return cls(None, TargetSettings(), lambda keep: never, NAMES, journal, Budget(), table=table)  # type: ignore[arg-type]

    def ask(self, keeps: Sequence[Keep], *, profile: bool = False) -> list[Clocked]:
        self.asked.append(tuple(len(keep) for keep in keeps))
        return [Clocked((self.table[len(keep)],) * 10, LAYERS if profile else ()) for keep in keeps]


@pytest.mark.parametrize(
    ("table", "kept", "words"),
    [
        (
            {0: 3e-3, 1: 5e-3, 2: 4e-3, 6: 9e-3},
            {"k1", "k2"},
            "Whole layers are kept, as that is faster: 2 nodes 4 ms",
        ),
        ({0: 3e-3, 1: 4e-3, 2: 5e-3, 6: 9e-3}, {"k1"}, "is not clearly faster: 2 nodes 5 ms."),
        ({0: 3e-3, 1: 4e-3, 2: 5e-3, 6: 2e-3}, {"k1"}, "All of it in FP32 is faster than this."),
    ],
)
def test_the_faster_of_those_that_pass_is_kept(
    table: dict[int, float], kept: set[str], words: str, tmp_path: Path
) -> None:
    made = MadeUp.of(tmp_path, table)
    cost = made.prices(tuple(NAMES), frozenset())

    def ask(keeps: Sequence[Keep]) -> list[Answer]:
        return [Answer("k1" in keep, 0.5 if "k1" in keep else 3.0) for keep in keeps]

    search = Search(tuple(NAMES), ask, Hints(rank=tuple(NAMES)), cost=cost.__getitem__)
    search.answers([frozenset(NAMES), frozenset()])
    dear_questions(search, lambda text: None)
    made.choose(search)
    assert search.found.best == kept and words in made.note
    assert search.found.one_minimal == (len(kept) == 1)
    why = {key: not_needed(key, search.found.best, search.known) for key in kept}
    assert why["k1"] == "not tried without it"
    assert "kept whole" in why.get("k2", "kept whole")
    assert made.asked == [(6, 0), (0, 6, 1, 2)]


def test_by_chance_alone_nothing_is_faster() -> None:
    steady, noisy = Clocked((2.0,) * 10), Clocked((1.0,) * 8 + (3.0,) * 2)
    assert not noisy.beats(steady) and not steady.beats(noisy)
    assert not Clocked().beats(steady), "what cannot be built has no times"


def test_onnx_runtime_tells_times_of_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in FP32, all low, one node in FP32; every layer that is told has nodes of the model."""
    monkeypatch.setattr(clock, "ROUNDS", 2)
    monkeypatch.setattr(clock, "TURN", 0.002)
    monkeypatch.setattr(clock, "WARM", 0.002)
    model, feeds = models.MODELS["gru"]()
    names = {node.name for node in model.graph.node}
    stored = {}
    for name, value in feeds.items():
        np.save(tmp_path / f"{name}.npy", value)
        stored[name] = tmp_path / f"{name}.npy"
    onnx.save(model, tmp_path / "model.onnx")
    order, keeps = tuple(sorted(names)), (names, set[str](), {"Exp_9"} & names)
    made = [
        Candidate(tmp_path / "model.onnx", tmp_path, order, feeds=(stored,), keep=tuple(sorted(keep)))
        for keep in keeps
    ]
    told = clock.in_turns(TargetSettings(spec="ort:CPU", precision="fp16"), made, True)
    assert all(len(one.rounds) == 2 and one.seconds > 0 for one in told)
    assert all(set(nodes) <= names for one in told for nodes, _ in one.layers)
    assert len(told[0].layers) > 5 and sum(taken for _, taken in told[0].layers) > 0


def test_an_emulation_has_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, feeds = models.MODELS["gru"]()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **feeds)
    words = ["precision", str(tmp_path / "model.onnx"), "--inputs", str(tmp_path / "inputs.npz")]
    assert main([*words, "--cost", "time", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--cost time" in said and "emulate:fp16" in said and "tensorrt" in said
    assert not (tmp_path / "out").exists()


def test_an_end_for_want_of_time_is_called_so() -> None:
    """A worker that is ended as the budget is over had no fault; one that dies before has."""
    with pytest.raises(StoppedEarly, match="--budget used up"), within(Budget(time.monotonic() + 0.01), 3):
        time.sleep(0.02)
        raise StoppedEarly("an evaluation ended its process", "")
    with pytest.raises(StoppedEarly, match="ended its process"), within(Budget(), 3):
        raise StoppedEarly("an evaluation ended its process", "")
