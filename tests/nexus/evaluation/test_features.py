"""Probes of frozen features, against scikit-learn."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nexus.cli.commands import app
from nexus.core.preprocessing import Preprocessing
from nexus.data import load_dataset
from nexus.evaluation import Features, LinearProbe, extract_features, knn_scores, probe
from nexus.models.cv import MAE, VisionTransformer

CLASSES = ("a", "b", "c")
VIT = {"image_size": 8, "patch_size": 2, "in_channels": 1, "num_classes": 10, "embed_dim": 16, "num_layers": 1}


def cloud(count: int, seed: int) -> Features:
    """Three classes that overlap, of very different scales per dimension."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    values = torch.randn(count, 6, generator=generator) + labels[:, None] * torch.tensor([1.0, -0.5, 0, 0, 0.3, 0])
    return Features(values * torch.tensor([1.0, 10, 0.1, 1, 1, 5]), labels, CLASSES)


@pytest.fixture
def digits_model() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer({**VIT, "num_heads": 2, "weight_std": 0.25, "position_std": 0.5})
    model.preprocessing = Preprocessing(image_size=(8, 8), resize="none", mean=(0.305,), std=(0.376,))
    return model.train()


@pytest.mark.parametrize("neighbours", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_neighbours_vote_as_in_scikit_learn(needed, neighbours, temperature):
    sklearn = needed("sklearn.neighbors")
    train, test = cloud(200, 0), cloud(50, 1)

    def weigh(distances):
        return np.exp((1 - distances) / temperature)

    reference = sklearn.KNeighborsClassifier(neighbours, metric="cosine", weights=weigh, algorithm="brute")
    wanted = reference.fit(train.values.double(), train.labels).predict_proba(test.values.double())
    scores = knn_scores(train, test.values, neighbours=neighbours, temperature=temperature)
    np.testing.assert_allclose(scores / scores.sum(1, keepdim=True), wanted, rtol=1e-4, atol=1e-5)


def test_a_low_temperature_stays_finite_and_more_neighbours_than_images_are_all():
    train = cloud(10, 0)
    scores = knn_scores(train, train.values, neighbours=50, temperature=0.001)
    assert scores.isfinite().all()
    assert torch.equal(scores.argmax(1), train.labels)  # each is its own nearest neighbour
    with pytest.raises(ValueError, match=r"neighbours is 0 and temperature 0\.07; both must be above 0"):
        knn_scores(train, train.values, neighbours=0)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_the_linear_probe_is_scikit_learns_logistic_regression(needed, l2):
    needed("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, test = cloud(200, 0), cloud(50, 1)
    scaler = StandardScaler().fit(train.values.double())
    reference = LogisticRegression(C=1 / (l2 * 200), tol=1e-10, max_iter=10_000)
    reference.fit(scaler.transform(train.values.double()), train.labels)
    ours = LinearProbe(train, l2=l2)
    np.testing.assert_allclose(ours.head.weight, reference.coef_, atol=1e-4)
    wanted = reference.predict_proba(scaler.transform(test.values.double()))
    np.testing.assert_allclose(ours(test.values).softmax(1), wanted, atol=1e-4)


def test_features_are_the_embeddings_of_evaluation(digits_model):
    data = load_dataset("digits", "val")
    features = extract_features(digits_model, data, batch_size=100)
    assert digits_model.training  # left as it was found
    assert features.values.shape == (360, 16)
    assert torch.equal(features.labels, torch.from_numpy(data.labels))
    pixels = torch.from_numpy(np.array(data[17].image)[None, None]).float() / 255
    wanted = digits_model.eval()((pixels - 0.305) / 0.376)["embeddings"][0]
    torch.testing.assert_close(features.values[17], wanted, rtol=1e-4, atol=1e-5)


def test_a_masked_autoencoder_sees_the_whole_image():
    config = {key: value for key, value in VIT.items() if key != "num_classes"}
    torch.manual_seed(0)
    model = MAE({**config, "num_heads": 2, "decoder_dim": 8, "decoder_num_layers": 1, "decoder_num_heads": 2})
    model.preprocessing = Preprocessing(image_size=(8, 8), resize="none", mean=(0.305,), std=(0.376,))
    first, second = (extract_features(model, load_dataset("digits", "val")).values for _ in range(2))
    assert torch.equal(first, second)  # no mask is drawn


def test_probes_beat_chance_on_features_of_random_weights(digits_model, tmp_path):
    neighbours, linear = probe(digits_model, "digits", "knn"), probe(digits_model, "digits", "linear")
    assert neighbours.metrics["top1"] > 0.5
    assert linear.metrics["top1"] > 0.5
    assert linear.metrics["top5"] >= linear.metrics["top1"]
    assert (linear.num_train, linear.num_test) == (1437, 360)
    folder = digits_model.save_pretrained(tmp_path)
    result = CliRunner().invoke(app, ["eval", str(folder), "--probe", "knn", "--json"])
    assert json.loads(result.stdout) == neighbours.to_json()
    assert "top1" in CliRunner().invoke(app, ["eval", str(folder), "--probe", "linear"]).stdout


def test_errors_say_what_would_fit(digits_model):
    with pytest.raises(ValueError, match=r"There is no probe 'knnn'. Did you mean 'knn'\?"):
        probe(digits_model, "digits", "knnn")
    preprocessing = digits_model.preprocessing
    with pytest.raises(ValueError, match=r"Flatten gives no 'embeddings'"):
        extract_features(nn.Flatten(), load_dataset("digits", "val"), preprocessing=preprocessing)
    nn.init.constant_(digits_model.norm.weight, float("nan"))
    with pytest.raises(ValueError, match=r"The features of 360 of 360 images are not finite, first of image 0"):
        extract_features(digits_model, load_dataset("digits", "val"))
    with pytest.raises(ValueError, match=r"l2 is -1 and there are 10 images"):
        LinearProbe(cloud(10, 0), l2=-1)
