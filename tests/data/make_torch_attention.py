"""Exports tests/data/torch_attention.onnx with PyTorch 2.13: `python make_torch_attention.py OUT.onnx`.

PyTorch is no dependency of the tests, so what its exporter writes is kept. Run it outside of any folder
whose name should not be in the file: the exporter writes the path of this script into every node.
"""

import sys

import torch


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(4, 4)

    def forward(self, x):
        y = self.project(x)
        return torch.softmax(y * 2, -1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = Attention()

    def forward(self, x):
        return self.attn(x) + x


if __name__ == "__main__":
    torch.manual_seed(0)
    example = (torch.ones(2, 4),)
    torch.onnx.export(Model().eval(), example, sys.argv[1], dynamo=True, external_data=False)
