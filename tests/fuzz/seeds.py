"""Small whole files of every format, made by code: what the examples are damaged copies of."""

import csv
import gzip
import io
import json
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nexus.data.clips.id_images import write_ids
from tests.nexus.data.medical.drawn_scans import ball, write_nifti, write_series

SIZE = (16, 12)


def put(path: Path, content: str | bytes | list[Any] | dict[str, Any]) -> Path:
    """Writes text, bytes, or JSON, and the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def picture(path: Path, mode: str = "RGB", **options: Any) -> Path:
    """An image of 16 x 12 pixels in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (SIZE[1], SIZE[0], 3) if mode == "RGB" else (SIZE[1], SIZE[0])
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def tiny_model() -> torch.nn.Module:
    """A vision transformer of a few hundred weights."""
    from nexus.models.cv import VisionTransformer

    torch.manual_seed(0)
    size = {"image_size": 16, "patch_size": 8, "embed_dim": 8, "num_layers": 1, "num_heads": 2, "num_classes": 3}
    return VisionTransformer(size)


def saved_model(folder: Path) -> None:
    """A folder of `save_pretrained`, with preprocessing and names of classes."""
    from nexus.core.preprocessing import Preprocessing

    model: Any = tiny_model()
    model.preprocessing = Preprocessing(image_size=(16, 16))
    model.class_names = ("cat", "dog", "bird")
    model.save_pretrained(folder)


def hub_model(folder: Path) -> None:
    """A folder as transformers writes it, of a small vision transformer."""
    from safetensors.torch import save_file

    size = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    rest = {"intermediate_size": 16, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True}
    kind = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "id2label": {"0": "a", "1": "b", "2": "c"},
    }
    put(folder / "config.json", {**kind, **size, **rest})
    save_file(_hub_weights(8, 16, 3), folder / "model.safetensors")
    what = {"do_resize": True, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2}
    values = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    put(folder / "preprocessor_config.json", {**what, **values, "image_processor_type": "ViTImageProcessor"})


def _hub_weights(width: int, hidden: int, classes: int) -> dict[str, torch.Tensor]:
    layer = "vit.encoder.layer.0."
    maps = {f"{layer}attention.attention.{name}": (width, width) for name in ("query", "key", "value")}
    maps |= {f"{layer}attention.output.dense": (width, width), f"{layer}intermediate.dense": (hidden, width)}
    maps |= {f"{layer}output.dense": (width, hidden), "classifier": (classes, width)}
    maps |= {"vit.embeddings.patch_embeddings.projection": (width, 3, 8, 8)}
    shapes = {f"{name}.weight": shape for name, shape in maps.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in maps.items()}
    for norm in (f"{layer}layernorm_before", f"{layer}layernorm_after", "vit.layernorm"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    shapes |= {"vit.embeddings.cls_token": (1, 1, width), "vit.embeddings.position_embeddings": (1, 5, width)}
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def timm_model(folder: Path) -> None:
    """A folder as timm writes it, of a small variant."""
    from safetensors.torch import save_file

    from nexus import create_model

    with torch.device("meta"):
        model = create_model("resnet18", num_classes=3)
    weights = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in model.state_dict().items()}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    cfg = {"input_size": [3, 32, 32], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    cfg |= {"num_classes": 3, "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc", "tag": "a1_in1k"}
    put(folder / "config.json", {"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": cfg})


def weights() -> dict[str, torch.Tensor]:
    """Three tensors."""
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2), "n": torch.tensor(3)}


def pickled(folder: Path) -> None:
    """A checkpoint of another program: weights beside plain values."""
    torch.save({"state_dict": weights(), "epoch": 3, "args": {"lr": 0.1}}, folder / "a.pth")


def old_pickled(folder: Path) -> None:
    """The format of torch before 1.6: pickles one after the other."""
    torch.save({"model": weights()}, folder / "a.pt", _use_new_zipfile_serialization=False)


def pickled_module(folder: Path) -> None:
    """A whole module, as `torch.save(model)` writes it."""
    torch.save({"model": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())}, folder / "a.pt")


