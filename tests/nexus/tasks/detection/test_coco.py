"""COCO's figures against pycocotools, and the cases that it passes over in silence."""

import contextlib
import copy
import io
from pathlib import Path

import numpy as np
import pytest

from nexus.data import DataError
from nexus.data.detection import Annotations, Object, Scene
from nexus.data.detection.coco import _Reader, unnamed_keypoints
from nexus.data.detection.rle import encode
from nexus.data.detection.scene import refuse
from nexus.tasks.detection.coco_figures import Found, coco_figures
from nexus.tasks.detection.coco_results import evaluate_coco, read_results

pytestmark = pytest.mark.needs("faster_coco_eval")
KINDS = ("bbox", "segm", "keypoints")
POINTS = 17
FEW = 3


def mask_of(rng, height, width, box):
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((height, width), bool)
    mask[y : y + h + 1, x : x + w + 1] = rng.random(mask[y : y + h + 1, x : x + w + 1].shape) < 0.8
    mask[y, x] = True
    return mask


def random_set(seed):
    """A COCO file's content and results: several images and classes, crowds, ties, misses, duplicates."""
    rng = np.random.default_rng(seed)
    images, annotations, results = [], [], []
    side = int(rng.choice([40, 150]))
    for image_id in rng.permutation(30)[:FEW].tolist():
        height, width = int(rng.integers(20, side)), int(rng.integers(20, side))
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width})
        for _ in range(int(rng.integers(0, 5))):
            box = rng.integers(0, 15, 4) + rng.choice([0, 0.25, 0.5], 4)
            box[2:] = rng.integers(1, (width - 15, height - 15), 2)
            mask = mask_of(rng, height, width, box)
            points = np.concatenate([rng.uniform(0, 20, (POINTS, 2)), rng.integers(0, 3, (POINTS, 1))], 1)
            points *= rng.random() < 0.8
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([3, 7])),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": encode(mask).to_json(),
                    "keypoints": points.reshape(-1).tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                }
            )
            for _ in range(int(rng.integers(0, 3))):
                near = box + rng.choice([0, 1, 2], 4) * (rng.random() < 0.7)
                near[2:] = np.minimum(near[2:], (width - 18, height - 18)).clip(1)
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": int(rng.choice([3, 7])),
                        "bbox": near.tolist(),
                        "score": float(rng.choice([0.25, 0.5, rng.random()])),
                        "segmentation": encode(mask_of(rng, height, width, near)).to_json(),
                        "keypoints": (points + rng.normal(0, 1, points.shape) * (1, 1, 0)).reshape(-1).tolist(),
                    }
                )
    categories = [{"id": number, "name": str(number)} for number in (3, 7, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def theirs(content, results, kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    key = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[kind]
    rows = [{name: row[name] for name in ("image_id", "category_id", "score", key)} for row in results]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(content)
        known.createIndex()
        run = COCOeval(known, known.loadRes(copy.deepcopy(rows)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


def read(content):
    reader = _Reader("set.json", refuse)
    classes = reader.categories(content["categories"])
    scenes = reader.images(content["images"], Path(), Path())
    count = len(unnamed_keypoints(content["annotations"]))
    objects = reader.objects(content["annotations"], scenes, classes, count)
    return Annotations(
        tuple(Scene(s.path, *s.size, tuple(objects.get(n, ())), n) for n, s in scenes.items()),
        tuple(one["name"] for one in classes.values()),
        tuple(classes),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools
def test_200_random_sets_equal_pycocotools(needed):
    needed("pycocotools")
    measured = 0
    for seed in range(200):
        content, results = random_set(seed)
        if not content["annotations"] or not results:
            continue
        for kind in KINDS:
            ours = evaluate_coco(read(content), results, kind)
            expected = theirs(content, results, kind)
            got = [-1 if value is None else value for value in ours.figures.values()]
            np.testing.assert_allclose(got, expected, atol=1e-9, rtol=0, err_msg=f"{seed} {kind}")
            measured += ours.figures["AP"] is not None
    assert measured > 550


BOX = (10.0, 10.0, 50.0, 40.0)


def scene(*objects):
    return Scene("a.png", 100, 100, objects)


def found(boxes=(), scores=None, labels=None):
    count = len(boxes)
    return Found(
        np.array(boxes, float).reshape(-1, 4),
        np.array(scores if scores is not None else [0.9] * count, float),
        np.array(labels if labels is not None else [0] * count, int),
    )


def ap(scenes, answers, num_classes=1):
    return coco_figures(scenes, answers, num_classes).figures["AP"]


def test_edge_cases():
    good, crowd = Object(0, BOX), Object(0, (0.0, 0, 90, 90), crowd=True)
    assert ap([scene(good)], [found([BOX])]) == pytest.approx(1)
    assert ap([scene(good)], [found()]) == 0
    assert ap([scene()], [found([BOX])]) is None
    assert ap([scene()], [found()]) is None
    assert ap([], []) is None
    assert ap([scene(crowd)], [found([BOX])]) is None
    inside = (60.0, 60, 80, 80)
    assert ap([scene(good, crowd)], [found([BOX, inside], [0.5, 0.9])]) == pytest.approx(1)
    difficult = Object(0, inside, difficult=True)
    assert ap([scene(good, difficult)], [found([BOX])]) == pytest.approx(1)
    assert ap([scene(Object(0, (5.0, 5, 5, 5)))], [found([BOX])]) == 0
    two = coco_figures([scene(good)], [found([BOX])], 2)
    assert two.per_class == [pytest.approx(1), None]
    assert two.figures["AP_small"] is None
    assert two.figures["AP_medium"] == pytest.approx(1)


def test_ids_of_files_do_not_matter():
    content, results = random_set(3)
    before = evaluate_coco(read(content), results).figures
    for place, row in enumerate(content["annotations"]):
        row["id"] = place  # the first is 0, with which pycocotools counts a perfect match as a miss
        if row["iscrowd"] == 0:
            del row["iscrowd"]
    assert evaluate_coco(read(content), results).figures == before


def test_what_cannot_be_measured_is_refused():
    one = scene(Object(0, BOX))
    for score in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"a.png: the score of detection 1 is {score}, not a number"):
            coco_figures([one], [found([BOX, BOX], [0.5, score])], 1)
    with pytest.raises(ValueError, match="the label 4 is no class; there are 1"):
        coco_figures([one], [found([BOX], labels=[4])], 1)
    with pytest.raises(ValueError, match="1 scenes and 0 lists"):
        coco_figures([one], [], 1)
    with pytest.raises(ValueError, match="has an object without a mask"):
        coco_figures([one], [found([BOX])], 1, "segm")
    with pytest.raises(ValueError, match="the detections have no keypoints"):
        coco_figures([one], [found([BOX])], 1, "keypoints")
    truth = Annotations((Scene("a.png", 9, 9, (), 5),), ("cat",))
    row = {"image_id": 5, "category_id": 1, "score": 0.5, "bbox": [1, 1, 2, 2]}
    assert len(read_results([row], truth, "bbox")[0].scores) == 1
    for key, text in [
        ("image_id", "image_id is 9, and no image"),
        ("category_id", "category_id is 9, and no category"),
    ]:
        with pytest.raises(DataError, match=rf"results\[1\]: {text}"):
            evaluate_coco(truth, [row, {**row, key: 9}])
    with pytest.raises(DataError, match="must have image_id, category_id, score and segmentation"):
        evaluate_coco(truth, [row], "segm")
