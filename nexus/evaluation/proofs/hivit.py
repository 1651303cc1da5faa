"""HiViT written once more from its paper, for want of a library that has it: patch by patch, and pair by pair.

Zhang et al., "HiViT: Hierarchical Vision Transformer Meets Masked Image Modeling", 2022, Sec. 3.
"""

import math
from collections.abc import Mapping
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.evaluation.proofs.family import PAPER, Family, Oracle
from nexus.models.cv.hivit import HiViTConfig

UNITS = 4  # along a patch's side
MERGED = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column) of the four units that become one, in the authors' order


class WrittenHiViT(nn.Module):
    """HiViT by its definition: every patch for itself until the last stage, loops in the place of reshapes."""

    def __init__(self, config: HiViTConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.num_layers
        self.kinds = ["unit"] * (2 * first) + ["merge"] + ["unit"] * (2 * second) + ["merge"] + ["attention"] * third
        for name, shape in self._shapes().items():  # a parameter's name may have no dots
            self.register_parameter(name.replace(".", "/"), nn.Parameter(torch.empty(shape)))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        width, unit, side = config.embed_dim // 4, config.patch_size // UNITS, _side(config)
        shapes: dict[str, tuple[int, ...]] = {
            "absolute_pos_embed": (1, side * side, config.embed_dim),
            "patch_embed.proj.weight": (width, config.in_channels, unit, unit),
            **_vectors({"patch_embed.proj.bias": width}, "patch_embed.norm", width),
        }
        for index, kind in enumerate(self.kinds):
            name = f"blocks.{index}"
            if kind == "merge":
                shapes |= _vectors({}, f"{name}.norm", 4 * width) | {f"{name}.reduction.weight": (2 * width, 4 * width)}
                width *= 2
                continue
            if kind == "attention":
                shapes |= _vectors({}, f"{name}.norm1", width)
                table = ((2 * side - 1) ** 2, config.num_heads)
                shapes[f"{name}.attn.relative_position_bias_table"] = table
                shapes |= _linear(f"{name}.attn.qkv", width, 3 * width) | _linear(f"{name}.attn.proj", width, width)
            hidden = int(width * (config.mlp_ratio if kind == "attention" else config.stem_mlp_ratio))
            shapes |= _vectors({}, f"{name}.norm2", width)
            shapes |= _linear(f"{name}.mlp.fc1", width, hidden) | _linear(f"{name}.mlp.fc2", hidden, width)
        return shapes | _vectors({}, "fc_norm", width) | _linear("head", width, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of square images of the size that the model was made for."""
        self.weights = authors_names(dict(self.named_parameters()))
        patch, side = self.config.patch_size, _side(self.config)
        corners = [(patch * row, patch * column) for row in range(side) for column in range(side)]
        tokens = [self._patch(images[:, :, y : y + patch, x : x + patch]) for y, x in corners]
        x = torch.stack(tokens, dim=1) + self.weights["absolute_pos_embed"]
        for index, kind in enumerate(self.kinds):
            if kind == "attention":
                x = self._mlp(x + self._attend(self._norm(x, f"blocks.{index}.norm1"), index), index)
        return self._linear(self._norm(x.mean(dim=1), "fc_norm"), "head")

    def _patch(self, patch: Tensor) -> Tensor:
        """Returns the token (b, d) of one patch, which sees no other (Sec. 3.1)."""
        unit = self.config.patch_size // UNITS
        kernel, bias = self.weights["patch_embed.proj.weight"], self.weights["patch_embed.proj.bias"]
        units = {}
        for u in range(UNITS):
            for v in range(UNITS):
                square = patch[:, :, u * unit : (u + 1) * unit, v * unit : (v + 1) * unit]
                vector = torch.einsum("dcij,bcij->bd", kernel, square) + bias
                units[u, v] = self._norm(vector, "patch_embed.norm")
        for index, kind in enumerate(self.kinds):
            if kind == "unit":
                units = {place: self._mlp(x, index) for place, x in units.items()}
            elif kind == "merge":
                half = math.isqrt(len(units)) // 2
                four = {
                    (u, v): torch.cat([units[2 * u + row, 2 * v + column] for row, column in MERGED], dim=-1)
                    for u in range(half)
                    for v in range(half)
                }
                reduction = self.weights[f"blocks.{index}.reduction.weight"]
                units = {place: self._norm(x, f"blocks.{index}.norm") @ reduction.T for place, x in four.items()}
        return units[0, 0]

    def _attend(self, x: Tensor, index: int) -> Tensor:
        """Attention with a bias for the offset of each pair of patches, one query at a time (Sec. 3.1)."""
        side, heads = _side(self.config), self.config.num_heads
        size = x.shape[-1] // heads
        rows = 2 * side - 1
        table = self.weights[f"blocks.{index}.attn.relative_position_bias_table"].reshape(rows, rows, heads)
        q, k, v = (
            part.unflatten(-1, (heads, size)) for part in self._linear(x, f"blocks.{index}.attn.qkv").chunk(3, -1)
        )
        places = [(row, column) for row in range(side) for column in range(side)]
        mixed = []
        for i, (row, column) in enumerate(places):
            bias = torch.stack([table[row - r + side - 1, column - c + side - 1] for r, c in places])
            shares = (torch.einsum("bme,bnme->bnm", q[:, i], k) / math.sqrt(size) + bias).softmax(dim=1)
            mixed.append(torch.einsum("bnm,bnme->bme", shares, v).flatten(1))
        return self._linear(torch.stack(mixed, dim=1), f"blocks.{index}.attn.proj")

    def _mlp(self, x: Tensor, index: int) -> Tensor:
        hidden = self._linear(self._norm(x, f"blocks.{index}.norm2"), f"blocks.{index}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        return x + self._linear(hidden, f"blocks.{index}.mlp.fc2")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def authors_names(state: Mapping[str, Tensor]) -> State:
    """Returns the written model's weights under the authors' names, which are ours too."""
    return {name.replace("/", "."): value for name, value in state.items()}


def _side(config: HiViTConfig) -> int:
    assert isinstance(config.image_size, int)
    return config.image_size // config.patch_size


def _vectors(others: dict[str, int], norm: str, width: int) -> dict[str, tuple[int, ...]]:
    return {name: (size,) for name, size in {**others, f"{norm}.weight": width, f"{norm}.bias": width}.items()}


def _linear(name: str, given: int, wanted: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (wanted, given), f"{name}.bias": (wanted,)}


def _written(paper: ModuleType, config: HiViTConfig) -> nn.Module:
    return WrittenHiViT(config)


def draw(model: nn.Module) -> None:
    """Draws the written model's weights, and those of its norms around one."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)


HIVIT = Family(
    variants=("hivit_*",),
    tiny={
        "image_size": 32,
        "patch_size": 8,
        "num_classes": 5,
        "embed_dim": 16,
        "num_layers": (1, 1, 2),
        "num_heads": 2,
    },
    other_size=(48, 24),
    oracles=(
        Oracle(
            library=PAPER, build=_written, spelling="nexus", publish=authors_names, randomize=draw, other_size=False
        ),
    ),
)
