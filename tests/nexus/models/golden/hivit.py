"""Writes hivit.json: what the authors' HiViT gives for weights and images that a formula draws.

    python tests/nexus/models/golden/hivit.py PATH/TO/self_supervised/models/models_hivit.py

The authors' file (zhangxiaosong18/hivit at 27183396) needs `timm.layers` in the place of `timm.models.layers`, and
the cast of its attention to float32 taken out, for numbers in float64.
"""

import importlib.util
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

SETTINGS = {"embed_dim": 16, "num_heads": 2, "num_classes": 3}
DEPTHS = (1, 2, 2)
IMAGE_SIZE, PATCH_SIZE = 48, 16


def draw(name: str, shape: Sequence[int]) -> Tensor:
    """Returns numbers that depend on the name and the place alone."""
    count = torch.Size(shape).numel()
    phase = zlib.crc32(name.encode()) % 1000
    values = torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase).reshape(tuple(shape))
    return 1 + 0.2 * values if "norm" in name and name.endswith("weight") else 0.3 * values


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {name: draw(name, shape) for name, shape in shapes.items()}


def images() -> Tensor:
    return 3 * draw("images", (2, 3, IMAGE_SIZE, IMAGE_SIZE))


def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("models_hivit", path)
    authors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(authors)
    model = authors.HiViT(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        depths=list(DEPTHS),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **SETTINGS,
    )
    model = model.double().eval()
    shapes = {name: value.shape for name, value in model.named_parameters()}
    model.load_state_dict(model.state_dict() | weights(shapes))
    logits = model(images())
    (logits * draw("direction", logits.shape)).sum().backward()
    results = {
        "logits": logits.tolist(),
        "gradients": {
            name: [parameter.grad.sum().item(), (parameter.grad * draw("probe", parameter.shape)).sum().item()]
            for name, parameter in model.named_parameters()
        },
        "buffers": [name for name, _ in model.named_buffers()],
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
