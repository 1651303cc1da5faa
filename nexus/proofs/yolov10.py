"""YOLOv10 written once more from its paper, for want of a library to install: a layer is its number in the authors'
file, where it reads, and what it does.
"""

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.core.module import NexusModule
from nexus.models.cv.yolov10 import YOLOv10, YOLOv10Config
from nexus.proofs.family import PAPER, Family, Oracle


class Written:
    """Runs weights in the authors' names, as the paper's figures say, in plain functions; loops over places."""

    def __init__(self, state: Mapping[str, Tensor], shortcut: Sequence[int] = (2, 4, 6, 8)) -> None:
        self.state, self.shortcut = state, shortcut

    def unit(self, x: Tensor, name: str, stride: int = 1, act: bool = True) -> Tensor:
        """A convolution, its normalization with the kept statistics, and SiLU."""
        weight = self.state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
        mean, var, scale, shift = (
            self.state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-3).sqrt() * scale[:, None, None] + shift[:, None, None]
        return x * torch.sigmoid(x) if act else x

    def stage(self, x: Tensor, number: int) -> Tensor:
        """Half of the channels passes by, the other goes through the blocks, and all results are joined."""
        name = f"model.{number}"
        first, second = self.unit(x, f"{name}.cv1").chunk(2, 1)
        parts, block = [first, second], 0
        while any(key.startswith(f"{name}.m.{block}.") for key in self.state):
            parts.append(self.block(parts[-1], f"{name}.m.{block}", number in self.shortcut))
            block += 1
        return self.unit(torch.cat(parts, 1), f"{name}.cv2")

    def block(self, x: Tensor, name: str, shortcut: bool) -> Tensor:
        """Two convolutions, or the compact inverted block (Fig. 3b), whose middle may have a large kernel."""
        if f"{name}.cv2.conv.weight" in self.state:
            y = self.unit(self.unit(x, f"{name}.cv1"), f"{name}.cv2")
            return x + y if shortcut else y
        y = self.unit(self.unit(x, f"{name}.cv1.0"), f"{name}.cv1.1")
        if f"{name}.cv1.2.conv1.conv.weight" in self.state:
            y = F.silu(self.unit(y, f"{name}.cv1.2.conv", act=False) + self.unit(y, f"{name}.cv1.2.conv1", act=False))
        else:
            y = self.unit(y, f"{name}.cv1.2")
        return x + self.unit(self.unit(y, f"{name}.cv1.3"), f"{name}.cv1.4")

    def shrink(self, x: Tensor, number: int) -> Tensor:
        """Channels first, then the resolution (Sec. 3.2)."""
        return self.unit(self.unit(x, f"model.{number}.cv1"), f"model.{number}.cv2", stride=2, act=False)

    def pooling(self, x: Tensor) -> Tensor:
        """Maxima over 5, 9 and 13 pixels beside the map itself."""
        x = self.unit(x, "model.9.cv1")
        wide = [F.max_pool2d(F.pad(x, (k // 2,) * 4, value=-math.inf), k, 1) for k in (5, 9, 13)]
        return self.unit(torch.cat([x, *wide], 1), "model.9.cv2")

    def attention(self, x: Tensor) -> Tensor:
        """Attention for half of the channels (Fig. 3c)."""
        still, x = self.unit(x, "model.10.cv1").chunk(2, 1)
        b, d, h, w = x.shape
        heads = max(1, d // 64)
        size = d // heads
        qkv = self.unit(x, "model.10.attn.qkv", act=False).reshape(b, heads, 2 * size, h * w)
        query, key, value = qkv[:, :, : size // 2], qkv[:, :, size // 2 : size], qkv[:, :, size:]
        shares = torch.einsum("bmin,bmio->bmno", query, key).div((size // 2) ** 0.5).softmax(-1)
        mixed = torch.einsum("bmno,bmio->bmin", shares, value).reshape(b, d, h, w)
        mixed = mixed + self.unit(value.reshape(b, d, h, w), "model.10.attn.pe", act=False)
        x = x + self.unit(mixed, "model.10.attn.proj", act=False)
        x = x + self.unit(self.unit(x, "model.10.ffn.0"), "model.10.ffn.1", act=False)
        return self.unit(torch.cat([still, x], 1), "model.10.cv2")

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pyramid of strides 8, 16 and 32."""
        x = self.stage(self.unit(self.unit(x, "model.0", 2), "model.1", 2), 2)
        c3 = self.stage(self.unit(x, "model.3", 2), 4)
        c4 = self.stage(self.shrink(c3, 5), 6)
        c5 = self.attention(self.pooling(self.stage(self.shrink(c4, 7), 8)))
        m4 = self.stage(torch.cat([c5.repeat_interleave(2, 2).repeat_interleave(2, 3), c4], 1), 13)
        p3 = self.stage(torch.cat([m4.repeat_interleave(2, 2).repeat_interleave(2, 3), c3], 1), 16)
        p4 = self.stage(torch.cat([self.unit(p3, "model.17", 2), m4], 1), 19)
        return p3, p4, self.stage(torch.cat([self.shrink(p4, 20), c5], 1), 22)

    def head(self, maps: Sequence[Tensor], prefix: str) -> tuple[Tensor, Tensor]:
        """Logits and boxes of every place, by one of the two heads."""
        logits, boxes = [], []
        for level, (x, stride) in enumerate(zip(maps, (8, 16, 32))):
            box, cls = f"model.23.{prefix}cv2.{level}", f"model.23.{prefix}cv3.{level}"
            y = self.unit(self.unit(x, f"{box}.0"), f"{box}.1")
            sides = F.conv2d(y, self.state[f"{box}.2.weight"], self.state[f"{box}.2.bias"])
            z = self.unit(self.unit(x, f"{cls}.0.0"), f"{cls}.0.1")
            z = self.unit(self.unit(z, f"{cls}.1.0"), f"{cls}.1.1")
            scores = F.conv2d(z, self.state[f"{cls}.2.weight"], self.state[f"{cls}.2.bias"])
            bins = self.state["model.23.dfl.conv.weight"].flatten()
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    shares = sides[:, :, row, column].reshape(len(x), 4, len(bins)).softmax(-1)
                    left, top, right, bottom = ((shares * bins).sum(-1) * stride).T
                    cx, cy = (column + 0.5) * stride, (row + 0.5) * stride
                    boxes.append(torch.stack([cx - left, cy - top, cx + right, cy + bottom], 1))
                    logits.append(scores[:, :, row, column])
        return torch.stack(logits, 1), torch.stack(boxes, 1)


AUTHORS = {
    "stem": 0, "down2": 1, "stage2": 2, "down3": 3, "stage3": 4, "down4": 5, "stage4": 6, "down5": 7, "stage5": 8,
    "pooling": 9, "attention": 10, "top_down4": 13, "top_down3": 16, "shrink3": 17, "bottom_up4": 19, "shrink4": 20,
    "bottom_up5": 22,
}  # fmt: skip


WORDS = {
    "conv1": "cv1",
    "conv2": "cv2",
    "blocks": "m",
    "layers": "cv1",
    "mlp": "ffn",
    "large": "conv",
    "small": "conv1",
}


def in_the_authors_names(model: YOLOv10) -> State:
    """Returns a model's weights as the authors write them, by our names taken apart word by word."""
    state = {"model.23.dfl.conv.weight": torch.arange(float(model.config.num_bins)).view(1, -1, 1, 1).double()}
    for key, value in model.state_dict().items():
        words = key.split(".")
        if words[0].startswith("one_to_"):
            branch = {"box": "cv2", "cls": "cv3"}[words[1]]
            words[:2] = ["23", ("one2one_" if words[0] == "one_to_one" else "") + branch]
        else:
            words[0] = str(AUTHORS[words[0]])
            if words[1:2] == ["attention"]:
                words[1:3] = ["attn", {"position": "pe"}.get(words[2], words[2])]
            words = [WORDS.get(word, word) for word in words]
        state["model." + ".".join("bn" if word == "norm" else word for word in words)] = value
    return state


class WrittenYOLOv10(nn.Module):
    """Weights of its own under the authors' names, and what the paper does with them."""

    def __init__(self, config: YOLOv10Config) -> None:
        super().__init__()
        for name, value in in_the_authors_names(YOLOv10(config)).items():
            plain = name.replace(".", "/")  # a parameter's name may have no dots
            if "running" in name or "dfl" in name or not value.is_floating_point():
                self.register_buffer(plain, value.clone())
            else:
                self.register_parameter(plain, nn.Parameter(value.clone()))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the one-to-one head's logits and boxes of every place."""
        written = Written(authors_names(dict([*self.named_parameters(), *self.named_buffers()])))
        return torch.cat(written.head(written.maps(images), "one2one_"), dim=-1)


def authors_names(state: Mapping[str, Tensor]) -> State:
    """Returns the written model's weights under the authors' names."""
    return {name.replace("/", "."): value for name, value in state.items()}


def _written(paper: ModuleType, config: YOLOv10Config) -> nn.Module:
    return WrittenYOLOv10(config)


def enliven(model: nn.Module) -> None:
    """Draws statistics and biases; fresh kernels stay, and the bins of distances are what they are."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                value.normal_(std=0.2)


def _predictions(model: NexusModule, images: Tensor) -> Tensor:
    outputs = model(images)
    return torch.cat([outputs["pred_logits"], outputs["pred_boxes"]], dim=-1)


def shrink(config: YOLOv10Config) -> dict[str, Any]:
    """Returns what makes a variant narrow; which of its stages are compact, or have large kernels, stays."""
    return {"dims": (8, 8, 16, 24, 32), "depths": (1, 2, 1, 1), "neck_depth": 1, "num_classes": 5, "num_bins": 8}


YOLOV10 = Family(
    variants=("yolov10*",),
    tiny=shrink,
    image_size=(64, 96),
    other_size=(96, 32),
    oracles=(
        Oracle(
            library=PAPER,
            build=_written,
            spelling="authors",
            publish=authors_names,
            run=lambda model, images: model(images),
            read=_predictions,
            randomize=enliven,
        ),
    ),
    read=_predictions,
)
