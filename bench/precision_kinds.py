"""Models of the kinds that the table of docs/precision.md has, made before anything was run on them.

Other sizes, seeds and details than tests/precision_models.py: nothing of the search was chosen by these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from precision_models import Builder, Made


def kws(seed: int = 101, blocks: int = 3, n: int = 48, T: int = 20, loud: float = 300.0) -> Made:
    """A keyword classifier with depthwise convolutions; one LayerNorm reads loud values."""
    b = Builder(seed)
    x = b.input("a", b.rng.standard_normal((1, T, 40)).astype(np.float32))
    h = b.linear(x, 40, n)
    for k in range(blocks):
        b.scope = f"/b{k}/"
        t = b("Mul", h, b.w(loud)) if k == 1 else h
        h = b("Add", h, b.linear(b("Relu", b.linear(b.layer_norm(t, n), n, 2 * n)), 2 * n, n))
        c = b("Transpose", h, perm=[0, 2, 1])
        c = b("Conv", c, b.w(b.rng.standard_normal((n, 1, 5)) / 3), pads=[2, 2], group=n)
        h = b("Add", h, b("Transpose", b("Relu", c), perm=[0, 2, 1]))
    return b.model(
        p=b("Softmax", b.linear(b("ReduceMean", h, axes=[1], keepdims=0), n, 12), axis=-1)
    ), b.feeds


def translit(seed: int = 102, n: int = 40, L: int = 16, layers: int = 1) -> Made:
    """A text encoder with a mask of -1e9."""
    b = Builder(seed)
    ids = b.input("ids", b.rng.integers(0, 50, (1, L)).astype(np.int64))
    m = b.input("m", (np.arange(L) < 12).astype(np.float32)[None])
    neg = b("Mul", b("Sub", b.w(1.0), b("Unsqueeze", m, b.i(1, 2))), b.w(-1e9))
    h = b("Add", b("Gather", b.randn(50, n, scale=1.0), ids), b.randn(1, L, n, scale=0.2))
    for k in range(layers):
        b.scope = f"/e{k}/"
        h = b.layer_norm(b("Add", h, b.attention(h, L, n, 4, neg)), n)
        h = b.layer_norm(b("Add", h, b.linear(b("Relu", b.linear(h, n, 2 * n)), 2 * n, n)), n)
    h = b("Mul", h, b("Unsqueeze", m, b.i(2)))
    return b.model(l=b.linear(h, n, 30)), b.feeds


def squeeze(seed: int = 103, amp: float = 3e4) -> Made:
    """A SqueezeNet whose middle overflows and is scaled back at the end."""
    b = Builder(seed)
    x = b.input("i", b.rng.standard_normal((1, 3, 40, 40)).astype(np.float32))
    h = b("MaxPool", b("Relu", b.conv(x, 3, 16)), kernel_shape=[3, 3], strides=[2, 2])

    def fire(h, a, e):
        s = b("Relu", b.conv(h, a, 8, 1))
        return b("Concat", b("Relu", b.conv(s, 8, e, 1)), b("Relu", b.conv(s, 8, e)), axis=1)

    h = fire(h, 16, 16)
    h = fire(h, 32, 16)
    w = b.w(b.rng.standard_normal((8, 32, 1, 1)) * amp)
    s = b("Relu", b("Conv", h, w))
    h = b("Concat", b("Relu", b.conv(s, 8, 16, 1)), b("Relu", b.conv(s, 8, 16)), axis=1)
    h = fire(h, 32, 16)
    h = b("MaxPool", h, kernel_shape=[3, 3], strides=[2, 2])
    h = fire(h, 32, 24)
    h = fire(h, 48, 24)
    h = b.conv(h, 48, 10, 1)
    g = b("Flatten", b("GlobalAveragePool", h))
    return b.model(y=b("Softmax", b("Mul", g, b.w(1 / amp)), axis=1)), b.feeds


def llama5(seed: int = 104, layers: int = 5, n: int = 40, grow: float = 400.0) -> Made:
    """A Llama with rotary positions whose stream is large behind the last layer."""
    b = Builder(seed)
    L, H = 10, 4
    size = n // H
    ids = b.input("ids", b.rng.integers(0, 60, (1, L)).astype(np.int64))
    causal = b.w(np.triu(np.full((L, L), -6e4), 1)[None, None])
    h = b("Gather", b.randn(60, n, scale=1.0), ids)
    ang = np.arange(L)[:, None] / 1000 ** (np.arange(size // 2) / (size // 2))
    cos, sin = b.w(np.cos(np.concatenate([ang] * 2, 1))), b.w(np.sin(np.concatenate([ang] * 2, 1)))

    def rot(t):
        one, two = b("Split", t, outputs=2, axis=-1)
        return b("Add", b("Mul", t, cos), b("Mul", b("Concat", b("Neg", two), one, axis=-1), sin))

    for k in range(layers):
        b.scope = f"/model/layers.{k}/"
        t = b.rms_norm(h, n)
        sp = b.i(1, L, H, size)
        q, kk, v = (
            b("Transpose", b("Reshape", b("MatMul", t, b.randn(n, n)), sp), perm=[0, 2, 1, 3])
            for _ in range(3)
        )
        sc = b(
            "Add",
            b("Mul", b("MatMul", rot(q), b("Transpose", rot(kk), perm=[0, 1, 3, 2])), b.w(size**-0.5)),
            causal,
        )
        o = b(
            "MatMul",
            b(
                "Reshape",
                b("Transpose", b("MatMul", b("Softmax", sc, axis=-1), v), perm=[0, 2, 1, 3]),
                b.i(1, L, n),
            ),
            b.randn(n, n),
        )
        h = b("Add", h, o)
        t = b.rms_norm(h, n)
        d = b(
            "MatMul",
            b("Mul", b.silu(b("MatMul", t, b.randn(n, 3 * n))), b("MatMul", t, b.randn(n, 3 * n))),
            b.randn(3 * n, n),
        )
        h = b("Mul", b("Add", h, d), b.w(grow)) if k == layers - 1 else b("Add", h, d)
    return b.model(l=b("MatMul", b.rms_norm(h, n), b.randn(n, 60, scale=0.01))), b.feeds


def gpt2(seed: int = 105, layers: int = 4, n: int = 36) -> Made:
    """A GPT-2 with GELU by Tanh in which an offset is added and taken away."""
    b = Builder(seed)
    L = 9
    ids = b.input("ids", b.rng.integers(0, 40, (1, L)).astype(np.int64))
    mask = b.w(np.triu(np.full((L, L), -1e4), 1)[None, None])
    h = b("Add", b("Gather", b.randn(40, n, scale=1.0), ids), b.randn(1, L, n, scale=0.1))
    for k in range(layers):
        b.scope = f"/h.{k}/"
        h = b("Add", h, b.attention(b.layer_norm(h, n), L, n, 4, mask))
        if k == 2:
            big = b("Add", h, b.w(9000.0))
            h = b("Add", big, b.w(-9000.0))
        t = b.linear(b.layer_norm(h, n), n, 3 * n)
        g = b(
            "Mul",
            b("Mul", t, b.w(0.5)),
            b(
                "Add",
                b.w(1.0),
                b(
                    "Tanh",
                    b("Mul", b.w(0.79788), b("Add", t, b("Mul", b("Pow", t, b.w(3.0)), b.w(0.044715)))),
                ),
            ),
        )
        h = b("Add", h, b.linear(g, 3 * n, n))
    return b.model(l=b("MatMul", b.layer_norm(h, n), b.randn(n, 40, scale=0.01))), b.feeds


def bert6(seed: int = 106, layers: int = 5, n: int = 32) -> Made:
    """A BERT in which one LayerNorm's variance overflows."""
    b = Builder(seed)
    L = 14
    ids = b.input("ids", b.rng.integers(0, 64, (1, L)).astype(np.int64))
    m = b.input("m", (np.arange(L) < 10).astype(np.float32)[None])
    neg = b("Mul", b("Sub", b.w(1.0), b("Unsqueeze", m, b.i(1, 2))), b.w(-10000.0))
    h = b.layer_norm(b("Add", b("Gather", b.randn(64, n, scale=1.0), ids), b.randn(1, L, n, scale=0.3)), n)
    for k in range(layers):
        b.scope = f"/enc.{k}/"
        t = b("Add", h, b.attention(h, L, n, 4, neg))
        h = b.layer_norm(b("Mul", t, b.w(420.0)) if k == 3 else t, n)
        h = b.layer_norm(b("Add", h, b.linear(b.gelu(b.linear(h, n, 2 * n)), 2 * n, n)), n)
    return b.model(
        q=b("MatMul", h, b.randn(n, 3, scale=0.02)),
        p=b("Tanh", b.linear(b("Gather", h, b.w(0, dtype=np.int64), axis=1), n, n)),
    ), b.feeds


