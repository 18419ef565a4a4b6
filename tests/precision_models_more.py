"""More small models that are wrong in FP16, of kinds that tests/precision_models.py has not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from precision_models import Builder, Made


def romanizer(seed: int = 21) -> Made:
    """A text model whose mask is applied three times, its filler beyond FP16."""
    b = Builder(seed)
    ids = b.input("ids", b.rng.integers(0, 40, (1, 14)).astype(np.int64))
    mask = b.input("mask", (np.arange(14) < 11).astype(np.float32)[None])
    table = b.randn(40, 32, scale=1.0)
    bias = b("Mul", b("Sub", b.w(1.0), b("Unsqueeze", mask, b.i(1, 2))), b.w(-3.4e38))
    h = b("Add", b("Gather", table, ids), b.randn(1, 14, 32, scale=0.1))
    for k in range(2):
        b.scope = f"/enc{k}/"
        n = 32
        size = 8
        L = 14
        heads = 4
        split = b.i(1, L, heads, size)
        q, kk, v = (b("Reshape", b.linear(h, n, n), split) for _ in range(3))
        q, v = (b("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        kk = b("Transpose", kk, perm=[0, 2, 3, 1])
        sc = b("Mul", b("MatMul", q, kk), b.w(1 / np.sqrt(size)))
        sc = b("Add", b("Mul", sc, b("Unsqueeze", mask, b.i(1, 2))), bias)
        p = b("Mul", b("Softmax", sc, axis=-1), b("Unsqueeze", mask, b.i(1, 2)))
        m = b("Reshape", b("Transpose", b("MatMul", p, v), perm=[0, 2, 1, 3]), b.i(1, L, n))
        h = b(
            "LayerNormalization", b("Add", h, b.linear(m, n, n)), b.w(np.ones(32)), b.w(np.zeros(32)), axis=-1
        )
        h = b(
            "LayerNormalization",
            b("Add", h, b.linear(b("Relu", b.linear(h, 32, 64)), 64, 32)),
            b.w(np.ones(32)),
            b.w(np.zeros(32)),
            axis=-1,
        )
    return b.model(logits=b.linear(h, 32, 26)), b.feeds


def conformer(seed: int = 22) -> Made:
    """A speech encoder: a sum over its spectrum overflows before the logarithm."""
    b = Builder(seed)
    x = b.input("mel", (b.rng.standard_normal((1, 24, 32)) * 6 - 8).astype(np.float32))
    e = b("Exp", x)
    s = b("ReduceSum", b("Mul", e, b.w(4.0e3)), b.i(1), keepdims=1)
    log = b("Log", b("Add", b("Mul", e, b.w(1e4)), b.w(1e-6)))
    h = b("Sub", log, b("Log", s))
    h = b.layer_norm(h, 32)
    for k in range(2):
        b.scope = f"/conformer{k}/"
        h = b("Add", h, b("Mul", b.linear(b.silu(b.linear(b.layer_norm(h, 32), 32, 64)), 64, 32), b.w(0.5)))
        h = b("Add", h, b.attention(b.layer_norm(h, 32), 24, 32, 4))
        t = b("Transpose", b.layer_norm(h, 32), perm=[0, 2, 1])
        w = b.w(b.rng.standard_normal((64, 32, 1)) / 6)
        g = b("Conv", t, w)
        a, c = b("Split", g, outputs=2, axis=1)
        g = b("Mul", a, b("Sigmoid", c))
        dw = b.w(b.rng.standard_normal((32, 1, 5)) / 2)
        g = b("Conv", g, dw, pads=[2, 2], group=32)
        g = b(
            "BatchNormalization",
            g,
            b.w(np.ones(32)),
            b.w(np.zeros(32)),
            b.w(np.zeros(32)),
            b.w(np.full(32, 1.0)),
        )
        h = b(
            "Add",
            h,
            b("Transpose", b("Conv", b.silu(g), b.w(b.rng.standard_normal((32, 32, 1)) / 6)), perm=[0, 2, 1]),
        )
        h = b.layer_norm(h, 32)
    return b.model(logp=b("LogSoftmax", b.linear(h, 32, 20), axis=-1)), b.feeds


def moe(seed: int = 23) -> Made:
    """A mixture of experts with gates and RMSNorm of large values."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((1, 10, 32)).astype(np.float32))
    h = x
    for k in range(2):
        b.scope = f"/moe{k}/"
        t = b.rms_norm(b("Mul", h, b.w(900.0 if k else 1.0)), 32)
        gate = b("Softmax", b("Mul", b("MatMul", t, b.randn(32, 4)), b.w(3.0)), axis=-1)
        top, _ = b("TopK", gate, b.i(2), outputs=2, axis=-1)
        thr = b("ReduceMin", top, axes=[-1])
        sel = b("Where", b("GreaterOrEqual", gate, thr), gate, b.w(0.0))
        outs = []
        for e in range(4):
            o = b("MatMul", b.gelu(b("MatMul", t, b.randn(32, 48))), b.randn(48, 32))
            outs.append(b("Mul", o, b("Gather", sel, b.i(e), axis=2)))
        s = b("Add", b("Add", outs[0], outs[1]), b("Add", outs[2], outs[3]))
        h = b("Add", h, s)
    return b.model(y=b.linear(b.rms_norm(h, 32), 32, 16)), b.feeds


