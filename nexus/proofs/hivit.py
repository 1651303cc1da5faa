"""HiViT and its pre-training written once more from the paper, for want of a library that has them: patch by patch, and
pair by pair.

Zhang et al., "HiViT: Hierarchical Vision Transformer Meets Masked Image Modeling", 2022, Sec. 3.
"""

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core.formats import State
from nexus.models.cv.hivit import HiViTConfig
from nexus.models.cv.hivit_mae import HiViTMAEConfig
from nexus.proofs.family import PAPER, Family, Oracle
from nexus.proofs.masking import noise_of, reconstruction

UNITS = 4  # along a patch's side
MERGED = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column) of the four units that become one, in the authors' order


class Written(nn.Module):
    """What is written of both models: loops in the place of reshapes, weights under the authors' names."""

    config: Any
    weights: State

    def __init__(self, config: HiViTConfig | HiViTMAEConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.num_layers
        self.kinds = ["unit"] * (2 * first) + ["merge"] + ["unit"] * (2 * second) + ["merge"] + ["attention"] * third
        for name, shape in self._shapes().items():  # a parameter's name may have no dots
            self.register_parameter(name.replace(".", "/"), nn.Parameter(torch.empty(shape)))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def _encoder_shapes(self, *, relative_bias: bool) -> dict[str, tuple[int, ...]]:
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
            elif kind == "attention":
                shapes |= _block(name, width, int(width * config.mlp_ratio))
                if relative_bias:
                    table = ((2 * side - 1) ** 2, config.num_heads)
                    shapes[f"{name}.attn.relative_position_bias_table"] = table
            else:
                shapes |= _mlp(name, width, int(width * config.stem_mlp_ratio))
        return shapes

    def _patches(self, images: Tensor) -> list[Tensor]:
        """Returns the patches of square images, row by row."""
        patch, side = self.config.patch_size, _side(self.config)
        corners = [(patch * row, patch * column) for row in range(side) for column in range(side)]
        return [images[:, :, y : y + patch, x : x + patch] for y, x in corners]

    def _levels(self, patch: Tensor) -> list[Tensor]:
        """Returns what the three stages say of one patch, which sees no other (Sec. 3.1): all of its units in a row
        before each merging, and the token (b, d)."""
        unit = self.config.patch_size // UNITS
        kernel, bias = self.weights["patch_embed.proj.weight"], self.weights["patch_embed.proj.bias"]
        units, levels = {}, []
        for u in range(UNITS):
            for v in range(UNITS):
                square = patch[:, :, u * unit : (u + 1) * unit, v * unit : (v + 1) * unit]
                vector = torch.einsum("dcij,bcij->bd", kernel, square) + bias
                units[u, v] = self._norm(vector, "patch_embed.norm")
        for index, kind in enumerate(self.kinds):
            if kind == "unit":
                units = {place: self._mlp(x, f"blocks.{index}") for place, x in units.items()}
            elif kind == "merge":
                levels.append(torch.cat([units[place] for place in sorted(units)], dim=-1))
                half = math.isqrt(len(units)) // 2
                four = {
                    (u, v): torch.cat([units[2 * u + row, 2 * v + column] for row, column in MERGED], dim=-1)
                    for u in range(half)
                    for v in range(half)
                }
                reduction = self.weights[f"blocks.{index}.reduction.weight"]
                units = {place: self._norm(x, f"blocks.{index}.norm") @ reduction.T for place, x in four.items()}
        return [*levels, units[0, 0]]

    def _block(self, x: Tensor, name: str, heads: int) -> Tensor:
        return self._mlp(x + self._attend(self._norm(x, f"{name}.norm1"), f"{name}.attn", heads), name)

    def _attend(self, x: Tensor, name: str, heads: int) -> Tensor:
        """Attention, one query at a time; with a bias for the offset of each pair of patches where there is a table
        (Sec. 3.1)."""
        size, table = x.shape[-1] // heads, self.weights.get(f"{name}.relative_position_bias_table")
        q, k, v = (part.unflatten(-1, (heads, size)) for part in self._linear(x, f"{name}.qkv").chunk(3, -1))
        mixed = []
        for i in range(x.shape[1]):
            scores = torch.einsum("bme,bnme->bnm", q[:, i], k) / math.sqrt(size)
            if table is not None:
                scores = scores + torch.stack([table[self._offset(i, j)] for j in range(x.shape[1])])
            mixed.append(torch.einsum("bnm,bnme->bme", scores.softmax(dim=1), v).flatten(1))
        return self._linear(torch.stack(mixed, dim=1), f"{name}.proj")

    def _offset(self, i: int, j: int) -> int:
        """The table's row for patch j as patch i sees it."""
        side = _side(self.config)
        down, right = i // side - j // side, i % side - j % side
        return (down + side - 1) * (2 * side - 1) + right + side - 1

    def _mlp(self, x: Tensor, name: str) -> Tensor:
        hidden = self._linear(self._norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        return x + self._linear(hidden, f"{name}.mlp.fc2")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


class WrittenHiViT(Written):
    """HiViT by its definition: every patch for itself until the last stage."""

    config: HiViTConfig

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        width, classes = self.config.embed_dim, self.config.num_classes
        encoder = self._encoder_shapes(relative_bias=True)
        return encoder | _vectors({}, "fc_norm", width) | _linear("head", width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits of square images of the size that the model was made for."""
        self.weights = authors_names(dict(self.named_parameters()))
        tokens = [self._levels(patch)[-1] for patch in self._patches(images)]
        x = torch.stack(tokens, dim=1) + self.weights["absolute_pos_embed"]
        for index, kind in enumerate(self.kinds):
            if kind == "attention":
                x = self._block(x, f"blocks.{index}", self.config.num_heads)
        return self._linear(self._norm(x.mean(dim=1), "fc_norm"), "head")


class WrittenHiViTMAE(Written):
    """Masked pre-training of HiViT by its definition: image by image, and only what is seen is computed."""

    config: HiViTMAEConfig

    def __init__(self, config: HiViTMAEConfig) -> None:
        super().__init__(config)
        self.get_parameter("decoder_pos_embed").requires_grad_(False)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        config, width = self.config, self.config.decoder_dim
        shapes = self._encoder_shapes(relative_bias=False) | _vectors({}, "norm", 7 * config.embed_dim)
        shapes |= _linear("decoder_embed", 7 * config.embed_dim, width) | {"mask_token": (1, 1, width)}
        shapes["decoder_pos_embed"] = (1, _side(config) ** 2, width)
        for index in range(config.decoder_num_layers):
            shapes |= _block(f"decoder_blocks.{index}", width, int(width * config.mlp_ratio))
        pixels = config.patch_size**2 * config.in_channels
        return shapes | _vectors({}, "decoder_norm", width) | _linear("decoder_pred", width, pixels)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Returns the mean error on masked patches, whose noise is not among the smallest (He et al. 2022, Sec. 3)."""
        self.weights = authors_names(dict(self.named_parameters()))
        count = int(noise.shape[1] * (1 - self.config.mask_ratio))
        errors = []
        for image, numbers in zip(images.split(1), noise.tolist()):
            seen = sorted(range(len(numbers)), key=numbers.__getitem__)[:count]
            patches = self._patches(image)
            painted = self._paint(self._see(patches, seen), seen)
            errors += [
                self._error(painted[:, place], patch) for place, patch in enumerate(patches) if place not in seen
            ]
        return torch.stack(errors).mean()

    def _see(self, patches: list[Tensor], seen: list[int]) -> Tensor:
        """Returns what the encoder says of the patches that it sees: of each all three stages (Sec. 3.3)."""
        levels = [self._levels(patches[place]) for place in seen]
        places = [self.weights["absolute_pos_embed"][:, place] for place in seen]
        x = torch.stack([own[-1] + place for own, place in zip(levels, places)], dim=1)
        for index, kind in enumerate(self.kinds):
            if kind == "attention":
                x = self._block(x, f"blocks.{index}", self.config.num_heads)
        rows = [torch.cat([*own[:-1], x[:, place]], dim=-1) for place, own in enumerate(levels)]
        return self._norm(torch.stack(rows, dim=1), "norm")

    def _paint(self, latent: Tensor, seen: list[int]) -> Tensor:
        """Returns the decoder's values of every patch."""
        known = dict(zip(seen, self._linear(latent, "decoder_embed").unbind(1)))
        hidden = self.weights["mask_token"][0]
        count = self.weights["decoder_pos_embed"].shape[1]
        x = torch.stack([known.get(place, hidden) for place in range(count)], dim=1)
        x = x + self.weights["decoder_pos_embed"]
        for index in range(self.config.decoder_num_layers):
            x = self._block(x, f"decoder_blocks.{index}", self.config.decoder_num_heads)
        return self._linear(self._norm(x, "decoder_norm"), "decoder_pred")

    def _error(self, painted: Tensor, patch: Tensor) -> Tensor:
        target = patch[0].permute(1, 2, 0).flatten()
        if self.config.norm_pix_loss:
            target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
        return (painted[0] - target).square().mean()


def authors_names(state: Mapping[str, Tensor]) -> State:
    """Returns the written model's weights under the authors' names, which are ours too."""
    return {name.replace("/", "."): value for name, value in state.items()}


def _side(config: HiViTConfig | HiViTMAEConfig) -> int:
    assert isinstance(config.image_size, int)
    return config.image_size // config.patch_size


def _vectors(others: dict[str, int], norm: str, width: int) -> dict[str, tuple[int, ...]]:
    return {name: (size,) for name, size in {**others, f"{norm}.weight": width, f"{norm}.bias": width}.items()}


def _linear(name: str, given: int, wanted: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (wanted, given), f"{name}.bias": (wanted,)}


def _mlp(name: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    norm = _vectors({}, f"{name}.norm2", width)
    return norm | _linear(f"{name}.mlp.fc1", width, hidden) | _linear(f"{name}.mlp.fc2", hidden, width)


def _block(name: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    norm = _vectors({}, f"{name}.norm1", width) | _linear(f"{name}.attn.qkv", width, 3 * width)
    return norm | _linear(f"{name}.attn.proj", width, width) | _mlp(name, width, hidden)


def _written(paper: ModuleType, config: HiViTConfig) -> nn.Module:
    return WrittenHiViT(config)


def _written_mae(paper: ModuleType, config: HiViTMAEConfig) -> nn.Module:
    return WrittenHiViTMAE(config)


def _their_loss(model: nn.Module, images: Tensor) -> Tensor:
    return model(images, noise_of(images))


def draw(model: nn.Module) -> None:
    """Draws the written model's weights, and those of its norms around one."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)


_TINY = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 16,
    "num_layers": (1, 1, 2),
    "num_heads": 2,
}

HIVIT = Family(
    variants=("hivit_*",),
    tiny={**_TINY, "num_classes": 5},
    other_size=(48, 24),
    oracles=(
        Oracle(
            library=PAPER, build=_written, spelling="nexus", publish=authors_names, randomize=draw, other_size=False
        ),
    ),
)
HIVIT_MAE = Family(
    variants=("mae_hivit_*",),
    tiny={**_TINY, "decoder_dim": 12, "decoder_num_layers": 1, "decoder_num_heads": 3},
    other_size=(48, 24),
    oracles=(
        Oracle(
            library=PAPER,
            build=_written_mae,
            spelling="nexus",
            publish=authors_names,
            run=_their_loss,
            read=reconstruction,
            randomize=draw,
            other_size=False,
        ),
    ),
    read=reconstruction,
)