def gptrms(seed: int = 107, layers: int = 6, n: int = 32, big: float = 600.0) -> Made:
    """A GPT with RMSNorm, three of which read large values."""
    b = Builder(seed)
    L = 8
    x = b.input("x", b.rng.standard_normal((1, L, n)).astype(np.float32))
    h = b("Mul", x, b.w(1.0))
    for k in range(layers):
        b.scope = f"/blk{k}/"
        t = b.rms_norm(b("Mul", h, b.w(big)), n) if k in (1, 3, 4) else b.rms_norm(h, n)
        h = b("Add", h, b.attention(t, L, n, 4))
        h = b("Add", h, b.linear(b.gelu(b.linear(b.rms_norm(h, n), n, 2 * n)), 2 * n, n))
    return b.model(l=b("MatMul", b.rms_norm(h, n), b.randn(n, 16, scale=0.02))), b.feeds


def cnn2(seed: int = 108) -> Made:
    """A CNN with a normalisation over channels."""
    b = Builder(seed)
    x = b.input("i", (b.rng.random((2, 3, 28, 28)) * 255).astype(np.float32))
    h = b(
        "Div",
        b("Sub", x, b.w(np.float32([123.7, 116.3, 103.5])[None, :, None, None])),
        b.w(np.float32([58.4, 57.1, 57.4])[None, :, None, None]),
    )
    for k in range(3):
        b.scope = f"/s{k}/"
        h = b("Relu", b.conv(h, 3 if k == 0 else 12, 12, strides=[2, 2] if k else [1, 1]))
    b.scope = "/lrn/"
    e = b("ReduceSum", b("Pow", b("Mul", h, b.w(80.0)), b.w(2.0)), b.i(1), keepdims=1)
    h = b("Div", b("Mul", h, b.w(80.0)), b("Sqrt", b("Add", e, b.w(1.0))))
    h = b("Relu", b.conv(h, 12, 12))
    return b.model(y=b.linear(b("Flatten", b("GlobalAveragePool", h)), 12, 6)), b.feeds


