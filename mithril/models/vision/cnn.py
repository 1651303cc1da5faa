"""Small convolutional networks: a forecast of a time series, and two tasks on one backbone."""

from mithril.logical.connection import IOKey
from mithril.logical.model import Model
from mithril.models.common import op
from mithril.models.convolution import Convolution1D, Convolution2D
from mithril.models.linear import MLP, Linear, LinearSVM


def simple_cnn(channels: int = 16, hidden_dim: int = 64, num_outputs: int = 1, name: str = "simple_cnn") -> Model:
    """Convolution, pooling and two dense layers over signals; `input` (n, c, w) to `output` (n, num_outputs)."""
    model = Model(name=name)
    model += Convolution1D(channels, kernel_size=5, padding=2)(input="input")
    model += op("relu")
    model += op("max_pool1d", kernel_size=2)
    model += op("flatten", start_dim=1)
    model += Linear(hidden_dim)
    model += op("relu")
    model += Linear(num_outputs)(output=IOKey("output"))
    return model


def multi_task_cnn(channels: tuple[int, ...] = (8, 16, 32), name: str = "multi_task_cnn") -> Model:
    """One backbone for images (n, c, h, w), one head that regresses `age`, one that classifies `gender` by an SVM.

    Keys: `input`; `age` (n, 1); `gender` (n, 1), the distance to the margin, and `pred_gender` (n, 1), its sign.
    """
    backbone = Model(name="backbone")
    for i, width in enumerate(channels):
        conv = Convolution2D(width, kernel_size=3, stride=2, padding=1, name=f"conv_{i}")
        backbone += conv(input="input") if i == 0 else conv
        if i < len(channels) - 1:
            backbone += op("max_pool2d", kernel_size=2)
    backbone += op("flatten", start_dim=1)
    model = Model(name=name)
    model |= backbone(input="input", output="features")
    for task, widths in (("age", [256, 64, 1]), ("gender", [32, 16, 1])):
        head = MLP([op("leaky_relu"), op("leaky_relu"), op("buffer")], widths, name=f"{task}_head")
        model |= head(input="features", output=IOKey("age") if task == "age" else "gender_features")
    model |= LinearSVM(name="svm")(
        input="gender_features", output=IOKey("gender"), decision_output=IOKey("pred_gender")
    )
    return model