def cross(seed: int = 24) -> Made:
    """A decoder with cross attention to a loud memory, and a mask by Where."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((1, 8, 32)).astype(np.float32))
    m = b.input("mem", (b.rng.standard_normal((1, 12, 32)) * 30).astype(np.float32))
    mask = b.input("mask", (np.arange(12) < 9)[None, None, None])
    h = x
    for k in range(2):
        b.scope = f"/dec{k}/"
        h = b.layer_norm(b("Add", h, b.attention(h, 8, 32, 4)), 32)
        q = b("Transpose", b("Reshape", b.linear(h, 32, 32), b.i(1, 8, 4, 8)), perm=[0, 2, 1, 3])
        mm = b("Mul", m, b.w(40.0))
        kk = b("Transpose", b("Reshape", b.linear(mm, 32, 32), b.i(1, 12, 4, 8)), perm=[0, 2, 3, 1])
        v = b("Transpose", b("Reshape", b.linear(m, 32, 32), b.i(1, 12, 4, 8)), perm=[0, 2, 1, 3])
        sc = b("Mul", b("MatMul", b("Mul", q, b.w(30.0)), kk), b.w(1 / (1200 * 30 * np.sqrt(8))))
        sc = b("Where", mask, sc, b.w(-1e9))
        o = b(
            "Reshape",
            b("Transpose", b("MatMul", b("Softmax", sc, axis=-1), v), perm=[0, 2, 1, 3]),
            b.i(1, 8, 32),
        )
        h = b.layer_norm(b("Add", h, b("Mul", b.linear(o, 32, 32), b.w(0.05))), 32)
        h = b.layer_norm(b("Add", h, b.linear(b.gelu(b.linear(h, 32, 64)), 64, 32)), 32)
    return b.model(y=b("MatMul", h, b.randn(32, 20, scale=0.05))), b.feeds


def swin(seed: int = 25) -> Made:
    """A vision transformer with windows on pixels that were not scaled."""
    b = Builder(seed)
    x = b.input("image", (b.rng.random((1, 3, 16, 16)) * 255).astype(np.float32))
    p = b("Conv", b("Sub", x, b.w(127.5)), b.randn(16, 3, 2, 2, scale=0.3), strides=[2, 2])
    h = b("Transpose", p, perm=[0, 2, 3, 1])  # 1,8,8,16
    for k in range(2):
        b.scope = f"/stage{k}/"
        t = b.layer_norm(b("Mul", h, b.w(60.0)) if k else h, 16)
        win = b(
            "Reshape",
            b("Transpose", b("Reshape", t, b.i(2, 4, 2, 4, 16)), perm=[0, 2, 1, 3, 4]),
            b.i(4, 16, 16),
        )
        q, kk, v = (b.linear(win, 16, 16) for _ in range(3))
        sc = b("Mul", b("MatMul", q, b("Transpose", kk, perm=[0, 2, 1])), b.w(0.25))
        sc = b("Add", sc, b.randn(1, 16, 16, scale=0.2))
        o = b("MatMul", b("Softmax", sc, axis=-1), v)
        o = b(
            "Reshape",
            b("Transpose", b("Reshape", o, b.i(2, 2, 4, 4, 16)), perm=[0, 2, 1, 3, 4]),
            b.i(1, 8, 8, 16),
        )
        h = b("Add", h, b("Mul", b.linear(o, 16, 16), b.w(20.0)))
        h = b("Add", h, b.linear(b.gelu(b.linear(b.layer_norm(h, 16), 16, 32)), 32, 16))
    pooled = b("ReduceMean", h, axes=[1, 2], keepdims=0)
    return b.model(y=b("MatMul", b.layer_norm(pooled, 16), b.randn(16, 10, scale=0.1))), b.feeds


def llama_outlier(seed: int = 26, layers: int = 6, n: int = 48) -> Made:
    """A Llama in whose stream one channel is large from the third layer on."""
    b = Builder(seed)
    L, heads = 8, 4
    x = b.input("x", b.rng.standard_normal((1, L, n)).astype(np.float32))
    h = x
    size = n // heads
    for k in range(layers):
        b.scope = f"/layers.{k}/"
        t = b.rms_norm(h, n)
        split = b.i(1, L, heads, size)
        q, kk, v = (
            b("Transpose", b("Reshape", b("MatMul", t, b.randn(n, n)), split), perm=[0, 2, 1, 3])
            for _ in range(3)
        )
        sc = b("Mul", b("MatMul", q, b("Transpose", kk, perm=[0, 1, 3, 2])), b.w(1 / np.sqrt(size)))
        o = b(
            "Reshape",
            b("Transpose", b("MatMul", b("Softmax", sc, axis=-1), v), perm=[0, 2, 1, 3]),
            b.i(1, L, n),
        )
        h = b("Add", h, b("MatMul", o, b.randn(n, n)))
        t = b.rms_norm(h, n)
        up = b("Mul", b.silu(b("MatMul", t, b.randn(n, 2 * n))), b("MatMul", t, b.randn(n, 2 * n)))
        d = b("MatMul", up, b.randn(2 * n, n))
        if k == 2:
            d = b("Mul", d, b.w(np.where(np.arange(n) == 5, 3000.0, 1.0)))
        h = b("Add", h, d)
    b.scope = "/head/"
    return b.model(logits=b("MatMul", b.rms_norm(h, n), b.randn(n, 24, scale=0.02))), b.feeds


def gru_softplus(seed: int = 28) -> Made:
    """A recurrent net with Softplus, Exp and a quotient of what underflows."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((16, 1, 8)).astype(np.float32))
    w, r = b.randn(1, 96, 8, scale=0.3), b.randn(1, 96, 32, scale=0.2)
    h = b("Squeeze", b("GRU", x, w, r, outputs=2, hidden_size=32)[0], b.i(1))
    a = b("Mul", b("Softplus", b.linear(h, 32, 16)), b.w(30.0))
    c = b("Exp", b("Neg", a))
    d = b("Div", b("Mul", c, b.w(1e6)), b("Add", c, b.w(1e-7)))
    return b.model(y=b("Log", b("Add", d, b.w(1.0))), z=b("Softmax", b.linear(h, 32, 5), axis=-1)), b.feeds


