"""One small network trained on a mesh of devices: its batch cut along one axis, its weights along the other.

    python examples/mithril_sharding.py                                          # JAX, eight devices simulated
    torchrun --standalone --nproc-per-node 4 examples/mithril_sharding.py        # PyTorch, four processes

Loss and weights are those of one device.
"""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import numpy as np

import mithril as ml
from mithril.models import IOKey, Linear, Model, SquaredError, Tanh

RULES = {  # the first layer by its outputs, the second by its inputs: one sum is exchanged
    "hidden_weight": ("model", None),
    "hidden_bias": ("model",),
    "last_weight": (None, "model"),
}


def network():
    model = Model(name="network")
    model |= Linear(64, name="hidden")(input="input")
    model += Tanh()
    model += Linear(1, name="last")(output=IOKey("output"))
    train = ml.TrainModel(model)
    return train.add_loss(SquaredError(), input="output", target="target")


def train(backend, rules=None, steps=200):
    """Gradient descent on a wave; the same lines for one device and for many."""
    compiled = ml.compile(
        network(), backend, shapes={"input": [64, 1], "target": [64, 1]}, data_keys={"input", "target"}
    )
    x = np.linspace(-3, 3, 64)[:, None]
    batch, params = {"input": x, "target": np.sin(x)}, compiled.randomize_params(seed=0)
    if rules:
        batch = {key: backend.array(value, shard=("data",)) for key, value in batch.items()}
        params = backend.shard(params, rules)
    losses = []
    for _ in range(steps):
        outputs, gradients = compiled.evaluate_all(params, batch, {"loss": 1.0})
        params = {key: value - 0.02 * gradients[key] for key, value in params.items()}
        losses.append(float(backend.to_numpy(outputs["loss"])))
    return losses, params


def main():
    under_torchrun = "RANK" in os.environ
    kind = ml.TorchBackend if under_torchrun else ml.JaxBackend
    mesh = {"data": 2, "model": 2 if under_torchrun else 4}
    one, expected = train(kind())
    many_devices = kind(device_mesh=mesh)
    many, found = train(many_devices, RULES)
    weights = {key: many_devices.to_numpy(value) for key, value in found.items()}
    difference = max(np.abs(weights[key] - kind().to_numpy(expected[key])).max() for key in weights)
    if os.environ.get("RANK", "0") == "0":
        weight = found["hidden_weight"]
        part = weight.to_local() if under_torchrun else weight.addressable_shards[0].data
        print(f"a device holds {tuple(part.shape)} of the hidden weight {tuple(weight.shape)}")
        print(f"one device: loss {one[0]:.3f} -> {one[-1]:.3f}; {mesh}: {many[0]:.3f} -> {many[-1]:.3f}")
        print("the same weights:", bool(difference < 1e-4))


if __name__ == "__main__":
    main()
