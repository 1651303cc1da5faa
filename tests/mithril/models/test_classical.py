"""Classical models against scikit-learn, torch and transformers: values, and gradients where the model trains."""

import warnings

import numpy as np
import pytest
import torch

import mithril as ml
from mithril import models as m
from mithril.training import TrainModel
from tests.mithril.layers import compare

RNG = np.random.default_rng(0)
POINTS, OTHERS = RNG.standard_normal((7, 3)), RNG.standard_normal((5, 3))


# Kernels


def test_kernels_equal_scikit_learn(needed, backend):
    pairwise = needed("sklearn.metrics.pairwise")
    values = {"left": POINTS, "right": OTHERS}
    compare(backend, m.RBFKernel(0.3), values, {"output": pairwise.rbf_kernel(POINTS, OTHERS, 0.3)})
    learned = values | {"log_gamma": np.log(0.3)}
    compare(backend, m.RBFKernel(), learned, {"output": pairwise.rbf_kernel(POINTS, OTHERS, 0.3)})
    polynomial = pairwise.polynomial_kernel(POINTS, OTHERS, degree=3, gamma=0.4, coef0=0.7)
    compare(backend, m.PolynomialKernel(3, 0.4, 0.7), values, {"output": polynomial})


def test_distances_equal_torch(backend):
    left, right = torch.tensor(POINTS, requires_grad=True), torch.tensor(OTHERS, requires_grad=True)
    distances = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
    seed = RNG.standard_normal(distances.shape)
    distances.backward(torch.tensor(seed))
    gradients = {"left": left.grad, "right": right.grad}
    values = {"left": POINTS, "right": OTHERS}
    compare(backend, m.DistanceMatrix(), values, {"output": distances.detach()}, gradients, {"output": seed})
    same = {"left": POINTS, "right": POINTS.copy()}
    zero = np.zeros_like(POINTS)
    compare(backend, m.DistanceMatrix(), same, {}, {"left": zero, "right": zero}, {"output": np.eye(7)})


def moons(needed):
    datasets = needed("sklearn.datasets")
    points, labels = datasets.make_moons(40, noise=0.15, random_state=0)
    return points, 2 * labels - 1.0


@pytest.mark.parametrize("kernel", ["rbf", "poly"])
def test_kernel_svm_equals_scikit_learn(needed, kernel, backend):
    svm = needed("sklearn.svm")
    points, labels = moons(needed)
    theirs = svm.SVC(C=1.5, kernel=kernel, gamma=0.8, degree=2, coef0=0.5, tol=1e-10).fit(points, labels)
    ours = m.KernelSVM(m.RBFKernel() if kernel == "rbf" else m.PolynomialKernel(2, 0.8, 0.5))
    new = RNG.standard_normal((6, 2))
    weights = {"weight": theirs.dual_coef_, "bias": theirs.intercept_, "support_vectors": theirs.support_vectors_}
    weights |= {"kernel_log_gamma": np.log(0.8)} if kernel == "rbf" else {}
    expected = {"output": theirs.decision_function(new)[:, None], "decision_output": theirs.predict(new)[:, None]}
    compare(backend, ours, {"input": new, **weights}, expected)

    train = TrainModel(ours)
    train.add_loss(m.HingeLoss(), "sum", 1.5, input="output", target="target")
    train.add_loss(m.Buffer(), "none", name="penalty", input="norm")
    support, dual = theirs.support_vectors_, theirs.dual_coef_
    gram = (0.8 * support @ support.T + 0.5) ** 2
    if kernel == "rbf":
        gram = np.exp(-0.8 * ((support[:, None] - support) ** 2).sum(-1))
    norm = 0.5 * (dual @ gram @ dual.T).item()
    values = {"input": points, "target": labels[:, None], **weights}
    cost = 1.5 * np.maximum(0, 1 - labels * theirs.decision_function(points)).sum() + norm
    compare(backend, train, values, {"loss": cost, "penalty": norm}, {"weight": dual @ gram}, {"penalty": 1.0})
    np.testing.assert_allclose(cost, np.abs(dual).sum() - norm, rtol=1e-6)  # no duality gap: it is the best


