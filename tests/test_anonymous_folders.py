"""`--anonymise --all`: folders and zips whose names tell nothing, and no two models in one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bisect_trt.errors import UsageError
from bisect_trt.reduction.reduce import reduce
from bisect_trt.reduction.reduce_all import reduce_all
from bisect_trt.settings import RunSettings, Settings, TargetSettings
from support import model


def test_all_failures_of_two_models_lie_beside_each_other_and_name_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference is told with the name of an output, which is no name for a folder."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(TargetSettings("emulate:fp16"), RunSettings(anonymise=True, repeats=1))
    outs = []
    for name in ("zebra_score", "zebra_depth"):
        proto = model(
            [helper.make_node("Mul", ["herd", "big"], ["grown"]), helper.make_node("Neg", ["grown"], [name])],
            [helper.make_tensor_value_info("herd", TensorProto.FLOAT, [4, 4])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4])],
            [numpy_helper.from_array(np.full(4, 1e6, np.float32), "big")],
        )
        place = tmp_path / f"{name}.onnx"
        onnx.save(proto, place)
        (result,) = reduce_all(place, settings)
        outs.append(result.out.relative_to(tmp_path))
        assert result.archive is not None and "zebra" not in result.archive.name
    assert [str(out.parent) for out in outs] == ["anonymous-repro", "anonymous-2-repro"]
    assert all(out.name.startswith("1-compare-") for out in outs)
    assert not any("zebra" in str(out) for out in outs)
    with pytest.raises(UsageError, match="anonymous-2-repro holds a finished run"):
        reduce_all(place, settings)


def test_a_folder_whose_name_tells_something_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    """The archive is called like it, which was found out when all was done."""
    proto = model(
        [helper.make_node("Neg", ["herd"], ["y"])],
        *([helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])] for name in ("herd", "y")),
        [],
    )
    onnx.save(proto, tmp_path / "zebranet.onnx")
    settings = Settings(TargetSettings("planted:op=Neg"), RunSettings(anonymise=True))
    for name in ("zebranet-repro", "herd-of-5"):
        with pytest.raises(UsageError, match="tells something of the original"):
            reduce(tmp_path / "zebranet.onnx", settings, out=tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["zebranet.onnx"]
