"""Layers and models. Every operator of the table is a class of its own name: `Relu`, `Add`, `Concat`, `Buffer`.

Where a layer with parameters bears the name of its operator (`LayerNorm`, `Embedding`), the layer stands here.
"""

from typing import Any as _Any

from mithril.errors import nearest as _nearest
from mithril.logical.connection import Connection, IOKey
from mithril.logical.model import Model
from mithril.logical.operator import Operator
from mithril.logical.primitive import primitive_class as _class_of
from mithril.models.attention import MultiHeadAttention
from mithril.models.convolution import (
    Convolution1D,
    Convolution2D,
    Convolution3D,
    TransposedConvolution1D,
    TransposedConvolution2D,
)
from mithril.models.gpt import gpt2
from mithril.models.kernel import DistanceMatrix, GaussianProcess, KernelSVM, PolynomialKernel, RBFKernel
from mithril.models.linear import MLP, Embedding, Linear, LinearSVM
from mithril.models.loss import (
    AbsoluteError,
    BinaryCrossEntropy,
    HingeLoss,
    HuberLoss,
    KLDivergence,
    ProbabilityCrossEntropy,
    QuantileLoss,
    SquaredError,
    SquaredHingeLoss,
)
from mithril.models.manifold import MDS, TSNE, joint_probabilities
from mithril.models.metric import AUC, Accuracy, F1Score, Precision, Recall
from mithril.models.normalization import BatchNorm1D, BatchNorm2D, GroupNorm, LayerNorm, RMSNorm
from mithril.models.position import LearnedPositionalEncoding, RotaryEmbedding, SinusoidalPositionalEncoding
from mithril.models.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from mithril.models.regression import LogisticRegression, PolynomialFeatures, PolynomialRegression
from mithril.models.sequence import EncoderDecoder, ManyToOne, OneToMany
from mithril.models.transformer import FeedForward, QuickGelu, SelfAttention, transformer_block
from mithril.models.vision import (
    clip,
    modified_resnet,
    multi_task_cnn,
    resnet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    simple_cnn,
    vision_transformer,
)
from mithril.ops.table import OPS as _OPS

for _row in list(_OPS.values()):
    globals().setdefault(_class_of(_row).__name__, _class_of(_row))
    _class_of(_row).__module__ = __name__

__all__ = [
    name for name, value in globals().items() if name[0] != "_" and getattr(value, "__module__", "")[:7] == "mithril"
]


def __getattr__(name: str) -> _Any:
    raise AttributeError(f"mithril.models has no '{name}'.{_nearest(name, __all__)}")