def test_gaussian_process_equals_scikit_learn(needed, backend):
    process = needed("sklearn.gaussian_process")
    kernels = process.kernels
    target, new = np.sin(POINTS.sum(-1)), RNG.standard_normal((6, 3))
    length, amplitude, noise = 1.3, 1.7, 0.2
    prior = kernels.ConstantKernel(amplitude) * kernels.RBF(length)
    theirs = process.GaussianProcessRegressor(prior, alpha=noise, optimizer=None).fit(POINTS, target)
    mean, covariance = theirs.predict(new, return_cov=True)
    noisy = process.GaussianProcessRegressor(prior + kernels.WhiteKernel(noise), alpha=0, optimizer=None)
    noisy.fit(POINTS, target)
    evidence, slope = noisy.log_marginal_likelihood(noisy.kernel_.theta, eval_gradient=True)
    values = {
        "log_amplitude": np.log(amplitude),
        "log_noise": np.log(noise),
        "kernel_log_gamma": -np.log(2 * length**2),
    }
    values |= {"input": new, "train_input": POINTS, "train_target": target}
    compare(
        backend,
        m.GaussianProcess(m.RBFKernel()),
        values,
        {
            "mean": mean,
            "covariance": covariance,
            "std": theirs.predict(new, return_std=True)[1],
            "log_marginal_likelihood": evidence,
        },
        {"log_amplitude": slope[0], "kernel_log_gamma": -slope[1] / 2, "log_noise": slope[2]},
        {"log_marginal_likelihood": 1.0},
    )


# Regression and metrics


@pytest.mark.parametrize("num_classes", [2, 4])
def test_logistic_regression_equals_scikit_learn(needed, num_classes, backend):
    needed("sklearn")
    from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss
    from sklearn.linear_model._linear_loss import LinearModelLoss

    rows = 1 if num_classes == 2 else num_classes
    weight, bias, target = RNG.standard_normal((rows, 3)), RNG.standard_normal(rows), np.arange(7) % num_classes
    base = HalfBinomialLoss() if rows == 1 else HalfMultinomialLoss(n_classes=num_classes)
    coefficients = np.concatenate([weight, bias[:, None]], 1)
    loss, slope = LinearModelLoss(base, fit_intercept=True).loss_gradient(
        coefficients[0] if rows == 1 else coefficients, POINTS, target.astype(float), l2_reg_strength=0.3
    )
    slope = slope.reshape(rows, 4)
    train = TrainModel(m.LogisticRegression(num_classes))
    train.add_loss(m.BinaryCrossEntropy() if rows == 1 else m.CrossEntropy(), input="output", target="target")
    train.add_regularization(ml.training.l2, 0.3)
    scores = POINTS @ weight.T + bias
    chances = 1 / (1 + np.exp(-scores)) if rows == 1 else torch.softmax(torch.tensor(scores), -1)
    values = {"input": POINTS, "weight": weight, "bias": bias}
    compare(
        backend,
        train,
        values | {"target": target[:, None].astype(float) if rows == 1 else target},
        {"loss": loss, "output": scores, "probabilities": chances},
        {"weight": slope[:, :3], "bias": slope[:, 3]},
        {"loss": 1.0},
    )


def test_polynomial_features_equal_scikit_learn(needed, backend):
    preprocessing = needed("sklearn.preprocessing")
    linear_model = needed("sklearn.linear_model")
    features = preprocessing.PolynomialFeatures(4, include_bias=False).fit_transform(POINTS)
    compare(backend, m.PolynomialFeatures(4), {"input": POINTS}, {"output": features})
    points, target = RNG.standard_normal((30, 2)), RNG.standard_normal((30, 2))
    quadratic = preprocessing.PolynomialFeatures(2, include_bias=False).fit_transform(points)
    fitted = linear_model.LinearRegression().fit(quadratic, target)
    train = TrainModel(m.PolynomialRegression(2, 2))
    train.add_loss(m.SquaredError(), input="output", target="target")
    values = {"input": points, "target": target, "weight": fitted.coef_, "bias": fitted.intercept_}
    flat = {"weight": np.zeros((2, 5)), "bias": np.zeros(2)}
    compare(backend, train, values, {"output": fitted.predict(quadratic)}, flat, {"loss": 1.0})


