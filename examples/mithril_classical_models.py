"""Classical models trained by gradients: a Gaussian process on a sine, a kernel SVM on moons, t-SNE on digits.

All three are compiled to NumPy. Any other backend takes the same models.
"""

import numpy as np
from sklearn.datasets import load_digits, make_moons

import mithril as ml
from mithril.models import (
    TSNE,
    Buffer,
    GaussianProcess,
    HingeLoss,
    KernelSVM,
    KLDivergence,
    Negative,
    RBFKernel,
    joint_probabilities,
)

BACKEND = ml.NumpyBackend(dtype=ml.float64)


def descend(train, params, data, steps, rate, momentum=0.0):
    """Gradient descent on `loss`; returns the trained params, and the loss before and after."""
    shapes = {key: np.shape(value) for key, value in {**params, **data}.items()}
    compiled = ml.compile(train, BACKEND, shapes=shapes, data_keys=data)
    data = {key: BACKEND.array(value) for key, value in data.items()}
    params = {key: BACKEND.array(value) for key, value in params.items()}
    losses, speed = [], dict.fromkeys(params, 0.0)
    for _ in range(steps + 1):
        outputs, gradients = compiled.evaluate_all(params, data, {"loss": 1.0})
        losses.append(float(outputs["loss"]))
        speed.update({key: momentum * speed[key] - rate * gradient for key, gradient in gradients.items()})
        params = {key: value + speed[key] for key, value in params.items()}
    return params, losses[0], losses[-2]


def gaussian_process():
    """Learns length, height and noise of a sine from 30 of its values, and predicts the rest with its uncertainty."""
    random = np.random.default_rng(0)
    x = np.linspace(0, 12, 30)[:, None]
    data = {"train_input": x, "train_target": np.sin(x[:, 0]) + 0.2 * random.standard_normal(30)}
    model = GaussianProcess(RBFKernel())
    train = ml.TrainModel(model).add_loss(Negative(), "none", input="log_marginal_likelihood")
    start = {"log_amplitude": 0.0, "log_noise": 0.0, "kernel_log_gamma": 0.0}
    new = np.linspace(0.5, 11.5, 100)[:, None]
    params, before, after = descend(train, start, {**data, "input": new}, steps=100, rate=0.03)

    compiled = ml.compile(model, BACKEND, shapes={"input": new.shape, **{k: v.shape for k, v in data.items()}})
    found = compiled.evaluate(params, {**data, "input": new})
    error = np.abs(found["mean"] - np.sin(new[:, 0]))
    inside = np.mean(error < 2 * found["std"])
    noise, length = np.exp(params["log_noise"] / 2), np.exp(-params["kernel_log_gamma"] / 2) / 2**0.5
    print(f"Gaussian process: -log likelihood {before:.1f} -> {after:.1f}, noise {noise:.2f}, length {length:.2f}")
    print(f"  error {error.mean():.3f}, {inside:.0%} of the sine within two standard deviations")


def kernel_svm():
    """Separates two half moons; every training point is a support vector with a weight to be learned."""
    (points, labels), (new, new_labels) = (make_moons(100, noise=0.15, random_state=seed) for seed in (0, 1))
    model = KernelSVM(RBFKernel(2.0))
    train = ml.TrainModel(model)
    train.add_loss(HingeLoss(), "sum", 10.0, input="output", target="target")
    train.add_loss(Buffer(), "none", name="penalty", input="norm")
    start = {"weight": np.zeros((1, 100)), "bias": np.zeros(1), "support_vectors": points}
    data = {"input": points, "target": 2.0 * labels[:, None] - 1}
    params, before, after = descend(train, start, data, steps=300, rate=1e-4, momentum=0.9)

    compiled = ml.compile(model, BACKEND, shapes={"input": new.shape, "support_vectors": points.shape})
    decided = compiled.evaluate(params, {"input": new})["decision_output"]
    accuracy = np.mean(decided[:, 0] == 2 * new_labels - 1)
    print(f"Kernel SVM: cost {before:.0f} -> {after:.0f}, accuracy on new points {accuracy:.0%}")


def tsne():
    """Lays 200 images of digits out on a plane so that neighbours stay neighbours."""
    images, digits = load_digits(return_X_y=True)
    images, digits = images[:200], digits[:200]
    train = ml.TrainModel(TSNE(200)).add_loss(KLDivergence(), "sum", input="output", target="similarities")
    similarities = joint_probabilities(images)
    start = {"coords": 1e-2 * np.random.default_rng(0).standard_normal((200, 2))}
    early, *_ = descend(train, start, {"similarities": 12 * similarities}, 50, rate=20.0, momentum=0.5)
    late, _, after = descend(train, early, {"similarities": similarities}, 150, rate=50.0, momentum=0.8)

    distances = np.square(late["coords"][:, None] - late["coords"]).sum(-1) + 1e9 * np.eye(200)
    agree = np.mean(digits[distances.argmin(1)] == digits)
    print(f"t-SNE: divergence {after:.2f}, {agree:.0%} of the digits lie beside one of their kind")


if __name__ == "__main__":
    gaussian_process()
    kernel_svm()
    tsne()
