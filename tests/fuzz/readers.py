"""Every way by which a stranger's file becomes data. A new reader is one entry of `READERS`."""

import contextlib
import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mithril as ml
from nexus.core.download import download
from nexus.core.files import read_state
from nexus.core.module import NexusModule
from nexus.data import load_dataset
from nexus.data.archive import extract
from nexus.data.datasets.pickles import read_arrays
from nexus.data.detection.check import read_annotations
from nexus.data.images import load_image
from nexus.data.medical import read_volume
from nexus.training.checkpoint import newest_checkpoint
from nexus.training.recipe_files import load_recipe
from tests.fuzz import seeds, tool_seeds
from tests.fuzz.harness import Reader


def _mithril(folder: Path) -> object:
    """Reads a model and makes its program, which is where names would become code."""
    path = folder / "model.json"
    with _naming(path):
        model = ml.models.Model.from_json(path.read_text(encoding="utf-8"))
        compiled = ml.compile(model, ml.NumpyBackend(), shapes={"images": [2, 4]}, jit=False)
        params = compiled.randomize_params(0)
        import numpy as np

        return compiled.evaluate(params, {"images": np.ones((2, 4), np.float32)})


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file before a message, for readers that are given its content alone."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error.reason}") from error
    except ValueError as error:
        if type(error).__module__.startswith("mithril"):
            error.args = (f"{path}: {error}",)
        raise


def _every(source: str, split: str = "train") -> Any:
    """Reads a data set and its first samples, as training does."""
    dataset = load_dataset(source, split)
    return [dataset[index] for index in range(min(len(dataset), 2))]


def _clips(folder: Path) -> object:
    """Reads all clips, with their frames and masks."""
    dataset = load_dataset(f"clips:{folder}")
    opened = [dataset[index] for index in range(len(dataset))]
    return [(clip.frame(at), clip.ids(at), clip.object_ids) for clip in opened for at in clip.annotated]


def _annotated(kind: str) -> Any:
    """Reads all annotations of a kind, and unpacks their masks."""

    def read(folder: Path) -> object:
        annotations = read_annotations(f"{kind}:{folder}")
        return [scene.rle(one) for scene in annotations.scenes for one in scene.objects]

    return read


def _state(file: str) -> Any:
    return lambda folder: read_state(folder / file)


def _image(file: str) -> Any:
    return lambda folder: load_image(folder / file)


def _results(folder: Path) -> object:
    from nexus.tasks.detection.coco_results import evaluate_coco

    return [evaluate_coco(folder / "train.json", folder / "results.json", kind) for kind in ("bbox", "segm")]


def _video(folder: Path) -> object:
    from nexus.data.video import frame_rate, read_frames

    return frame_rate(folder / "a.mp4"), list(read_frames(folder / "a.mp4"))


def _checkpoint(folder: Path) -> object:
    """Reads the newest checkpoint; one that is damaged is refused by taking the one before, which must be whole."""
    found = newest_checkpoint(folder / "checkpoints")
    assert found is not None, "the one before is never damaged"
    read = found.state(), found.metrics()
    if found.path.name not in _STEP:
        raise ValueError(f"{folder / _STEP / 'manifest.json'} is not of a whole checkpoint.")
    return read


def _agree(folder: Path) -> None:
    """Makes the manifest of the newest checkpoint agree with its damaged files."""
    place = folder / "checkpoints" / "step-00000006"
    manifest = json.loads((place / "manifest.json").read_bytes())
    for name, entry in manifest["files"].items():
        data = (place / name).read_bytes()
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (place / "manifest.json").write_text(json.dumps(manifest))


def _curves(folder: Path) -> object:
    from nexus.visualization.curves import read_metrics

    return read_metrics(folder)


def _run_data(folder: Path) -> object:
    """Compares what a run says of its data with other data, as a resumed run does."""
    text = (folder / "data.json").read_bytes()
    return _compared(folder, gzip.compress(text, 1), "data.json")


def _run_data_packed(folder: Path) -> object:
    return _compared(folder, (folder / "data.gz").read_bytes(), "data.gz")


def _compared(folder: Path, data: bytes, name: str) -> object:
    from nexus.training.fingerprint import differences, unpack

    now = json.loads((folder / "now.json").read_bytes())
    return differences(unpack(data, str(folder / name)), now)


