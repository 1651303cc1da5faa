"""Models on a mesh of devices against one device, in a process of their own: `mesh_run.py torch|jax model dtype ...`.

Prints one JSON line for each model and dtype. Torch's four processes come from torchrun, or are forked here.
"""

import json
import os
import sys
import traceback

import numpy as np

import mithril as ml
from mithril import IOKey, Model
from mithril.models import (
    BatchNorm2D,
    Conv2D,
    ConvTranspose2D,
    CrossEntropy,
    Dropout,
    Flatten,
    Gelu,
    Linear,
    MaxPool2D,
    Relu,
    vision_transformer,
)
from mithril.models import Convolution2D as Convolution

BY_ROW, BY_COLUMN = ("model", None), (None, "model")


def chain(name, *layers):
    """Layers one behind the other."""
    model = Model(name=name)
    for layer in layers[:-1]:
        model += layer
    model += layers[-1](output=IOKey("output"))
    return model


def mlp():
    """Columns of the first layer, then rows of the second, so that one sum is exchanged."""
    model = chain("mlp", Linear(16, name="fc1"), Gelu(), Dropout(0.5), Linear(4, name="fc2"))
    return model, (8, 12), {"fc1_weight": BY_ROW, "fc1_bias": ("model",), "fc2_weight": BY_COLUMN}


def vit():
    """Attention by heads, the feed-forward part by width."""
    model = vision_transformer(image_size=8, patch_size=4, embed_dim=16, num_layers=2, num_heads=4, num_classes=4)
    rules = {"*_qkv_weight": BY_ROW, "*_qkv_bias": ("model",), "*_attn_proj_weight": BY_COLUMN}
    return model, (4, 3, 8, 8), {**rules, "*_fc1_weight": BY_ROW, "*_fc1_bias": ("model",), "*_fc2_weight": BY_COLUMN}


def cnn():
    """Convolutions by output channel; batch norm sees the whole batch; one layer has groups, one is transposed."""
    grouped = Model(name="grouped")
    weight = IOKey("weight", shape=[8, 4, 3, 3], trainable=True)
    grouped |= Conv2D(padding=1, groups=2)(input="input", weight=weight, output=IOKey("output"))
    wider = Model(name="wider")
    weight = IOKey("weight", shape=[8, 4, 2, 2], trainable=True)
    wider |= ConvTranspose2D(stride=2)(input="input", weight=weight, output=IOKey("output"))
    layers = [Convolution(8, 3, padding=1, name="conv1"), BatchNorm2D(8, name="bn"), Relu(), MaxPool2D(2), grouped]
    layers += [wider, Relu(), Convolution(8, 3, stride=2, padding=1, name="conv2"), Relu(), Flatten(start_dim=1)]
    cut = ("model", None, None, None)
    rules = {"conv?_weight": cut, "conv?_bias": ("model",), "grouped_weight": cut, "wider_weight": (None, "model")}
    return chain("cnn", *layers, Linear(4, name="head")), (4, 3, 8, 8), rules


def encoder():
    """A torch module, brought over; its attention tears the axis apart that cuts the projections."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
            self.head = torch.nn.Linear(16, 4)

        def forward(self, input):
            return self.head(self.layer(input).mean(1))

    model, _ = ml.from_torch(Net().eval(), torch.zeros(4, 6, 16))
    rules = {"*_in_proj_weight": BY_ROW, "*_linear1_weight": BY_ROW, "*_linear1_bias": ("model",)}
    return model, (4, 6, 16), {**rules, "*_linear2_weight": BY_COLUMN}


def train(backend, build, on_mesh):
    """Outputs, gradients and new state of a step of training; on a mesh, also the local shapes of what was cut."""
    model, shape, rules = build()
    random = np.random.default_rng(0)
    data = {"input": random.standard_normal(shape), "target": random.integers(0, 4, shape[0])}
    trained = ml.TrainModel(model)
    trained.add_loss(CrossEntropy(), input="output", target="target")
    compiled = ml.compile(trained, backend, shapes={"input": list(shape)}, data_keys=set(data))
    params, state = compiled.randomize_params(seed=0), compiled.initial_state(seed=0)
    if on_mesh:
        params, data = backend.shard(params, rules), {k: backend.array(v, shard=("data",)) for k, v in data.items()}
    outputs, gradients, *rest = compiled.evaluate_all(params, data, {"loss": 1.0}, state)
    values = {**outputs, **{f"gradient {k}": v for k, v in gradients.items()}, **(rest[0] if rest else {})}
    local = {k: local_shape(v) for k, v in params.items() if local_shape(v) != list(v.shape)} if on_mesh else {}
    assert all(local_shape(gradients[k]) == shape for k, shape in local.items())
    return {k: backend.to_numpy(v) for k, v in values.items()}, local


def local_shape(array):
    """What one device holds."""
    part = array.to_local() if hasattr(array, "to_local") else array.addressable_shards[0].data
    return list(part.shape)


def compare(make, name, dtype, mesh):
    """The largest difference between one device and the mesh, and how the parameters were cut."""
    one, _ = train(make(dtype=dtype), globals()[name], False)
    many, local = train(make(dtype=dtype, device_mesh=mesh), globals()[name], True)
    assert one.keys() == many.keys()
    worst = max(np.abs(many[k] - one[k]).max() / max(1.0, np.abs(one[k]).max()) for k in one)
    return {"name": name, "dtype": dtype, "values": len(one), "difference": float(worst), "local": local}


def mistakes(backend):
    """The texts of what a mesh refuses."""
    weight = np.zeros((6, 8))
    calls = [
        lambda: backend.array(weight, shard=(None, "modle")),
        lambda: backend.array(weight[:5], shard=("model",)),
        lambda: backend.array(weight, shard=("data", "data")),
        lambda: backend.array(weight, shard=("data", None, "model")),
        lambda: backend.shard({"fc1_weight": weight}, {"fc_weight": ("data",)}),
        lambda: backend.shard({"fc1_weight": weight}, {"fc1_*": (None, 7)}),
        lambda: type(backend)(device_mesh={"data": 64}),
    ]
    found = []
    for call in calls:
        try:
            call()
        except ml.MithrilError as error:
            found.append(str(error))
    return found


def main(framework, *cases):
    make = ml.TorchBackend if framework == "torch" else ml.JaxBackend
    mesh = {"data": 2, "model": 2 if framework == "torch" else 4}
    results = []
    for case in cases:
        if case == "mistakes":
            results.append(mistakes(make(device_mesh=mesh)))
        else:
            results.append(compare(make, *case.split(":"), mesh))
    if os.environ.get("RANK", "0") == "0":
        print(*map(json.dumps, results), sep="\n")


def fork(count, run):
    """`run` in processes that look to torch as if torchrun had started them; their imports are shared."""
    import socket

    import torch.distributed.tensor  # once, before the fork

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="0")
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            try:
                run()
                sys.stdout.flush()
                torch.distributed.barrier()  # the first process serves the others' rendezvous: it must not leave early
            except Exception:  # an ordinary end would wait for the other processes
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    if sys.argv[1] == "torch" and "RANK" not in os.environ:
        fork(4, lambda: main(*sys.argv[1:]))
    else:
        main(*sys.argv[1:])
