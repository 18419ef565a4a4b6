"""A transformer encoder and a CNN with random weights, exported by PyTorch: `export_models.py FOLDER`."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn


def encoder() -> tuple[nn.Module, torch.Tensor]:
    """Six layers, 512 wide, eight heads, 64 tokens."""
    layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), torch.randn(2, 64, 512)


def cnn() -> tuple[nn.Module, torch.Tensor]:
    """Twelve convolutions with residuals, in four stages."""

    class Block(nn.Module):
        def __init__(self, width: int, wider: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(width, wider, 3, stride=2, padding=1)
            self.second = nn.Conv2d(wider, wider, 3, padding=1)
            self.third = nn.Conv2d(wider, wider, 3, padding=1)
            self.norm = nn.BatchNorm2d(wider)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.first(x)))
            return torch.relu(x + self.third(torch.relu(self.second(x))))

    widths = [3, 32, 64, 128, 256]
    blocks = [Block(a, b) for a, b in pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100)]
    return nn.Sequential(*blocks, *head), torch.randn(2, 3, 128, 128)


def main(folder: Path) -> None:
    """Write `encoder.onnx` and `cnn.onnx`."""
    torch.backends.mha.set_fastpath_enabled(False)
    for make in (encoder, cnn):
        torch.manual_seed(0)
        model, example = make()
        file = folder / f"{make.__name__}.onnx"
        torch.onnx.export(model.eval(), (example,), file, dynamo=True, external_data=False, verbose=False)
        print(file.name, file.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