def vit2(seed: int = 109, n: int = 32, layers: int = 2) -> Made:
    """A vision transformer with a mask of -1e9 and LayerNorms of loud values."""
    b = Builder(seed)
    x = b.input("i", (b.rng.random((1, 3, 24, 24)) * 2 - 1).astype(np.float32))
    keep = b.input("keep", (np.arange(10) < 8)[None, None, None])
    p = b("Conv", x, b.randn(n, 3, 8, 8, scale=0.1), strides=[8, 8])
    h = b("Transpose", b("Reshape", p, b.i(1, n, 9)), perm=[0, 2, 1])
    h = b("Concat", b.randn(1, 1, n, scale=1.0), h, axis=1)
    h = b("Add", h, b.randn(1, 10, n, scale=0.2))
    bias = b("Where", keep, b.w(0.0), b.w(-1e9))
    for k in range(layers):
        b.scope = f"/blk{k}/"
        h = b("Add", h, b.attention(b.layer_norm(h, n), 10, n, 4, bias))
        h = b(
            "Add",
            h,
            b.linear(b.gelu(b.linear(b.layer_norm(b("Mul", h, b.w(250.0)), n, 1e-3), n, 2 * n)), 2 * n, n),
        )
    return b.model(
        y=b(
            "MatMul",
            b("Gather", b.layer_norm(h, n), b.w(0, dtype=np.int64), axis=1),
            b.randn(n, 10, scale=0.1),
        )
    ), b.feeds


