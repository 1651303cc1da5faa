"""YOLO-World written once more from its paper, for want of a library to install: the authors' names, and loops over
heads, texts and sides. Kept results of the authors' own code are compared in `tests/nexus/models/test_yolo_world.py`.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.core.module import NexusModule
from nexus.models.cv.yolo_world import YOLOWorld, YOLOWorldConfig
from nexus.proofs.family import PAPER, Family, Oracle
from nexus.proofs.yolov10 import Written, authors_names, enliven

HEAD, TEXT = "bbox_head.head_module", "backbone.text_model.model"


class WrittenWorld:
    """Runs weights in the authors' names, as the paper says."""

    def __init__(self, state: Mapping[str, Tensor], heads: Sequence[int], pooling_heads: int) -> None:
        self.state, self.heads, self.pooling_heads = state, heads, pooling_heads
        self.unit = Written(state).unit

    def stage(self, x: Tensor, name: str, shortcut: bool, texts: Tensor | None = None, heads: int = 1) -> Tensor:
        """Half of the channels goes through the blocks; with texts their gate is gathered too (Fig. 4)."""
        parts, block = list(self.unit(x, f"{name}.main_conv").chunk(2, 1)), 0
        while f"{name}.blocks.{block}.conv1.conv.weight" in self.state:
            inner = f"{name}.blocks.{block}"
            y = self.unit(self.unit(parts[-1], f"{inner}.conv1"), f"{inner}.conv2")
            parts.append(parts[-1] + y if shortcut else y)
            block += 1
        if texts is not None:
            parts.append(self.gate(parts[-1], f"{name}.attn_block", texts, heads))
        return self.unit(torch.cat(parts, 1), f"{name}.final_conv")

    def gate(self, x: Tensor, name: str, texts: Tensor, heads: int) -> Tensor:
        """Max-sigmoid attention (Eq. 1), head by head and text by text."""
        guides, projected = self.linear(texts, f"{name}.guide_fc"), self.unit(x, f"{name}.project_conv", act=False)
        width, gated = x.shape[1] // heads, []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            best = torch.full_like(x[:, 0], -torch.inf)
            for text in range(texts.shape[1]):
                best = torch.maximum(best, (x[:, part] * guides[:, text, part, None, None]).sum(1))
            scale = torch.sigmoid(best / width**0.5 + self.state[f"{name}.bias"][head])
            gated.append(projected[:, part] * scale[:, None])
        return torch.cat(gated, 1)

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A fully connected layer."""
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def normed(self, x: Tensor, name: str) -> Tensor:
        """A layer norm and a fully connected layer."""
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return self.linear(scaled * self.state[f"{name}.0.weight"] + self.state[f"{name}.0.bias"], f"{name}.1")

    def pooled(self, texts: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Texts look at nine maxima of each map (Sec. 3.3)."""
        name, seen = "neck.text_enhancer", []
        for level, x in enumerate(maps):
            weight, bias = (self.state[f"{name}.projections.{level}.conv.{key}"] for key in ("weight", "bias"))
            seen.append(F.adaptive_max_pool2d(F.conv2d(x, weight, bias), 3).flatten(2).mT)
        keys = torch.cat(seen, 1)
        query, key, value = (
            self.normed(x, f"{name}.{part}") for part, x in (("query", texts), ("key", keys), ("value", keys))
        )
        width, mixed = query.shape[-1] // self.pooling_heads, []
        for head in range(self.pooling_heads):
            part = slice(head * width, (head + 1) * width)
            shares = (query[..., part] @ key[..., part].mT / width**0.5).softmax(-1)
            mixed.append(shares @ value[..., part])
        return texts + self.linear(torch.cat(mixed, -1), f"{name}.proj")

    def maps(self, x: Tensor, texts: Tensor) -> list[Tensor]:
        """The pyramid of strides 8, 16 and 32."""
        image, found = "backbone.image_model", []
        x = self.unit(x, f"{image}.stem", 2)
        for number in (1, 2, 3, 4):
            x = self.stage(self.unit(x, f"{image}.stage{number}.0", 2), f"{image}.stage{number}.1", shortcut=True)
            found.append(x)
        x = self.unit(x, f"{image}.stage4.2.conv1")
        wide = [F.max_pool2d(F.pad(x, (k // 2,) * 4, value=-torch.inf), k, 1) for k in (5, 9, 13)]
        _, c3, c4, _ = found
        c5 = self.unit(torch.cat([x, *wide], 1), f"{image}.stage4.2.conv2")
        h3, h4, h5 = self.heads
        m4 = self.stage(torch.cat([double(c5), c4], 1), "neck.top_down_layers.0", False, texts, h4)
        p3 = self.stage(torch.cat([double(m4), c3], 1), "neck.top_down_layers.1", False, texts, h3)
        if "neck.text_enhancer.proj.weight" in self.state:
            texts = self.pooled(texts, [p3, m4, c5])
        down = self.unit(p3, "neck.downsample_layers.0", 2)
        p4 = self.stage(torch.cat([down, m4], 1), "neck.bottom_up_layers.0", False, texts, h4)
        down = self.unit(p4, "neck.downsample_layers.1", 2)
        return [p3, p4, self.stage(torch.cat([down, c5], 1), "neck.bottom_up_layers.1", False, texts, h5)]

    def head(self, maps: Sequence[Tensor], texts: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and boxes of every place."""
        logits, boxes = [], []
        for level, (x, stride) in enumerate(zip(maps, (8, 16, 32))):
            fits, sides = self.branch(x, f"{HEAD}.cls_preds.{level}"), self.branch(x, f"{HEAD}.reg_preds.{level}")
            logits.append(self.contrast(fits, texts, f"{HEAD}.cls_contrasts.{level}").flatten(2).mT)
            shares = sides.unflatten(1, (4, -1)).softmax(2)
            bins = torch.arange(shares.shape[2], dtype=x.dtype)
            left, top, right, bottom = (shares * bins[:, None, None]).sum(2).mul(stride).unbind(1)
            cy, cx = torch.meshgrid(
                *[(torch.arange(n, dtype=x.dtype) + 0.5) * stride for n in x.shape[2:]], indexing="ij"
            )
            boxes.append(torch.stack([cx - left, cy - top, cx + right, cy + bottom], -1).flatten(1, 2))
        return torch.cat(logits, 1), torch.cat(boxes, 1)

    def branch(self, x: Tensor, name: str) -> Tensor:
        """Two convolutions, and one of a pixel."""
        y = self.unit(self.unit(x, f"{name}.0"), f"{name}.1")
        return F.conv2d(y, self.state[f"{name}.2.weight"], self.state[f"{name}.2.bias"])

    def contrast(self, x: Tensor, texts: Tensor, name: str) -> Tensor:
        """Products with texts of length 1 (Eq. 2), of places of length 1 or normalized by the batch's statistics."""
        if f"{name}.norm.weight" in self.state:
            mean, var, scale, shift = (
                self.state[f"{name}.norm.{key}"][:, None, None]
                for key in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / (var + 1e-3).sqrt() * scale + shift
        else:
            x = x / x.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        texts = texts / texts.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)
        fits = torch.einsum("bdhw,bkd->bkhw", x, texts)
        return fits * self.state[f"{name}.logit_scale"].exp() + self.state[f"{name}.bias"]


def double(x: Tensor) -> Tensor:
    """Each place four times."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


WORDS = {
    "text": "", "top_down": "top_down_layers", "bottom_up": "bottom_up_layers", "shrink": "downsample_layers",
    "pooling": "text_enhancer", "cls": "cls_preds", "box": "reg_preds", "contrast": "cls_contrasts",
    "attention": "attn_block", "guide": "guide_fc", "project": "project_conv", "norm": "bn",
}  # fmt: skip


def in_the_authors_names(model: YOLOWorld) -> State:
    """Returns a model's weights as the authors write them, without text tower and vocabulary, word by word."""
    found = {}
    for key, value in model.state_dict().items():
        words = key.split(".")
        if words[0] in ("text", "vocabulary"):
            continue
        in_stage = "attn_block" not in words and "pooling" not in words and not key.startswith("backbone.stage4.2")
        stage = in_stage and "blocks" not in words and words[-3] in ("conv1", "conv2")
        if stage:
            words[-3] = {"conv1": "main_conv", "conv2": "final_conv"}[words[-3]]
        kept = "norm" if words[1] == "contrast" else "bn"
        words = [kept if word == "norm" else WORDS.get(word, word) for word in words]
        if words[1] == "text_enhancer" and words[2] == "projections":
            words.insert(4, "conv")
        prefix = {"backbone": "backbone.image_model", "neck": "neck", "head": HEAD}[words[0]]
        found[".".join([prefix, *words[1:]])] = value
    return found


class WrittenYOLOWorld(nn.Module):
    """Weights of its own under the authors' names, the text tower among them, and what the paper does with them."""

    def __init__(self, config: YOLOWorldConfig) -> None:
        super().__init__()
        model = YOLOWorld(config)
        self.heads, self.pooling_heads = config.neck_num_heads, config.pooling_num_heads
        assert model.text is not None
        tower = {f"{TEXT}.{key}": value for key, value in _hub_tower(model.text.state_dict()).items()}
        for name, value in {**in_the_authors_names(model), **tower}.items():
            plain = name.replace(".", "/")  # a parameter's name may have no dots
            if "running" in name or name.startswith(TEXT) or not value.is_floating_point():
                self.register_buffer(plain, value.clone())
            else:
                self.register_parameter(plain, nn.Parameter(value.clone()))

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of the texts of the proof, and boxes of every place."""
        state = authors_names(dict([*self.named_parameters(), *self.named_buffers()]))
        written, texts = WrittenWorld(state, self.heads, self.pooling_heads), _texts(images, state)
        return torch.cat(written.head(written.maps(images, texts), texts), dim=-1)


def _hub_tower(state: Mapping[str, Tensor]) -> State:
    """Returns a text tower under the names of transformers."""
    names = {
        "token_embed": "text_model.embeddings.token_embedding", "norm": "text_model.final_layer_norm",
        "head": "text_projection",
    }  # fmt: skip
    found: State = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        if key == "pos_embed":
            found["text_model.embeddings.position_embedding.weight"] = value[0]
        elif first != "blocks":
            found[f"{names[first]}.{rest}"] = value
        elif ".qkv." in rest:
            for part, rows in zip("qkv", value.chunk(3)):
                found[f"text_model.encoder.layers.{rest.replace('attn.qkv', f'self_attn.{part}_proj')}"] = rows
        else:
            rest = rest.replace("attn.proj", "self_attn.out_proj").replace("norm", "layer_norm")
            found[f"text_model.encoder.layers.{rest}"] = value
    return found


def _texts(images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Returns vectors of three texts, other ones for each image."""
    width = state[f"{HEAD}.cls_preds.0.2.weight"].shape[0]
    angles = torch.arange(len(images) * 3 * width, dtype=torch.float64).reshape(len(images), 3, width)
    return torch.cos(angles * 1.7).to(images)


def _written(paper: ModuleType, config: YOLOWorldConfig) -> nn.Module:
    return WrittenYOLOWorld(config)


def _predictions(model: NexusModule, images: Tensor) -> Tensor:
    texts = _texts(images, {f"{HEAD}.cls_preds.0.2.weight": torch.empty(model.config.projection_dim, 0)})
    outputs = model(images, texts=texts)
    return torch.cat([outputs["pred_logits"], outputs["pred_boxes"]], dim=-1)


def shrink(config: YOLOWorldConfig) -> dict[str, Any]:
    """Returns what makes a variant narrow; which kind of YOLO-World it is stays."""
    return {
        "dims": (8, 8, 16, 24, 32), "depths": (1, 2, 1, 1), "neck_depth": 1, "neck_num_heads": (1, 2, 4),
        "num_bins": 8, "class_dim": 20, "projection_dim": 24, "pooling_dim": 16,
        "pooling_num_heads": 2, "text_dim": 16, "text_num_layers": 2, "text_num_heads": 2, "vocab_size": 64,
        "context_length": 8, "score_threshold": 0.0,
    }  # fmt: skip


YOLO_WORLDS = Family(
    variants=("yolo_world*",),
    tiny=shrink,
    image_size=(64, 96),
    other_size=(96, 64),
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
    dynamic=True,
)
