"""Classification: losses, soft labels, metrics against scikit-learn, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nexus.tasks import ClassificationTask, ImageInfo, get_task, task_name
from nexus.tasks.classification.metrics import ClassificationMetrics

NAMES = tuple("abcdefg")


def task(**settings) -> ClassificationTask:
    return ClassificationTask(NAMES, **settings)


def test_loss_is_smoothed_cross_entropy():
    torch.manual_seed(0)
    model, images = nn.Linear(4, 7), torch.randn(6, 4)
    labels = torch.tensor([0, 6, 2, 2, 5, 1])
    outputs, losses = task(label_smoothing=0.1).losses(model, {"images": images, "labels": labels})
    soft = F.one_hot(labels, 7) * 0.9 + 0.1 / 7
    expected = -(soft * outputs["logits"].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses["cross_entropy"], expected)


def test_soft_labels_give_the_mean_of_both_losses():
    torch.manual_seed(0)
    model, images = nn.Linear(4, 7), torch.randn(3, 4)
    first, second, share = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), 0.3
    soft = share * F.one_hot(first, 7) + (1 - share) * F.one_hot(second, 7)
    losses = [
        task().losses(model, {"images": images, "labels": labels})[1]["cross_entropy"]
        for labels in (first, second, soft)
    ]
    torch.testing.assert_close(losses[2], share * losses[0] + (1 - share) * losses[1])


def test_metrics_equal_scikit_learn_whatever_the_batches():
    from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

    torch.manual_seed(0)
    logits, labels = torch.randn(50, 7), torch.randint(0, 7, (50,))
    metrics = ClassificationMetrics()
    for part in (slice(0, 17), slice(17, 18), slice(18, 50)):
        metrics.update({"logits": logits[part]}, {"labels": labels[part]})
    figures = metrics.compute()
    probabilities = logits.double().softmax(1).numpy()
    assert figures["top1"] == accuracy_score(labels, logits.argmax(1))
    assert figures["top5"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=range(7)))
    assert figures["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-5)


@pytest.mark.parametrize(("classes", "told"), [(3, False), (5, False), (6, True)])
def test_top5_is_told_where_there_are_more_than_five_classes(classes, told):
    metrics = ClassificationMetrics()
    metrics.update({"logits": torch.randn(8, classes)}, {"labels": torch.randint(0, classes, (8,))})
    assert ("top5" in metrics.compute()) == told


def test_states_of_two_processes_add_up():
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 7), torch.randint(0, 7, (9,))
    whole, left, right = ClassificationMetrics(), ClassificationMetrics(), ClassificationMetrics()
    whole.update({"logits": logits}, {"labels": labels})
    left.update({"logits": logits[:4]}, {"labels": labels[:4]})
    right.update({"logits": logits[4:]}, {"labels": labels[4:]})
    left.state()["sums"].add_(right.state()["sums"])
    assert left.compute() == pytest.approx(whole.compute())


def test_sums_of_inference_mode_can_be_added_to_later():
    metrics = ClassificationMetrics()
    with torch.inference_mode():
        metrics.update({"logits": torch.eye(7)}, {"labels": torch.arange(7)})
    metrics.state()["sums"].add_(metrics.state()["sums"].clone())
    assert metrics.compute()["top1"] == 1.0


def test_results_are_sorted_probabilities():
    logits = torch.tensor([[0.0, 3.0, 1.0, -1.0, 0.5, 0.2, 0.1]])
    (result,) = task().results({"logits": logits}, [ImageInfo("x.png", 8, 8)])
    assert result.path == "x.png"
    assert result.label == "b"
    assert [guess.label for guess in result.top(3)] == ["b", "c", "e"]
    assert sum(result.scores) == pytest.approx(1)
    np.testing.assert_allclose(result.scores, sorted(logits.softmax(1)[0].tolist(), reverse=True), rtol=1e-6)
    assert result.to_json(2)["top"][1] == {"label": "c", "score": pytest.approx(result.scores[1])}


def test_without_names_any_number_of_outputs_is_taken():
    outputs = ClassificationTask().predict(nn.Linear(4, 9), {"images": torch.randn(2, 4)})
    first, _ = ClassificationTask().results(outputs, [ImageInfo("a", 1, 1), ImageInfo("b", 1, 1)])
    assert sorted(first.labels) == list("012345678")


def test_wrong_labels_are_named():
    data = SimpleNamespace(name="birds", class_names=(), labels=np.array([0, 6, 9, 7]))
    with pytest.raises(ValueError, match=r"'birds' has the label 9 \(image 2\).*7 classes.*2 of 4.*num_classes=10"):
        task().check_data(data)
    with pytest.raises(ValueError, match="'birds' is empty"):
        task().check_data(SimpleNamespace(name="birds", class_names=(), labels=np.array([], dtype=np.int64)))


def test_wrong_outputs_are_named():
    batch = {"images": torch.randn(2, 4), "labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=r"Linear gives logits of shape \(2, 5\), and there are 7 classes"):
        task().losses(nn.Linear(4, 5), batch)

    class Boxes(nn.Module):
        def forward(self, x):
            return {"boxes": x, "scores": x}

    with pytest.raises(ValueError, match="Boxes gives boxes, scores; a classifier gives 'logits'"):
        task().predict(Boxes(), batch)


def test_settings_and_names_are_checked():
    with pytest.raises(ValueError, match=r"label_smoothing is 1\.5"):
        task(label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"no task 'clasification'. Did you mean 'classification'"):
        get_task("clasification")
    with pytest.raises(ValueError, match="not one image was seen"):
        task().metrics().compute()


def test_get_task():
    made = get_task("classification", class_names=["a", "b"], label_smoothing=0.1)
    assert made == ClassificationTask(("a", "b"), 0.1)
    assert made.headline in ("top1",)
    assert task_name(nn.Linear(1, 1)) == "classification"


def test_the_mean_answer_is_that_of_the_probabilities():
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    mean = task().mean_answer([{"logits": first}, {"logits": second}])["logits"].softmax(dim=1)
    torch.testing.assert_close(mean, (first.softmax(dim=1) + second.softmax(dim=1)) / 2)