def audio2(seed: int = 110) -> Made:
    """A log-mel front end before an encoder."""
    b = Builder(seed)
    x = b.input("w", (b.rng.standard_normal((1, 1, 800)) * 0.02).astype(np.float32))
    re = b("Conv", x, b.randn(24, 1, 64, scale=0.3), strides=[16])
    im = b("Conv", x, b.randn(24, 1, 64, scale=0.3), strides=[16])
    pw = b("Add", b("Mul", re, re), b("Mul", im, im))
    mel = b("MatMul", b("Transpose", pw, perm=[0, 2, 1]), b.w(np.abs(b.rng.standard_normal((24, 16))) * 0.02))
    lg = b("Log", b("Max", mel, b.w(1e-10)))
    mx = b("ReduceMax", lg, keepdims=0)
    lg = b("Max", lg, b("Sub", mx, b.w(8.0)))
    h = b("Div", b("Add", lg, b.w(4.0)), b.w(4.0))
    h = b.linear(h, 16, 32)
    for k in range(2):
        b.scope = f"/l{k}/"
        h = b("Add", h, b.attention(b.layer_norm(h, 32), 47, 32, 4))
        h = b("Add", h, b.linear(b.gelu(b.linear(b.layer_norm(h, 32), 32, 64)), 64, 32))
    return b.model(
        y=b("Softmax", b.linear(b("ReduceMean", b.layer_norm(h, 32), axes=[1], keepdims=0), 32, 7), axis=-1)
    ), b.feeds


def gru2(seed: int = 111) -> Made:
    """A GRU with Softplus, Exp and a quotient of sums."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((12, 2, 10)).astype(np.float32))
    h = b(
        "Squeeze",
        b(
            "GRU",
            x,
            b.randn(1, 60, 10, scale=0.4),
            b.randn(1, 60, 20, scale=0.3),
            outputs=2,
            hidden_size=20,
            linear_before_reset=1,
        )[0],
        b.i(1),
    )
    d = b("Exp", b("Mul", b("Softplus", b.linear(h, 20, 12)), b.w(14.0)))
    s = b("ReduceSum", d, b.i(-1), keepdims=1)
    return b.model(w=b("Div", d, s), e=b("Softplus", b.linear(h, 20, 3))), b.feeds


def unet2(seed: int = 112) -> Made:
    """A U-Net of a diffusion model with a mean of squares that overflows."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((1, 4, 16, 16)).astype(np.float32))
    t = b.input("t", np.float32([[801.0]]))
    f = b("Mul", t, b.w(np.exp(-np.log(1e4) * np.arange(8) / 8)[None]))
    emb = b("Concat", b("Sin", f), b("Cos", f), axis=-1)
    emb = b.linear(b.silu(b.linear(emb, 16, 24)), 24, 24)

    def gn(h, c, s):
        r = b("InstanceNormalization", b("Reshape", h, b.i(1, 4, -1)), b.w(np.ones(4)), b.w(np.zeros(4)))
        return b("Mul", b("Reshape", r, b.i(1, c, s, s)), b.w(1 + 0.1 * b.rng.standard_normal((c, 1, 1))))

    h0 = b.conv(x, 4, 16)
    h = b("Mul", b.conv(b.silu(gn(h0, 16, 16)), 16, 24), b.w(900.0))
    h = b("Add", h, b("Unsqueeze", emb, b.i(2, 3)))
    v = b("ReduceMean", b("Mul", h, h), axes=[1, 2, 3], keepdims=1)
    h = b("Div", h, b("Sqrt", v))
    d = b.conv(b.silu(gn(h, 24, 16)), 24, 24, strides=[2, 2])
    u = b("Resize", d, "", b.w([1, 1, 2, 2]), mode="nearest")
    h = b("Concat", u, h0, axis=1)
    return b.model(n=b.conv(b.silu(gn(h, 40, 16)), 40, 4)), b.feeds


