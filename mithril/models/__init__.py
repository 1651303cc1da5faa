"""Layers and models. Every operator of the table is a class of its own name: `Relu`, `Add`, `Concat`, `Buffer`.

Where a layer with parameters bears the name of its operator (`LayerNorm`, `Embedding`), the layer stands here.
"""

from mithril import ops
from mithril.logical.connection import Connection, IOKey
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.logical.primitive import primitive_class
from mithril.ops.table import OPS

for _row in list(OPS.values()):
    _class = primitive_class(_row)
    globals()[_class.__name__] = _class

from mithril.models.attention import MultiHeadAttention  # noqa: E402  (layers replace bare operators of the same name)
from mithril.models.convolution import (  # noqa: E402
    Convolution1D,
    Convolution2D,
    Convolution3D,
    TransposedConvolution1D,
    TransposedConvolution2D,
)
from mithril.models.gpt import gpt2  # noqa: E402
from mithril.models.linear import MLP, Embedding, Linear, LinearSVM  # noqa: E402
from mithril.models.loss import (  # noqa: E402
    AbsoluteError,
    BinaryCrossEntropy,
    HingeLoss,
    HuberLoss,
    KLDivergence,
    QuantileLoss,
    SquaredError,
    SquaredHingeLoss,
)
from mithril.models.metric import Accuracy, F1Score, Precision, Recall  # noqa: E402
from mithril.models.normalization import BatchNorm1D, BatchNorm2D, GroupNorm, LayerNorm, RMSNorm  # noqa: E402
from mithril.models.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell  # noqa: E402
from mithril.models.transformer import FeedForward, SelfAttention, transformer_block  # noqa: E402
from mithril.models.vision import *  # noqa: E402, F403
from mithril.models.vision import __all__ as _VISION  # noqa: E402

_LAYERS = [
    *_VISION,
    *("Accuracy", "F1Score", "Precision", "Recall"),
    *("gpt2", "FeedForward", "SelfAttention", "transformer_block"),
    *("MultiHeadAttention", "Convolution1D", "Convolution2D", "Convolution3D", "TransposedConvolution1D"),
    *("TransposedConvolution2D", "MLP", "Embedding", "Linear", "BatchNorm1D", "BatchNorm2D", "GroupNorm", "LayerNorm"),
    *("RMSNorm", "GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "LinearSVM", "AbsoluteError"),
    *("BinaryCrossEntropy", "HingeLoss", "HuberLoss", "KLDivergence", "QuantileLoss", "SquaredError"),
    *("SquaredHingeLoss",),
]
_OPERATORS = [primitive_class(row).__name__ for row in OPS.values()]
__all__ = [*dict.fromkeys([*_LAYERS, *_OPERATORS]), "Connection", "IOKey", "Model", "Operator"]