def scripted(folder: Path) -> None:
    """An archive of TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(folder / "a.pt"))


def arrays(folder: Path) -> None:
    """A .npz file."""
    np.savez(folder / "a.npz", **{"a/kernel": np.ones((2, 3), np.float32), "a/bias": np.zeros(2, np.float32)})


def safe(folder: Path) -> None:
    """A .safetensors file."""
    from safetensors.torch import save_file

    save_file(weights(), folder / "a.safetensors")


def parts(folder: Path) -> None:
    """Weights in two files with an index."""
    from safetensors.torch import save_file

    own = weights()
    save_file({"a.weight": own["a.weight"]}, folder / "m-00001-of-00002.safetensors")
    save_file({"a.bias": own["a.bias"]}, folder / "m-00002-of-00002.safetensors")
    names = {"a.weight": "m-00001-of-00002.safetensors", "a.bias": "m-00002-of-00002.safetensors"}
    put(folder / "m.safetensors.index.json", {"metadata": {"total_size": 32}, "weight_map": names})


def mithril_model(folder: Path) -> None:
    """A composed model with a shared part, a loop, a symbol, attributes and a constant."""
    from mithril.models import IOKey, Linear, Model, Relu

    block = Model()
    block |= Linear(4, name="fc")(input="input")
    block += Relu()
    model = Model()
    model |= block(input=IOKey("images", shape=["b", 4]), output=IOKey("hidden"))
    model |= Linear(2, name="head")(input="hidden", output=IOKey("logits"))
    put(folder / "model.json", model.to_json())


def coco(folder: Path) -> dict[str, Any]:
    """COCO's objects: boxes, polygons, runs as lists and as text, a crowd, keypoints."""
    rows: list[dict[str, Any]] = [
        {"bbox": [1, 1, 6, 5], "area": 30, "segmentation": [[1, 1, 7, 1, 7, 6, 1, 6]]},
        {
            "bbox": [0, 0, 2, 2],
            "area": 4,
            "iscrowd": 1,
            "segmentation": {"size": [12, 16], "counts": [0, 2, 10, 2, 178]},
        },
        {"bbox": [2, 2, 5, 5], "keypoints": [3, 3, 2, 4, 4, 1], "num_keypoints": 2, "category_id": 2},
    ]
    annotations = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, "iscrowd": 0, **row} for n, row in enumerate(rows, 1)
    ]
    images = [{"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in (1, 2)]
    points = {"keypoints": ["left_eye", "right_eye"], "skeleton": [[1, 2]]}
    content = {"info": {"year": 2026}, "licenses": [], "images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "man", **points}]
    for n in (1, 2):
        picture(folder / "images" / f"{n}.png")
    put(folder / "train.json", content)
    return content


def coco_runs(folder: Path) -> None:
    """Masks as COCO's text alone."""
    content = coco(folder)
    from nexus.data.detection.rle import encode

    mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    mask[2:7, 3:9] = True
    counts = encode(mask).to_json()["counts"]
    for row in content["annotations"]:
        row.pop("keypoints", None)
        row.pop("num_keypoints", None)
        row |= {"segmentation": {"size": [SIZE[1], SIZE[0]], "counts": counts}, "bbox": [3, 2, 6, 5], "category_id": 1}
    put(folder / "train.json", content)


def coco_results(folder: Path) -> None:
    """What a detector found in the images of `coco_runs`."""
    coco_runs(folder)
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5, "segmentation": [[1, 1, 7, 1, 7, 6]]}]
    put(folder / "results.json", rows)


def yolo(folder: Path) -> None:
    """YOLO's folder with two boxes and an outline."""
    for split in ("train", "val"):
        picture(folder / "images" / split / "a.png")
        put(folder / "labels" / split / "a.txt", "0 0.5 0.5 0.25 0.25\n1 0.4 0.4 0.2 0.1\n0 0.1 0.1 0.6 0.1 0.6 0.7\n")
    put(folder / "data.yaml", "train: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n")


def voc(folder: Path) -> None:
    """Pascal VOC's folder with one object."""
    picture(folder / "JPEGImages" / "a.png")
    put(folder / "ImageSets" / "Main" / "train.txt", "a\n")
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox>"
    flags = "<pose>Left</pose><truncated>0</truncated><difficult>0</difficult>"
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    text = f"<annotation><folder>VOC</folder><filename>a.png</filename>{size}<segmented>0</segmented><object><name>cat</name>{flags}{box}</object></annotation>"
    put(folder / "Annotations" / "a.xml", text)


def captions_csv(folder: Path) -> None:
    """A table of captions."""
    picture(folder / "a.png")
    picture(folder / "b.png")
    put(folder / "c.csv", 'file,caption,split\na.png,"a cat, sleeping",train\nb.png,a dog,train\na.png,a pet,val\n')


def captions_jsonl(folder: Path) -> None:
    """Captions in JSON lines."""
    picture(folder / "a.png")
    lines = [
        {"file": "a.png", "captions": ["a cat", "a pet"], "split": "train"},
        {"file": "a.png", "caption": "x", "split": "train"},
    ]
    put(folder / "c.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def captions_coco(folder: Path) -> None:
    """COCO's captions."""
    picture(folder / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": 16, "height": 12}]
    notes = [{"id": n, "image_id": 1, "caption": f"a cat {n}"} for n in range(8)]
    put(folder / "c.json", {"images": images, "annotations": notes})


def labelled_folder(folder: Path) -> None:
    """Images with a table of labels."""
    picture(folder / "a.png")
    picture(folder / "b.png")
    put(folder / "labels.csv", "file,label,split\na.png,cat,train\nb.png,dog,train\n")


def image(suffix: str, mode: str = "RGB", **options: Any) -> Callable[[Path], object]:
    """One image of a format."""
    return lambda folder: picture(folder / f"a{suffix}", mode, **options)


def array_image(folder: Path) -> None:
    """An image as a .npy file."""
    np.save(folder / "a.npy", np.zeros((12, 16, 3), np.float32))


def video(folder: Path) -> None:
    """Three frames."""
    from nexus.data.video import write_frames

    write_frames(folder / "a.mp4", [Image.new("RGB", (32, 32), (n * 80, 0, 0)) for n in range(3)])


def clips(folder: Path) -> None:
    """Two sequences of two frames as in YouTube-VOS, with a list of objects."""
    ids = np.zeros(SIZE[::-1], np.uint8)
    ids[2:5, 1:6] = 1
    for name in ("a", "b"):
        for at in range(2):
            picture(folder / f"train/JPEGImages/{name}/{at}.png")
            mask = folder / f"train/Annotations/{name}/{at}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            write_ids(mask, ids)
    put(folder / "train/meta.json", {"videos": {name: {"objects": {"1": {"category": "cat"}}} for name in "ab"}})


def clip_lists(folder: Path) -> None:
    """The same without a list of objects, as in DAVIS, with lists of sequences."""
    clips(folder)
    (folder / "train/meta.json").unlink()
    for name in ("JPEGImages", "Annotations"):
        (folder / "train" / name).rename(folder / name)
    put(folder / "ImageSets/train.txt", "a\n")


def zipped(folder: Path) -> None:
    """A zip file with a folder and two files."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/a.txt", "hello " * 50)
        archive.writestr("x/b.txt", "there")


def tarred(folder: Path) -> None:
    """The same as .tar.gz."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in (("x/a.txt", b"hello " * 50), ("x/b.txt", b"there")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (folder / "a.tar.gz").write_bytes(gzip.compress(target.getvalue(), 1))


def cifar_pickle(folder: Path) -> None:
    """A file of CIFAR's kind."""
    content = {b"data": np.zeros((4, 12), np.uint8), b"labels": [0, 1, 2, 3], b"filenames": [b"a", b"b"]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, 2))


RECIPE = """model:
  name: vit_tiny_patch16_224
  config: {embed_dim: 16, num_layers: 2, num_heads: 2}
data:
  source: folder:photos
  preprocessing: {image_size: [8, 8], resize: none, mean: [0.5], std: [0.25]}
augment: {flip: 0.5, mixup: 0.2, crop_scale: [0.5, 1.0]}
optimizer: {name: adamw, lr: 3e-4, betas: [0.9, 0.95], lr_factors: {head.: 2.0}}
schedule: {name: step, milestones: [3, 5]}
training: {epochs: 3, batch_size: 16, clip_norm: 1.0, precision: fp32, ema: null, device: cpu}
"""


def recipe(folder: Path) -> None:
    """A recipe with every kind of value."""
    put(folder / "recipe.yaml", RECIPE)


def checkpoint(folder: Path) -> None:
    """A run's folder with two checkpoints."""
    from nexus.training.checkpoint import save_checkpoint

    recipe(folder)
    put(folder / "metrics.jsonl", metrics().decode())
    for step in (3, 6):
        state: Mapping[str, Any] = {"model": weights(), "position": {"epoch": 1, "step": step}, "window": [None]}
        save_checkpoint(folder / "checkpoints", step, state, metrics(), {"epoch": 1})


def metrics() -> bytes:
    """Two lines of a run's metrics."""
    records = [
        {"kind": "train", "step": 3, "epoch": 0.5, "loss": 1.5, "lr": 0.1},
        {"kind": "val", "step": 6, "epoch": 1, "top1": 0.5},
    ]
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def run_metrics(folder: Path) -> None:
    """A run's folder as far as its curves are drawn from it."""
    put(folder / "metrics.jsonl", metrics())


def run_data(folder: Path) -> None:
    """What a run says of its data, packed and not, and what there is now."""
    one = {"classes": ["a", "b"], "names": ["a/1.png", "b/2.png"], "sizes": [3, 4], "said": [0, 1]}
    before = {"train": {**one, "content": {"0": 1, "1": 2}}}
    put(folder / "data.json", before)
    put(folder / "now.json", {"train": {**before["train"], "sizes": [3, 5]}})
    put(folder / "data.gz", gzip.compress(json.dumps(before).encode(), 1))


def tokenizer(folder: Path) -> None:
    """The tokenizer of a few words."""
    from nexus.tasks.image_text.tokenizers import word_tokenizer

    word_tokenizer(["a photo of a cat", "a photo of a dog"]).save_pretrained(folder)


def reply(folder: Path) -> None:
    """What a server answers."""
    body = b"weights" * 20
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: application/octet-stream\r\n\r\n"
    put(folder / "reply", head.encode() + body)


def table(rows: list[list[object]]) -> str:
    """Rows as the text of a .csv file."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows(rows)
    return target.getvalue()


def nifti(folder: Path) -> None:
    write_nifti(folder / "a.nii", ball((6, 5, 4), (3, 2, 2), 2))


def nifti_packed(folder: Path) -> None:
    write_nifti(folder / "a.nii.gz", ball((6, 5, 4), (3, 2, 2), 2))


def dicom(folder: Path) -> None:
    write_series(folder / "series", ball((6, 5, 3), (3, 2, 1), 2))