def det2(seed: int = 113) -> Made:
    """A detection head: distances to boxes, whose areas overflow."""
    b = Builder(seed)
    x = b.input("f", b.rng.standard_normal((1, 24, 10, 10)).astype(np.float32))
    h = b("Relu", b.conv(x, 24, 24))
    h = b("Relu", b.conv(h, 24, 24))
    r = b("Reshape", b("Transpose", b.conv(h, 24, 16, 1), perm=[0, 2, 3, 1]), b.i(1, 100, 4, 4))
    dist = b("Squeeze", b("MatMul", b("Softmax", r, axis=-1), b.w(np.arange(4)[:, None] * 60.0)), b.i(-1))
    lt, rb = b("Split", dist, outputs=2, axis=-1)
    gy, gx = np.meshgrid(np.arange(10), np.arange(10), indexing="ij")
    c = b.w(np.stack([gx, gy], -1).reshape(1, 100, 2) * 64.0 + 32)
    x1, x2 = b("Sub", c, lt), b("Add", c, rb)
    wh = b("Sub", x2, x1)
    w, hh = b("Split", wh, outputs=2, axis=-1)
    area = b("Mul", w, hh)
    tot = b("ReduceMax", area, axes=[1])
    obj = b("Div", area, tot)
    cls = b("Sigmoid", b("Reshape", b("Transpose", b.conv(h, 24, 5, 1), perm=[0, 2, 3, 1]), b.i(1, 100, 5)))
    return b.model(box=b("Concat", x1, x2, axis=-1), s=b("Mul", cls, b("Sqrt", obj))), b.feeds


def qdq2(seed: int = 114) -> Made:
    """Quantised products with an RMSNorm by hand between them."""
    b = Builder(seed)
    x = b.input("x", b.rng.standard_normal((1, 16, 32)).astype(np.float32))
    n = 32

    def qdq(t, s):
        sc, z = b.w(s), b.w(0, dtype=np.int8)
        return b("DequantizeLinear", b("QuantizeLinear", t, sc, z), sc, z)

    h = x
    for k in range(2):
        b.scope = f"/l{k}/"
        t = b("MatMul", qdq(h, 0.04), qdq(b.randn(n, 2 * n), 0.005))
        t = b("MatMul", qdq(b("Relu", t), 0.02), qdq(b.randn(2 * n, n), 0.005))
        h = b("Add", h, t)
        sq = b("Mul", b("Mul", h, b.w(350.0)), b("Mul", h, b.w(350.0)))
        h = b("Div", b("Mul", h, b.w(350.0)), b("Sqrt", b("ReduceMean", sq, axes=[-1])))
    return b.model(y=b("MatMul", h, b.randn(n, 8, scale=0.1))), b.feeds


MODELS: dict[str, Callable[[], Made]] = {
    f.__name__: f
    for f in (
        kws,
        translit,
        squeeze,
        llama5,
        gpt2,
        bert6,
        gptrms,
        cnn2,
        vit2,
        audio2,
        gru2,
        unet2,
        det2,
        qdq2,
    )
}