def _tokenizer(folder: Path) -> object:
    from nexus.tasks.image_text.tokenizers import load_tokenizer

    return load_tokenizer(_tiny_clip(), folder)(["a photo of a cat"])


_models: list[Any] = []


def _tiny_clip() -> Any:
    from nexus.training import load_recipe as shipped
    from nexus.training.assembly import make_model

    if not _models:
        _models.append(make_model(shipped("digits/clip_tiny"), load_dataset("digits")))
    return _models[0]


def _download(folder: Path) -> object:
    """Fetches from a server that sends the file as it stands."""
    content = (folder / "reply").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, content), daemon=True)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.getsockname()[1]}/reply"
            return download(address, folder=folder / "out")
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                client.recv(65536)
                client.sendall(content)


def _impatient(seed: Any) -> Any:
    """Does away with the pauses between the attempts of a download."""

    def ready(folder: Path) -> None:
        import nexus.core.download as module

        module.time.sleep = lambda seconds: None
        seed(folder)

    return ready


def _unpack(file: str) -> Any:
    return lambda folder: extract(folder / file, folder / "out", max_members=100, max_bytes=1 << 20)


_STEP = "checkpoints/step-00000006"

READERS = {
    reader.name: reader
    for reader in (
        Reader("nifti", seeds.nifti, lambda folder: read_volume(folder / "a.nii"), {"a.nii": "bytes"}),
        Reader(
            "nifti packed", seeds.nifti_packed, lambda folder: read_volume(folder / "a.nii.gz"), {"a.nii.gz": "bytes"}
        ),
        Reader("dicom", seeds.dicom, lambda folder: read_volume(folder / "series"), {"series/000.dcm": "bytes"}),
        Reader("mithril json", seeds.mithril_model, _mithril, {"model.json": "json"}),
        Reader("safetensors", seeds.safe, _state("a.safetensors"), {"a.safetensors": "safetensors"}),
        Reader("pth", seeds.pickled, _state("a.pth"), {"a.pth": "zip"}),
        Reader("pth before 1.6", seeds.old_pickled, _state("a.pt"), {"a.pt": "pickle"}),
        Reader("pickled module", seeds.pickled_module, _state("a.pt"), {"a.pt": "zip"}),
        Reader("torchscript", seeds.scripted, _state("a.pt"), {"a.pt": "zip"}),
        Reader("npz", seeds.arrays, _state("a.npz"), {"a.npz": "zip"}),
        Reader("index.json", seeds.parts, _state("m.safetensors.index.json"), {"m.safetensors.index.json": "json"}),
        Reader(
            "saved model",
            seeds.saved_model,
            NexusModule.from_pretrained,
            {"config.json": "json", "model.safetensors": "safetensors"},
        ),
        Reader(
            "hub folder",
            seeds.hub_model,
            NexusModule.from_pretrained,
            {"config.json": "json", "preprocessor_config.json": "json"},
        ),
        Reader("timm folder", seeds.timm_model, NexusModule.from_pretrained, {"config.json": "json"}),
        Reader(
            "tokenizer",
            seeds.tokenizer,
            _tokenizer,
            {"tokenizer.json": "json", "tokenizer_config.json": "json"},
        ),
        Reader("coco", seeds.coco, lambda folder: _every(f"coco:{folder}"), {"train.json": "json"}),
        Reader("coco rle", seeds.coco_runs, lambda folder: _every(f"coco:{folder}"), {"train.json": "json"}),
        Reader("coco results", seeds.coco_results, _results, {"results.json": "json"}),
        Reader(
            "yolo",
            seeds.yolo,
            lambda folder: _every(f"yolo:{folder}"),
            {"data.yaml": "yaml", "labels/train/a.txt": "table"},
        ),
        Reader(
            "voc",
            seeds.voc,
            lambda folder: _every(f"voc:{folder}"),
            {"Annotations/a.xml": "xml", "ImageSets/Main/train.txt": "table"},
        ),
        Reader("labelme", tool_seeds.labelme, _annotated("labelme"), {"a.json": "json"}),
        Reader("cvat", tool_seeds.cvat, _annotated("cvat"), {"annotations.xml": "xml"}),
        Reader("cvat video", tool_seeds.cvat_video, _annotated("cvat"), {"annotations.xml": "xml"}),
        Reader("label studio", tool_seeds.label_studio, _annotated("label-studio"), {"project.json": "json"}),
        Reader("label images", tool_seeds.label_images, _annotated("label-images"), {"masks/a.png": "png"}),
        Reader("label tiff", tool_seeds.label_tiff, _annotated("label-images"), {"masks/a.tif": "bytes"}),
        Reader(
            "class images",
            tool_seeds.class_images,
            _annotated("class-images"),
            {"masks/a.png": "png", "classes.json": "json"},
        ),
        Reader("via", tool_seeds.via, _annotated("via"), {"p.json": "json"}),
        Reader("via table", tool_seeds.via_table, _annotated("via"), {"p.csv": "table"}),
        Reader(
            "open images",
            tool_seeds.open_images,
            _annotated("open-images"),
            {"train-annotations-bbox.csv": "table", "class-descriptions-boxable.csv": "table"},
        ),
        Reader("kaggle boxes", tool_seeds.kaggle_boxes, _annotated("kaggle"), {"train.csv": "table"}),
        Reader("kaggle masks", tool_seeds.kaggle_masks, _annotated("kaggle"), {"train.csv": "table"}),
        Reader("captions csv", seeds.captions_csv, lambda f: _every(f"captions:{f / 'c.csv'}"), {"c.csv": "table"}),
        Reader(
            "captions jsonl",
            seeds.captions_jsonl,
            lambda f: _every(f"captions:{f / 'c.jsonl'}"),
            {"c.jsonl": "json lines"},
        ),
        Reader("captions coco", seeds.captions_coco, lambda f: _every(f"captions:{f / 'c.json'}"), {"c.json": "json"}),
        Reader("labels.csv", seeds.labelled_folder, lambda f: _every(f"folder:{f}"), {"labels.csv": "table"}),
        Reader("png", seeds.image(".png"), _image("a.png"), {"a.png": "png"}),
        Reader(
            "jpeg", seeds.image(".jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0"), _image("a.jpg"), {"a.jpg": "bytes"}
        ),
        Reader("tiff", seeds.image(".tif", compression="tiff_lzw"), _image("a.tif"), {"a.tif": "bytes"}),
        Reader("gif", seeds.image(".gif", "P"), _image("a.gif"), {"a.gif": "bytes"}),
        Reader("bmp", seeds.image(".bmp"), _image("a.bmp"), {"a.bmp": "bytes"}),
        Reader("webp", seeds.image(".webp"), _image("a.webp"), {"a.webp": "bytes"}),
        Reader("npy image", seeds.array_image, _image("a.npy"), {"a.npy": "npy"}),
        Reader("video", seeds.video, _video, {"a.mp4": "bytes"}),
        Reader("clips", seeds.clips, _clips, {"train/meta.json": "json", "train/Annotations/a/0.png": "png"}),
        Reader(
            "clip lists", seeds.clip_lists, _clips, {"ImageSets/train.txt": "bytes", "Annotations/a/1.png": "bytes"}
        ),
        Reader("zip", seeds.zipped, _unpack("a.zip"), {"a.zip": "zip"}),
        Reader("tar", seeds.tarred, _unpack("a.tar.gz"), {"a.tar.gz": "tar"}),
        Reader(
            "cifar pickle", seeds.cifar_pickle, lambda f: read_arrays(f / "data_batch_1"), {"data_batch_1": "pickle"}
        ),
        Reader("recipe", seeds.recipe, lambda folder: load_recipe(folder / "recipe.yaml"), {"recipe.yaml": "yaml"}),
        Reader(
            "checkpoint",
            seeds.checkpoint,
            _checkpoint,
            {f"{_STEP}/manifest.json": "json", f"{_STEP}/state.pt": "zip", f"{_STEP}/metrics.jsonl": "json lines"},
        ),
        Reader("checkpoint state", seeds.checkpoint, _checkpoint, {f"{_STEP}/state.pt": "zip"}, _agree),
        Reader("run metrics", seeds.run_metrics, _curves, {"metrics.jsonl": "json lines"}),
        Reader("run data", seeds.run_data, _run_data, {"data.json": "json"}),
        Reader("run data packed", seeds.run_data, _run_data_packed, {"data.gz": "bytes"}),
        Reader("download", _impatient(seeds.reply), _download, {"reply": "bytes"}),
    )
}
