"""The text encoder: BERT, whose tokens see those of their own phrase.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019.
https://arxiv.org/abs/1810.04805

Dims: t captions, n tokens, d width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nexus.layers.mlp import Mlp
from nexus.layers.post_norm import CrossAttention
from nexus.models.cv.grounding_dino.config import GroundingDINOConfig

NUM_TYPES = 2
"""Kinds of sentences that BERT was trained with; captions are of the first."""


class BertBlock(nn.Module):
    """Self-attention, then an MLP with GELU, each normalized after its shortcut."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width, dropout, eps = config.text_dim, config.text_dropout, config.text_norm_eps
        self.self_attn = CrossAttention(width, config.text_num_heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, config.text_hidden_dim)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "t n d"], together: Bool[Tensor, "t 1 n n"]) -> Float[Tensor, "t n d"]:
        x = self.norm1(x + self.drop(self.self_attn(x, x, x, together)))
        return self.norm2(x + self.drop(self.mlp(x)))


class Bert(nn.Module):
    """Tokens with their places become features."""

    def __init__(self, config: GroundingDINOConfig) -> None:
        super().__init__()
        width = config.text_dim
        self.token_embed = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_id)
        self.pos_embed = nn.Embedding(config.text_positions, width)
        self.type_embed = nn.Embedding(NUM_TYPES, width)
        self.norm = nn.LayerNorm(width, eps=config.text_norm_eps)
        self.drop = nn.Dropout(config.text_dropout)
        self.blocks = nn.ModuleList([BertBlock(config) for _ in range(config.text_num_layers)])
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        tokens: Int[Tensor, "t n"],
        together: Bool[Tensor, "t n n"],
        places: Int[Tensor, "t n"],
        *,
        checkpointing: bool = False,
    ) -> Float[Tensor, "t n d"]:
        """Returns the features of the last block."""
        x = self.token_embed(tokens) + self.pos_embed(places) + self.type_embed.weight[0]
        x = self.drop(self.norm(x))
        for block in self.blocks:
            if checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, together[:, None], use_reentrant=False)
            else:
                x = block(x, together[:, None])
        return x
