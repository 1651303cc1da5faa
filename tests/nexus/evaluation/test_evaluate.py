"""`evaluate` as a whole: figures, classes by name, processes, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nexus.core.config import Config
from nexus.core.module import NexusModule
from nexus.core.preprocessing import Preprocessing
from nexus.data import Sample
from nexus.evaluation import evaluate

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
PLAIN = Preprocessing(image_size=(4, 4), resize="none", mean=(0.0,), std=(1.0,))


class Noise:
    """Random 4 x 4 images with random labels."""

    name, in_channels = "noise", 1

    def __init__(self, count: int = 50, class_names: tuple[str, ...] = NAMES):
        rng = np.random.default_rng(0)
        self.class_names = class_names
        self.images = rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
        self.labels = rng.integers(0, len(class_names), count)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], int(self.labels[index]), f"noise[{index}]")


class Linear(NexusModule):
    """Logits from pixels."""

    config: Config

    def __init__(self, num_classes: int = 6, class_names: tuple[str, ...] = ()):
        super().__init__(Config())
        generator = torch.Generator().manual_seed(0)
        self.head = nn.Linear(16, num_classes, bias=False)
        self.head.weight.data = torch.randn(num_classes, 16, generator=generator)
        self.dropout = nn.Dropout(0.5)
        self.preprocessing, self.class_names = PLAIN, class_names

    def forward(self, images):
        return {"logits": self.dropout(self.head(images.flatten(1)))}


def logits_of(model: Linear, data: Noise) -> torch.Tensor:
    pixels = torch.from_numpy(data.images).float().permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        return model.eval()(pixels)["logits"]


def test_figures_equal_scikit_learn(needed):
    metrics = needed("sklearn.metrics")
    data, model = Noise(), Linear()
    logits = logits_of(model, data)
    probabilities = logits.double().softmax(1).numpy()
    guesses = probabilities.argmax(1)
    result = evaluate(model, data, batch_size=16)
    assert result.metrics["top1"] == metrics.accuracy_score(data.labels, guesses)
    assert result.metrics["top5"] == pytest.approx(metrics.top_k_accuracy_score(data.labels, probabilities, k=5))
    assert result.metrics["loss"] == pytest.approx(metrics.log_loss(data.labels, probabilities), rel=1e-5)
    assert result.metrics["macro_f1"] == pytest.approx(metrics.f1_score(data.labels, guesses, average="macro"))
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(data.labels, guesses))
    report = metrics.classification_report(data.labels, guesses, target_names=NAMES, output_dict=True, zero_division=0)
    for row in result.per_class:
        expected = report[row["name"]]
        assert row["recall"] == pytest.approx(expected["recall"])
        assert row["precision"] == pytest.approx(expected["precision"])
        assert row["f1"] == pytest.approx(expected["f1-score"])
        assert row["support"] == expected["support"]


def test_flips_are_the_mean_of_both_answers():
    data, model = Noise(), Linear()
    mirrored = Noise()
    mirrored.images = mirrored.images[:, :, ::-1].copy()
    both = (logits_of(model, data).softmax(1) + logits_of(model, mirrored).softmax(1)) / 2
    result = evaluate(model, data, batch_size=16, flip=True)
    assert [answer.score for answer in result.predictions] == pytest.approx(both.max(dim=1).values.tolist(), rel=1e-5)
    assert result.settings["flip"] is True
    assert result.metrics["top1"] != evaluate(model, data, batch_size=16).metrics["top1"]


def test_predictions_name_their_images():
    data, model = Noise(), Linear()
    probabilities = logits_of(model, data).double().softmax(1).numpy()
    result = evaluate(model, data, batch_size=7)
    assert [answer.path for answer in result.predictions] == [f"noise[{i}]" for i in range(50)]
    assert [NAMES.index(answer.label) for answer in result.predictions] == data.labels.tolist()
    worst = result.most_wrong(5)
    losses = np.where(probabilities.argmax(1) == data.labels, -1, -np.log(probabilities[range(50), data.labels]))
    assert [answer.index for answer in worst] == np.argsort(-losses)[:5].tolist()
    assert not any(answer.right for answer in worst)


def test_json_holds_everything():
    result = evaluate(Linear(), Noise())
    again = json.loads(json.dumps(result.to_json()))
    assert again["metrics"] == result.metrics
    assert np.sum(again["confusion"]) == again["num_images"] == 50
    assert again["predictions"][3]["path"] == "noise[3]"
    assert [row["name"] for row in again["per_class"]] == list(NAMES)


def test_the_mode_of_every_part_is_left_as_it_was():
    model = Linear().train()
    model.head.eval()
    first = evaluate(model, Noise()).metrics
    assert (model.training, model.dropout.training, model.head.training) == (True, True, False)
    assert evaluate(model, Noise()).metrics == first, "dropout was on"


def test_classes_are_matched_by_name():
    data = Noise()
    expected = evaluate(Linear(class_names=NAMES), data).metrics
    turned = Noise(class_names=NAMES[::-1])
    turned.labels = 5 - data.labels
    assert evaluate(Linear(class_names=NAMES), turned).metrics == expected


def test_data_may_have_some_of_the_classes():
    data = Noise(class_names=("cat", "ant"))
    result = evaluate(Linear(class_names=NAMES), data)
    assert result.class_names == NAMES
    assert result.confusion.shape == (6, 6)
    assert set(np.flatnonzero(result.confusion.sum(1))) == {0, 2}


def test_a_class_that_the_model_lacks_is_named():
    with pytest.raises(
        ValueError, match=r"'noise' has the class 'dogs', which the model does not have. Did you mean 'dog'\?"
    ):
        evaluate(Linear(class_names=NAMES), Noise(class_names=("cat", "dogs")))


def test_more_classes_than_outputs():
    with pytest.raises(ValueError, match=r"logits of shape \(50, 3\), and there are 6 classes.*num_classes=6"):
        evaluate(Linear(num_classes=3), Noise())


def test_a_label_without_a_class():
    data = Noise()
    data.labels[7] = 6
    with pytest.raises(ValueError, match=r"'noise' has the label 6 \(image 7\)"):
        evaluate(Linear(), data)


def test_nan_names_the_image():
    model = Linear()
    model.head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"gives NaN or infinity for 50 of 50 images, first for noise\[0\]"):
        evaluate(model, Noise())


def test_a_model_without_preprocessing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    with pytest.raises(ValueError, match="Sequential does not say how an image becomes its input"):
        evaluate(model, Noise())
    assert len(evaluate(model, Noise(), preprocessing=PLAIN).paths) == 50


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model: neither config\.json"):
        evaluate(tmp_path, Noise())


def test_two_processes_give_the_figures_of_one(tmp_path):
    """The last of 50 images in batches of 16 leaves 2: a share of 1 each."""
    script = tmp_path / "run.py"
    script.write_text(
        "import json, os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch.distributed as dist\n"
        "from test_evaluate import Linear, Noise\n"
        "from nexus.evaluation import evaluate\n"
        "dist.init_process_group('gloo', init_method=sys.argv[2], rank=int(sys.argv[1]), world_size=2)\n"
        "json.dump(evaluate(Linear(), Noise(49), batch_size=16).to_json(), open(sys.argv[3], 'w'))\n"
        "dist.destroy_process_group()\n"
    )
    meet = f"file://{tmp_path / 'meet'}"
    runs = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), meet, str(tmp_path / f"{rank}.json")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    alone = json.loads(json.dumps(evaluate(Linear(), Noise(49), batch_size=16).to_json()))
    for rank in range(2):
        both = json.loads((tmp_path / f"{rank}.json").read_text())
        assert both["predictions"] == alone["predictions"]
        assert both["metrics"] == pytest.approx(alone["metrics"])