def anchors(seed: int = 30) -> Made:
    """A detection head that decodes boxes of anchors; their areas overflow."""
    b = Builder(seed)
    x = b.input("f", b.rng.standard_normal((1, 16, 8, 8)).astype(np.float32))
    h = b("Relu", b.conv(x, 16, 16))
    reg = b("Reshape", b("Transpose", b.conv(h, 16, 4, 1), perm=[0, 2, 3, 1]), b.i(1, 64, 4))
    anch = b.w(np.concatenate([b.rng.random((1, 64, 2)) * 600, b.rng.random((1, 64, 2)) * 300 + 40], -1))
    axy, awh = b("Slice", anch, b.i(0), b.i(2), b.i(2)), b("Slice", anch, b.i(2), b.i(4), b.i(2))
    dxy, dwh = b("Split", reg, outputs=2, axis=2)
    cxy = b("Add", b("Mul", dxy, b("Mul", awh, b.w(0.1))), axy)
    wh = b("Mul", b("Exp", b("Mul", dwh, b.w(0.2))), awh)
    lo, hi = b("Sub", cxy, b("Mul", wh, b.w(0.5))), b("Add", cxy, b("Mul", wh, b.w(0.5)))
    area = b("ReduceProd", b("Sub", hi, lo), axes=[2])
    norm = b("Div", area, b("ReduceMax", area, axes=[1]))
    sc = b(
        "Softmax",
        b("Reshape", b("Transpose", b.conv(h, 16, 3, 1), perm=[0, 2, 3, 1]), b.i(1, 64, 3)),
        axis=-1,
    )
    return b.model(boxes=b("Concat", lo, hi, axis=2), scores=b("Mul", sc, norm)), b.feeds


MODELS: dict[str, Callable[[], Made]] = {
    "romanizer": romanizer,
    "conformer": conformer,
    "moe": moe,
    "cross": cross,
    "swin": swin,
    "llama_outlier": llama_outlier,
    "gru_softplus": gru_softplus,
    "anchors": anchors,
}
