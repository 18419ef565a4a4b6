"""What ONNX Runtime decides about a session: each optimiser by name, levels, memory, providers' options.

The names are those by which `disabled_optimizers` of its Python API knows them (names of rewrite rules and of
graph transformers in onnxruntime/core/optimizer, 1.32). A release that does not know one leaves it alone
without a word, so a knob too many costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from bisect_trt.settings import TargetSettings
from bisect_trt.targets.knobs import PYTHON, Knob
from bisect_trt.targets.ort.ep_libraries import bare
from bisect_trt.targets.ort.provider import parse_spec

# In the order in which they run: neighbours are asked together.
RULES = (
    *("EliminateIdentity", "EliminateSlice", "UnsqueezeElimination", "EliminateDropout"),
    *("ExpandElimination", "CastElimination", "CastChainElimination", "PreShapeNodeElimination"),
    *("NoopElimination", "DivMulFusion", "FuseReluClip", "GemmSumFusion", "GemmTransposeFusion"),
    *("NotWhereFusion", "ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "Pad_Fusion"),
    *("MatMul_BatchNormalization_Fusion", "LabelEncoderFusion", "ClipQuantRewrite", "ReluQuantRewrite"),
)
BASIC = (
    *("DoubleQDQPairsRemover", "ConstantSharing", "CommonSubexpressionElimination", "ConstantFolding"),
    *("MatMulAddFusion", "ReshapeFusion", "FreeDimensionOverrideTransformer", "GeluFusionL1"),
    *("LayerNormFusionL1", "QDQPropagationTransformer", "WeightBiasQuantization", "TransposeOptimizer"),
)
EXTENDED = (
    *("QDQS8ToU8Transformer", "QDQSelectorActionTransformer", "GemmActivationFusion"),
    *("MatMulIntegerToFloatFusion", "DynamicQuantizeMatMulFusion", "ConvActivationFusion", "GeluFusionL2"),
    *("LayerNormFusionL2", "SimplifiedLayerNormFusion", "AttentionFusion", "EmbedLayerNormFusion"),
    *("GatherSliceToSplitFusion", "GatherToSliceFusion", "MatmulTransposeFusion", "BiasGeluFusion"),
    *("GroupQueryAttentionFusion", "GroupQueryAttentionPreNormFusion", "SkipLayerNormFusion"),
    *("BiasSkipLayerNormFusion", "FastGeluFusion", "QuickGeluFusion", "SwiGluFusion", "GeluApproximation"),
    *("BiasSoftmaxFusion", "BiasDropoutFusion", "MatMulScaleFusion", "MatMulActivationFusion"),
    *("Avx2WeightS8ToU8Transformer", "MatMulNBitsFusion", "DQMatMulNBitsFusion", "MatMulNBitsMlpFusion"),
    *("MatMulNBitsQkvFusion", "MatMulNBitsQLoRAFusion", "SliceConcatToSpaceToDepthFusion"),
    *("QDQFinalCleanupTransformer", "GqaValueLayoutTransformer"),
)
LAYOUT = ("NchwcTransformer", "NhwcTransformer", "ConvAddActivationFusion")
OPTIMISERS = (*RULES, *BASIC, *EXTENDED, *LAYOUT)

# Entries of a session's configuration: key, value, what it means.
_CONFIG = (
    ("session.disable_quant_qdq", "1", "without optimisations of QDQ models"),
    ("session.disable_aot_function_inlining", "1", "without inlining functions ahead"),
    ("session.disable_prepacking", "1", "without packing weights ahead"),
    ("session.set_denormal_as_zero", "1", "with denormal numbers as zero"),
)
# Attributes of SessionOptions: name, value, what it means.
_OPTIONS = (
    ("enable_cpu_mem_arena", "False", "without the memory arena"),
    ("enable_mem_pattern", "False", "without memory patterns"),
    ("enable_mem_reuse", "False", "without reuse of memory"),
    ("use_deterministic_compute", "True", "with deterministic kernels only"),
    ("intra_op_num_threads", "1", "with one thread"),
)
LEVELS = ("ORT_ENABLE_EXTENDED", "ORT_ENABLE_BASIC", "ORT_DISABLE_ALL")  # the nearest to the default first

# Options of built-in providers, by `bare` name: key, value, what it means.
_PROVIDERS = {
    "cuda": (
        ("use_tf32", "0", "without TF32"),
        ("cudnn_conv_algo_search", "DEFAULT", "without a search for algorithms of convolutions"),
        ("cudnn_conv_use_max_workspace", "0", "with a small workspace for convolutions"),
        ("prefer_nhwc", "0", "without the NHWC layout"),
        ("enable_skip_layer_norm_strict_mode", "1", "with layer norms that add up in float32"),
    ),
    "tensorrt": (
        ("trt_fp16_enable", "0", "without FP16"),
        ("trt_int8_enable", "0", "without INT8"),
        ("trt_bf16_enable", "0", "without BF16"),
        ("trt_sparsity_enable", "0", "without sparsity"),
        ("trt_layer_norm_fp32_fallback", "1", "with layer norms in float32"),
    ),
}


def knobs(target: TargetSettings) -> tuple[Knob, ...]:
    """Return all of them for a provider; options that the spec sets itself stay as they are."""
    provider, given = parse_spec(target.spec)
    if bare(provider) == "openvino":
        from bisect_trt.targets.ort.openvino_knobs import knobs as of_openvino

        return (*of_openvino(given), *_session())
    own = _PROVIDERS.get(bare(provider), ())
    return (*_session(), *(_provider(*row) for row in own if row[0] not in given))


def _session() -> Iterator[Knob]:
    for name in OPTIMISERS:
        line = f'session = ort.InferenceSession(model, options, disabled_optimizers=["{name}"])'
        yield Knob(name, f"without the optimiser {name}", (("optimizer", name),), paste={PYTHON: line})
    for key, value, text in _CONFIG:
        line = f'options.add_session_config_entry("{key}", "{value}")'
        yield Knob(key.removeprefix("session."), text, (("config", f"{key}={value}"),), paste={PYTHON: line})
    for key, value, text in _OPTIONS:
        line = f"options.{key} = {value}"
        yield Knob(key, text, (("option", f"{key}={value}"),), paste={PYTHON: line})
    for level in LEVELS:
        line = f"options.graph_optimization_level = ort.GraphOptimizationLevel.{level}"
        text = f"at the graph optimisation level {level}"
        yield Knob(level, text, (("level", level),), paste={PYTHON: line}, coarse=True)


def _provider(key: str, value: str, text: str) -> Knob:
    line = f'providers = [(name, {{"{key}": "{value}"}})]'
    return Knob(key, text, (("provider", f"{key}={value}"),), paste={PYTHON: line})
