"""Objects followed through videos and clips, asked and measured as a user does."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import nexus
from nexus import Predictor, Preprocessing
from nexus.cli.commands import app
from nexus.data import load_dataset
from nexus.data.clips import DigitVideos
from nexus.data.clips.batches import ClipTransform
from nexus.data.clips.clip import first_seen
from nexus.data.clips.id_images import read_ids
from nexus.data.transforms import AugmentConfig, eval_transform
from nexus.data.video import write_frames
from nexus.models.cv.sam2 import SAM2, SAM2Config, VideoSession
from nexus.ops.contours import clip_scores
from nexus.predict import draw_predictions, write_predictions
from nexus.tasks.table import task_of
from nexus.tasks.video_segmentation.asking import asked_of, read_texts
from nexus.tasks.video_segmentation.following import follow, pointing_at

TINY = SAM2Config(
    image_size=64,
    trunk_embed_dim=8,
    trunk_depths=(1, 1, 1, 1),
    trunk_global_blocks=(2,),
    trunk_windows=(4, 2, 2, 2),
    trunk_background=(2, 2),
    embed_dim=16,
    decoder_num_heads=2,
    decoder_mlp_dim=16,
    mask_dim=16,
    iou_head_dim=8,
    memory_dim=8,
    memory_depth=1,
    memory_mlp_dim=16,
    fuser_depth=1,
)
PIXELS = Preprocessing(image_size=(64, 64), resize="squash", mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = SAM2(TINY).eval()
    torch.nn.init.constant_(model.mask_decoder.object_head.layers[-1].bias, 5.0)  # objects are in sight
    model.preprocessing = PIXELS
    return model


@pytest.fixture(scope="module")
def clips():
    return DigitVideos("val", 3)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 8 frames of 80 x 60 pixels."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    frames = [Image.fromarray(np.roll(ground, 3 * at, axis=1)) for at in range(8)]
    return write_frames(tmp_path_factory.mktemp("video") / "clip.mp4", frames)


PROMPTS = {1: {"frame": 0, "points": [[20, 30]]}, 7: {"frame": 3, "boxes": [10, 10, 50, 40]}}


def test_a_video_is_followed_as_the_session_of_the_model_does(model, video):
    results = Predictor(model)(str(video), prompts=PROMPTS)
    assert [one.number for one in results] == list(range(8))
    assert [tuple(o.object_id for o in one.objects) for one in results] == [(1,)] * 3 + [(1, 7)] * 5
    session, transform = VideoSession(model, (60, 80)), eval_transform(PIXELS)
    for one in results:
        tracked = session.push(transform(one.image))
        if one.number == 0:
            tracked = session.prompt(1, points=[[20, 30]])
        if one.number == 3:
            tracked = session.prompt(7, boxes=[10, 10, 50, 40])
        large = torch.nn.functional.interpolate(tracked.logits[None], size=(60, 80), mode="bilinear")[0]
        assert np.array_equal(one.masks(), (large > 0).numpy())
        assert [o.score for o in one.objects] == pytest.approx(tracked.iou.tolist(), abs=1e-5)


def test_a_model_of_images_and_videos_is_what_it_is_shown(model, clips):
    assert task_of(model).name == "promptable-segmentation"
    assert task_of(model, "photo.jpg", {"points": [[1, 2]]}).name == "promptable-segmentation"
    for shown in ("clip.mp4", ["clip.MP4"], PROMPTS, clips, ["1", "0:2,3"], ["0:2,3"]):
        assert task_of(model, shown).name == "video-segmentation", shown
    assert task_of(model, load_dataset("digit-scenes:2")).name == "promptable-segmentation"


def test_frames_may_be_pictures_or_arrays_and_steps_keep_their_numbers(model, video, tmp_path):
    every = Predictor(model)(str(video), prompts={1: {"frame": 3, "points": [[20, 30]]}}, frame_step=3)
    assert [(one.number, len(one)) for one in every] == [(0, 0), (3, 1), (6, 1)]
    frames = np.stack([np.asarray(one.image) for one in Predictor(model)(str(video), prompts=PROMPTS)])
    for place, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{place:05}.png")
    whole = Predictor(model)(frames, prompts=PROMPTS)
    files = Predictor(model)(tmp_path, prompts=PROMPTS)
    for one, other in zip(whole, files, strict=True):
        assert np.array_equal(one.masks(), other.masks())


def test_results_are_written(model, video, tmp_path):
    results = Predictor(model)(str(video), prompts=PROMPTS)
    folder = write_predictions(results, tmp_path / "masks")
    assert sorted(file.name for file in folder.iterdir()) == [f"{at:05}.png" for at in range(8)]
    ids = read_ids(folder / "00004.png", (60, 80))
    first, second = results[4].masks()
    assert np.array_equal(ids == 1, first) or not first.any()
    assert np.array_equal(ids == 7, second & ~first)
    rows = json.loads(write_predictions(results, tmp_path / "m.coco.json").read_text())
    assert {(row["image_id"], row["track_id"]) for row in rows} == {
        (one.number + 1, o.object_id) for one in results for o in one.objects if o.mask.area
    }
    plain = json.loads(write_predictions(results, tmp_path / "m.json").read_text())
    assert plain[5]["frame"] == 5
    assert plain[5]["objects"][1]["mask"] == results[5].objects[1].mask.to_json()
    drawn = draw_predictions(iter(results), tmp_path / "out.mp4")
    assert drawn[0].stat().st_size > 1000
    huge = Predictor(model)(str(video), prompts={300: {"points": [[20, 30]]}})
    with pytest.raises(ValueError, match="Object 300 has no number in a picture; they go up to 254"):
        write_predictions(huge, tmp_path / "huge")


def test_the_command_line(model, video, tmp_path, monkeypatch):
    monkeypatch.setattr("nexus.predict.open_model", lambda *_: model)
    words = ["predict", str(video), "--model", "tiny", "--object", "1", "--point", "0:20,30"]
    words += ["--point", "0:not:70,5", "--object", "2", "--box", "2:10,10,50,40", "-o", str(tmp_path / "m.coco.json")]
    told = CliRunner().invoke(app, [*words, "--draw", str(tmp_path / "out.mp4"), "--json"])
    assert told.exit_code == 0, told.output
    frames = json.loads(told.output)
    assert [[o["object"] for o in one["objects"]] for one in frames] == [[1]] * 2 + [[1, 2]] * 6
    asked = {1: {"points": [[20, 30], [70, 5]], "labels": [1, 0]}, 2: {"frame": 2, "boxes": [10, 10, 50, 40]}}
    expected = Predictor(model)(str(video), prompts=asked)
    assert [o["area"] for o in frames[7]["objects"]] == [o.mask.area for o in expected[7].objects]
    assert (tmp_path / "out.mp4").exists()
    assert json.loads((tmp_path / "m.coco.json").read_text())


def test_texts_of_prompts():
    assert read_texts(["0:1,2", "0:not:3,4", "2", "5:1,2,3,4", "5:2,2", "9:1,1"]) == {
        1: [{"frame": 0, "points": [[1, 2], [3, 4]], "labels": [1, 0]}],
        2: [
            {"frame": 5, "boxes": [1, 2, 3, 4], "points": [[2, 2]], "labels": [1]},
            {"frame": 9, "points": [[1, 1]], "labels": [1]},
        ],
    }
    for texts, message in (
        (["1"], "--object 1 has no point or box; write --object 1 --point 0:210,350"),
        (["0:1,2,3,4", "0:1,2,3,5"], r"Object 1 has two boxes in frame 0; give one"),
        (["0:1,2,3"], "'0:1,2,3' is no object"),
        (["x:1,2"], "'x:1,2' is no object"),
        (["0:not:1,2,3,4"], "is no object"),
        (["0:1.2.3,4"], "is no object"),
    ):
        with pytest.raises(ValueError, match=message):
            read_texts(texts)


def test_wrong_prompts_are_named(model, video):
    for prompts, message in (
        (None, r"A video is followed from prompts, and there are none; write prompts=\{1: "),
        ({}, "There is no prompt, but '{}'; write prompts="),
        ({0: {"points": [[1, 2]]}}, "There is an object 0; objects are numbered from 1"),
        ({1: {"point": [[1, 2]]}}, "There is no prompt 'point'. Did you mean 'points'"),
        ({1: {"frame": 2}}, "Object 1 has no point, box or mask"),
        ({1: [3]}, "Object 1 is asked about by '3'"),
        ({1: {"frame": -1, "points": [[1, 2]]}}, "frame of object 1 is -1; it is the number of one, from 0"),
        ({1: {"points": [[100, 2]]}}, "Object 1 in frame 0: "),
        (
            {1: {"points": [[1, 2]]}, 2: {"frame": 30, "points": [[1, 2]]}},
            "Object 2 is pointed at in frame 30, which never came: the video showed 8 frames, the last of them number 7",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Predictor(model)(str(video), prompts=prompts)
    assert [
        one.frame for one in asked_of({1: [{"frame": 4, "points": 1}, {"points": 1}], 2: {"frame": 1, "boxes": 1}})
    ] == [
        0,
        1,
        4,
    ]


def test_frames_of_several_sizes_are_refused(model):
    frames = [np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"images\[1\] has 31 x 20 pixels, and the frames before it had 30 x 20"):
        Predictor(model)(frames, prompts={1: {"points": [[1, 2]]}})


def test_a_video_that_breaks_off_is_named(model, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    content = bytearray(video.read_bytes())
    content[len(content) // 3 :] = b"\0" * (len(content) - len(content) // 3)
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.mp4"):
        Predictor(model)(str(broken), prompts=PROMPTS)


def test_evaluation_is_the_definition(model, clips):
    report = nexus.evaluate(model, clips)
    assert report.settings["prompt"] == "click"
    js, fs = [], []
    for clip in map(clips.__getitem__, range(3)):
        starts, transform = first_seen(clip), eval_transform(PIXELS)
        session, found = VideoSession(model, (64, 64), num_frames=12), {one: [] for one in starts}
        for at in range(12):
            tracked = session.push(transform(clip.frame(at)))
            for one, start in starts.items():
                if start == at:
                    tracked = session.prompt(one, **pointing_at(clip.ids(at) == one, "click"))
            if not tracked.object_ids:
                continue
            large = torch.nn.functional.interpolate(tracked.logits[None], size=(64, 64), mode="bilinear")[0]
            best = large.argmax(dim=0)
            for place, one in enumerate(tracked.object_ids):
                found[one].append(((large[place] > 0) & (best == place)).numpy())
        for one, start in starts.items():
            truth = np.stack([clip.ids(at) == one for at in range(start, 12)])
            scores = clip_scores(truth, np.stack(found[one]))
            js.append(scores.j)
            fs.append(scores.f)
    assert report.metrics["J"] == pytest.approx(np.mean(js))
    assert report.metrics["F"] == pytest.approx(np.mean(fs))
    assert report.metrics["J&F"] == pytest.approx((np.mean(js) + np.mean(fs)) / 2)
    assert len(report.per_object) == len(js)
    assert sum(row["objects"] for row in report.per_class) == len(js)
    assert len(report.sections(clips)[2].pictures) == min(6, len(js))
    assert report.worst_pictures(clips)[0][1].width > 600
    assert json.loads(json.dumps(report.to_json()))["per_object"][0]["clip"] == "digit-videos/val[0]"


def test_objects_are_pointed_at_by_a_click_a_box_or_a_mask(model, clips):
    clip = clips[1]
    mask = clip.ids(0) == 1
    x, y = pointing_at(mask, "click")["points"][0]
    assert mask[y, x]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert pointing_at(mask, "box")["boxes"] == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    given = {
        kind: nexus.evaluation.follow_clips(model, clips, prompt=kind).metrics["J&F"]
        for kind in ("click", "box", "mask")
    }
    assert len(set(given.values())) == 3
    with pytest.raises(ValueError, match="prompt is 'word'; objects are pointed at by click, box, mask"):
        nexus.evaluation.follow_clips(model, clips, prompt="word")


def test_without_memory_each_frame_is_asked_about_anew(model, clips):
    clip = clips[1]
    (one, *_) = follow(model, clip, memory=False)
    session = VideoSession(model, (64, 64))
    session.push(eval_transform(PIXELS)(clip.frame(5)))
    tracked = session.prompt(one.object_id, **one.prompt)
    large = torch.nn.functional.interpolate(tracked.logits[None], size=(64, 64), mode="bilinear")[0, 0] > 0
    assert np.array_equal(one.masks[one.frames.index(5)].decode(), large.numpy())


def test_other_data_is_refused(model):
    with pytest.raises(ValueError, match="'digit-scenes' has no clips; take digit-videos or clips:PATH"):
        nexus.evaluation.follow_clips(model, "digit-scenes:2")


def test_batches_to_learn_from(clips):
    transform = ClipTransform(PIXELS, AugmentConfig(flip=1.0), frames=5, max_objects=1, reverse=1.0)
    rngs = [np.random.default_rng(place) for place in range(3)]
    batch = transform.make_batch(clips, [0, 1, 2], rngs)
    assert batch["images"].shape == (3, 5, 3, 64, 64)
    for place, masks in enumerate(batch["objects"]):
        assert masks.shape == (1, 5, 64, 64)
        assert masks[:, 0].any()
        clip, found = clips[place], []
        for at, image in enumerate(batch["images"][place]):
            same = [n for n in range(12) if torch.equal(eval_transform(PIXELS)(clip.frame(n)).flip(-1), image)]
            found += same[:1]
            assert any(np.array_equal((clip.ids(same[0]) == one)[:, ::-1], masks[0, at]) for one in clip.object_ids)
        assert found == list(range(found[0], found[0] - 5, -1))
    long = ClipTransform(PIXELS, AugmentConfig(), frames=14).make_batch(clips, [1], rngs[:1])["images"][0]
    assert torch.equal(long[12], long[10])
    with pytest.raises(ValueError, match="augment sets rotate, and clips follow flip; leave it out"):
        ClipTransform(PIXELS, AugmentConfig(rotate=10))
    with pytest.raises(ValueError, match='resize is "shorter"; clips are seen whole: take "squash"'):
        ClipTransform(Preprocessing(image_size=(64, 64), resize="shorter"))
