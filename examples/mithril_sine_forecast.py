"""A small CNN learns to continue noisy sines: one model, trained by NumPy alone, by torch.optim and by optax.

All three start from the same weights and take the same steps, so their losses agree.
"""

import numpy as np
import optax
import torch

import mithril as ml
from mithril.models import SquaredError, simple_cnn
from mithril.training import l2

WINDOW, STEPS, RATE = 24, 150, 0.05


def sines(count, seed):
    """Windows (n, 1, w) of sines of random phase and speed, and the value that comes next (n, 1)."""
    random = np.random.default_rng(seed)
    phase, speed = random.uniform(0, 6.3, (count, 1)), random.uniform(0.2, 0.5, (count, 1))
    waves = np.sin(phase + speed * np.arange(WINDOW + 1))
    noisy = waves + 0.05 * random.standard_normal(waves.shape)
    return {"input": noisy[:, None, :-1], "target": waves[:, -1:]}


def compile_training(backend):
    """The CNN with its loss, and the training windows as the backend's arrays."""
    train = ml.TrainModel(simple_cnn())
    train.add_loss(SquaredError(), input="output", target="target")
    train.add_regularization(l2, 1e-4)
    data = {key: backend.array(value) for key, value in sines(64, seed=0).items()}
    shapes = {key: value.shape for key, value in data.items()}
    return ml.compile(train, backend, shapes=shapes, data_keys=shapes), data


def train_with_numpy():
    compiled, data = compile_training(ml.NumpyBackend())
    params, losses = compiled.randomize_params(0), []
    for _ in range(STEPS):
        outputs, gradients = compiled.evaluate_all(params, data, {"loss": 1.0})
        params = {key: value - RATE * gradients[key] for key, value in params.items()}
        losses.append(float(outputs["loss"]))
    return losses, params


def train_with_torch():
    compiled, data = compile_training(ml.TorchBackend())
    params, losses = compiled.randomize_params(0), []
    optimizer = torch.optim.SGD(params.values(), lr=RATE)
    for _ in range(STEPS):
        outputs, gradients = compiled.evaluate_all(params, data, {"loss": 1.0})
        for key, gradient in gradients.items():
            params[key].grad = gradient
        optimizer.step()
        losses.append(float(outputs["loss"]))
    return losses, params


def train_with_optax():
    compiled, data = compile_training(ml.JaxBackend())
    params, losses = compiled.randomize_params(0), []
    optimizer = optax.sgd(RATE)
    state = optimizer.init(params)
    for _ in range(STEPS):
        outputs, gradients = compiled.evaluate_all(params, data, {"loss": 1.0})
        updates, state = optimizer.update(gradients, state)
        params = optax.apply_updates(params, updates)
        losses.append(float(outputs["loss"]))
    return losses, params


def forecast_error(params):
    """Mean squared error on sines that were not trained on. The trained weights fit the model without its loss."""
    data = sines(200, seed=1)
    compiled = ml.compile(simple_cnn(), ml.NumpyBackend(), shapes={"input": [None, 1, WINDOW]})
    forecast = compiled.evaluate({key: np.asarray(value) for key, value in params.items()}, {"input": data["input"]})
    return float(np.mean((forecast["output"] - data["target"]) ** 2))


if __name__ == "__main__":
    for name, train in (("NumPy", train_with_numpy), ("torch.optim", train_with_torch), ("optax", train_with_optax)):
        losses, params = train()
        print(f"{name:12} loss {losses[0]:.4f} -> {losses[-1]:.4f}, error on new sines {forecast_error(params):.4f}")
