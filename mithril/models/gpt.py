"""GPT-2, a language model. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

Parameters bear the names of the published checkpoint, whose dense layers keep their weights as (in, out).
"""

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op, parameter
from mithril.models.normalization import LayerNorm
from mithril.models.transformer import FeedForward, SelfAttention, transformer_block


class Projection(Model):
    """`input @ weight + bias`, the dense layer of GPT-2; `weight` is (i, dimension)."""

    def __init__(self, dimension: int, name: str | None = None):
        super().__init__(name)
        weight, bias = parameter("weight", [None, dimension]), parameter("bias", [dimension])
        self |= op("linear")(input="input", weight=weight.T, bias=bias, output=IOKey("output"))
        self.set_cin("input")


def gpt2(
    vocab_size: int = 50257,
    context_length: int = 1024,
    embed_dim: int = 768,
    num_layers: int = 12,
    num_heads: int = 12,
    name: str = "gpt2",
) -> Model:
    """GPT-2; the defaults are the small one with 124 M parameters.

    Keys: `input`, token numbers (n, t) with t at most `context_length`; `logits` (n, t, vocab_size), of the next token,
    with the weights of the token embedding; `embeddings` (n, t, embed_dim), the tokens after the last norm.
    """
    model = Model(name=name)
    tokens = IOKey("input", type=int)
    table = parameter("wte_weight", [vocab_size, embed_dim])
    places = parameter("wpe_weight", [context_length, embed_dim])
    x = op("embedding")(input=tokens, weight=table) + places[: tokens.shape[1]]
    for i in range(num_layers):
        names = ("c_attn", "c_proj"), ("c_fc", "c_proj")
        attention = SelfAttention(embed_dim, num_heads, True, names[0], Projection, name="attn")
        mlp = FeedForward(embed_dim, 4 * embed_dim, op("gelu", approximate="tanh"), names[1], Projection, name="mlp")
        x = transformer_block(attention, mlp, ("ln_1", "ln_2"), 1e-5, name=f"h_{i}")(x)
    model |= LayerNorm(1e-5, name="ln_f")(x, output=IOKey("embeddings"))
    model |= op("linear")(input="embeddings", weight=table, output=IOKey("logits"))
    model.set_cin("input")
    return model