@pytest.mark.parametrize("kind", ["scores", "ties", "all equal"])
def test_auc_equals_scikit_learn(needed, kind, backend):
    metrics = needed("sklearn.metrics")
    scores = {"scores": RNG.standard_normal(40), "ties": RNG.integers(0, 5, 40) / 4.0, "all equal": np.ones(40)}[kind]
    target = RNG.integers(0, 2, 40)
    values = {"input": scores, "target": target.astype(float)}
    backend.tolerance = 1e-6  # torch counts in float32
    compare(backend, m.AUC(), values, {"output": metrics.roc_auc_score(target, scores)})


@pytest.mark.parametrize("num_classes", [None, 4])
def test_shares_of_counts_equal_scikit_learn(needed, num_classes, backend):
    metrics = needed("sklearn.metrics")
    scores = RNG.standard_normal((30, 4) if num_classes else 30)
    target = RNG.integers(0, 3 if num_classes else 2, 30)  # the last of four classes never occurs
    decided, options = scores > 0.3, {"zero_division": 0}
    if num_classes:
        decided, options = scores.argmax(1), {"average": "macro", "labels": range(4), "zero_division": 0}
    values = {"input": scores, "target": target if num_classes else target.astype(float)}
    backend.tolerance = 1e-6  # torch counts in float32
    for ours, theirs in ((m.Precision, "precision"), (m.Recall, "recall"), (m.F1Score, "f1")):
        expected = getattr(metrics, f"{theirs}_score")(target, decided, **options)
        compare(backend, ours(0.3, num_classes), values, {"output": expected})


# Embeddings of points


def test_mds_equals_scikit_learn(needed, backend):
    needed("sklearn")
    from sklearn.manifold import smacof

    wanted = np.sqrt(((POINTS[:, None] - POINTS) ** 2).sum(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coords, _, _ = smacof(
            wanted, n_components=2, init=RNG.standard_normal((7, 2)), n_init=1, max_iter=3, return_n_iter=True
        )
    distances = np.sqrt(((coords[:, None] - coords) ** 2).sum(-1))
    ratio = np.where(np.eye(7) > 0, 0, wanted / np.where(distances > 0, distances, 1))
    guttman = np.diag(ratio.sum(1)) - ratio  # de Leeuw 1977: the gradient of the stress is 2 (n x - B x)
    train = TrainModel(m.MDS(7))
    train.add_loss(m.SquaredError(), "sum", 0.5, input="output", target="distances")
    stress = ((distances - wanted) ** 2).sum() / 2
    slope = 2 * (7 * (coords - coords.mean(0)) - guttman @ coords)
    values = {"coords": coords, "distances": wanted}
    compare(backend, train, values, {"loss": stress, "output": distances}, {"coords": slope}, {"loss": 1.0})


def test_tsne_equals_scikit_learn(needed, backend):
    needed("sklearn")
    from scipy.spatial.distance import squareform
    from sklearn.manifold import _t_sne

    points = RNG.standard_normal((25, 4))
    squares = ((points[:, None] - points) ** 2).sum(-1)
    theirs = _t_sne._joint_probabilities(squares.astype(np.float32), 6.0, 0)
    ours = m.joint_probabilities(points, 6.0)
    np.testing.assert_allclose(squareform(ours, checks=False), theirs, rtol=1e-3, atol=1e-6)
    entropy = RNG.standard_normal((25, 2))
    cost, slope = _t_sne._kl_divergence(entropy.ravel(), squareform(ours, checks=False), 1, 25, 2)
    train = TrainModel(m.TSNE(25))
    train.add_loss(m.KLDivergence(), "sum", input="output", target="probabilities")
    values = {"coords": entropy, "probabilities": ours}
    compare(backend, train, values, {"loss": cost}, {"coords": slope.reshape(25, 2)}, {"loss": 1.0})


def test_joint_probabilities_have_the_perplexity():
    for points in (POINTS * 100, POINTS / 1000, np.repeat(POINTS, 3, axis=0)):
        p = m.joint_probabilities(points, 5.0)
        np.testing.assert_allclose([p.sum(), abs(p - p.T).max(), p.trace()], [1, 0, 0], atol=1e-12)
    with pytest.raises(ValueError, match=r"perplexity is 30.0; for 7 points it must be between 1 and 7"):
        m.joint_probabilities(POINTS)
