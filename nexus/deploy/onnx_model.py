"""An exported model in ONNX Runtime: images in, answers out, as `nexus predict --json` gives them. No torch is needed.

Dims: b batch, c channels, h w pixels, k classes, n objects, p prompts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.config import nearest
from nexus.core.documents import parse_json
from nexus.core.preprocessing import Preprocessing
from nexus.data.images import Source, image_size, load_image
from nexus.data.preprocess import model_input
from nexus.deploy.onnx_images import Seen, padded
from nexus.deploy.onnx_packages import import_onnx
from nexus.deploy.onnx_prompts import answer_prompts

Answer = dict[str, Any]
"""What is said about one image: plain values that JSON can hold."""


class OnnxStage:
    """One graph. Call it with its inputs by name.

    Attributes:
        facts: The file's metadata.
        inputs: Names of what it takes.
        outputs: Names of what it gives.
    """

    def __init__(self, path: Path, threads: int | None, providers: Sequence[str]) -> None:
        self.path = path
        self.session = _session(path, threads, providers)
        self.facts: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.inputs = tuple(one.name for one in self.session.get_inputs())
        self.outputs = tuple(one.name for one in self.session.get_outputs())

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the outputs by name.

        Raises:
            ValueError: An input is missing, is not known, or does not fit.
        """
        for name in inputs:
            if name not in self.inputs:
                raise ValueError(f"{self.path} takes no {name!r}. {nearest(name, self.inputs)}")
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ValueError(f"{self.path} takes {', '.join(self.inputs)}; {', '.join(missing)} is not given.")
        for one in self.session.get_inputs():
            _check_shape(self.path, one.name, one.shape, inputs[one.name].shape)
        found = self.session.run(None, {name: np.ascontiguousarray(value) for name, value in inputs.items()})
        return dict(zip(self.outputs, found, strict=True))


class OnnxModel:
    """A model that `nexus export` wrote: `OnnxModel("mine.onnx")("photo.jpg")`.

    Attributes:
        stages: Its graphs by name, in order: one of a file, several of a folder.
        task: What the model is for.
        class_names: Names of its classes; empty when unknown.
        config: The model's configuration, as plain values.
        preprocessing: How an image becomes its input; None when unknown.
        image_size: (height, width) in pixels that the files are made for; None where it is open.
        multiple_of: Where it is open, sides are multiples of so many pixels.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Opens a file, or all files of a folder.

        Args:
            path: What `nexus export -o` was given.
            threads: That a graph may use; None is what ONNX Runtime chooses.
            providers: ONNX Runtime's names of what shall run it, the best first.
            preprocessing: Instead of the file's own.

        Raises:
            ValueError: There is no such file, or it is none of ONNX, or a stage is missing.
        """
        self.path = Path(path)
        files = [self.path] if not self.path.is_dir() else sorted(self.path.glob("*.onnx"))
        if not files:
            raise ValueError(f"{self.path} holds no .onnx files; `nexus export MODEL -o {self.path}` writes them.")
        opened = [OnnxStage(file, threads, providers) for file in files]
        first = opened[0].facts
        order = self._texts(first, "stages") or [first.get("stage", "model")]
        stages = {stage.facts.get("stage", "model"): stage for stage in opened}
        missing = [name for name in order if name not in stages]
        if missing:
            raise ValueError(f"{self.path} lacks the stage {missing[0]!r} of {', '.join(order)}; export to a folder.")
        self.stages = {name: stages[name] for name in order}
        self.task = first.get("task", "")
        self.class_names = self._texts(first, "class_names")
        self.config = self._mapping(first, "config") or {}
        given = self._mapping(first, "preprocessing")
        self.preprocessing = preprocessing or (None if given is None else Preprocessing.from_mapping(given))
        size = self._sides(first, "image_size", 2)
        self.multiple_of = self._whole(first, "multiple_of")
        self.image_size = None if size is None else (size[0], size[1])

    def _read(self, facts: Mapping[str, str], key: str) -> Any:
        return parse_json(facts[key], f"{self.path}: {key}") if key in facts else None

    def _texts(self, facts: Mapping[str, str], key: str) -> tuple[str, ...]:
        value = self._read(facts, key) or []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._odd(key, value, "a list of names")
        return tuple(value)

    def _mapping(self, facts: Mapping[str, str], key: str) -> dict[str, Any] | None:
        value = self._read(facts, key)
        if value is not None and not isinstance(value, dict):
            raise self._odd(key, value, "a mapping")
        return value

    def _whole(self, facts: Mapping[str, str], key: str) -> int:
        value = self._read(facts, key) if key in facts else 1
        if type(value) is not int or value < 1:
            raise self._odd(key, value, "a whole number above 0")
        return value

    def _sides(self, facts: Mapping[str, str], key: str, count: int) -> list[int] | None:
        value = self._read(facts, key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count or any(type(one) is not int or one < 1 for one in value):
            raise self._odd(key, value, f"{count} whole numbers above 0")
        return value

    def _odd(self, key: str, value: Any, rule: str) -> ValueError:
        return ValueError(f"{self.path}: its {key} is {value!r:.60}; it is {rule}. Export the model again.")

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs all stages one after another. Returns what they gave, by name.

        Raises:
            ValueError: An input is missing, is not known, or does not fit.
        """
        given: dict[str, np.ndarray] = {}
        known = {name for stage in self.stages.values() for name in stage.inputs}
        for name in inputs:
            if name not in known:
                raise ValueError(f"{self.path} takes no {name!r}. {nearest(name, known)}")
        for stage in self.stages.values():
            have = {**inputs, **given}
            given |= stage(**{name: have[name] for name in stage.inputs if name in have})
        return given

    def __call__(self, images: Source | Sequence[Source], *, prompts: Any = None, batch_size: int = 16) -> list[Answer]:
        """Returns an answer for each image, with the values that `nexus predict --json` shows.

        Of a classifier `label`, `score` and `top`, of a detector `objects`. Of a model that answers prompts `objects`
        with a `mask` (h, w) each, a NumPy array.

        Args:
            images: A file, an image in memory (PIL, array (h, w, c)), or several.
            prompts: Of a model that answers them: points and their labels, boxes, masks, of one prompt or several,
                in pixels of the image as given.
            batch_size: Images that the model sees at once.

        Raises:
            ValueError: The file names no preprocessing, an image does not fit, or the model answers something else.
        """
        several = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
        seen = [self._see(source, number) for number, source in enumerate(several)]
        if self.takes("points"):
            return [answer_prompts(self, one, prompts) for one in seen]
        if prompts is not None:
            raise ValueError(f"{self.path} is a model for {self.task}, which takes no prompts; leave them out.")
        answers: list[Answer] = []
        for start in range(0, len(seen), batch_size):
            answers += self._answer(seen[start : start + batch_size])
        return answers

    def takes(self, name: str) -> bool:
        """Returns whether a stage takes an input of this name."""
        return any(name in stage.inputs for stage in self.stages.values())

    def shape(self, name: str) -> list[int | str]:
        """Returns the shape of an input; a dimension that is open has a name."""
        return next(
            list(one.shape) for stage in self.stages.values() for one in stage.session.get_inputs() if one.name == name
        )

    def canvas(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Returns (height, width) of a batch that images of `sizes` are padded to.

        Raises:
            ValueError: One is larger than the file takes.
        """
        if self.image_size is None:
            height, width = (-(-max(side) // self.multiple_of) * self.multiple_of for side in zip(*sizes))
            return height, width
        rows, columns = self.image_size
        for height, width in sizes:
            if height > rows or width > columns:
                raise ValueError(
                    f"An image becomes {height} x {width} pixels (height x width), and {self.path} takes"
                    f" {rows} x {columns}; export with --open-size, or with --image-size {max(height, width)}."
                )
        return rows, columns

    def _see(self, source: Source, number: int) -> Seen:
        if self.preprocessing is None:
            raise ValueError(
                f"{self.path} does not say how an image becomes its input; pass preprocessing=Preprocessing(...), or"
                " call run(images=...)."
            )
        name = str(source) if isinstance(source, str | Path) else f"images[{number}]"
        image = load_image(source, name=name)
        return Seen(name, image_size(image), model_input(image, self.preprocessing))

    def _answer(self, seen: Sequence[Seen]) -> list[Answer]:
        if self.takes("image_sizes"):
            return self._objects(seen)
        if set(self._inputs()) != {"images"}:
            raise ValueError(
                f"{self.path} takes {', '.join(self._inputs())}; call run({self._inputs()[0]}=..., ...) with arrays."
            )
        if self.image_size is not None:
            self.canvas([one.inside for one in seen])
        outputs = self.run(images=np.stack([one.pixels for one in seen]))
        if "logits" not in outputs:
            raise ValueError(f"{self.path} gives {', '.join(outputs)} and no logits of classes; call run(images=...).")
        return [self._classes(one, row) for one, row in zip(seen, _softmax(outputs["logits"]), strict=True)]

    def _inputs(self) -> list[str]:
        """Returns what the first stages need from outside."""
        made = {name for stage in self.stages.values() for name in stage.outputs}
        return list(dict.fromkeys(n for stage in self.stages.values() for n in stage.inputs if n not in made))

    def _name(self, place: int) -> str:
        if self.class_names and place >= len(self.class_names):
            raise ValueError(f"{self.path} names {len(self.class_names)} classes and answers with class {place}.")
        return self.class_names[place] if self.class_names else str(place)

    def _classes(self, one: Seen, chances: np.ndarray) -> Answer:
        best = np.argsort(-chances, kind="stable")[:5].tolist()
        top = [{"label": self._name(place), "score": float(chances[place])} for place in best]
        return {"path": one.path, **top[0], "top": top}

    def _objects(self, seen: Sequence[Seen]) -> list[Answer]:
        outputs = self.run(
            images=padded([one.pixels for one in seen], self.canvas([one.inside for one in seen])),
            image_sizes=np.array([one.inside for one in seen], dtype=np.int64),
        )
        answers = []
        for place, one in enumerate(seen):
            count = int(outputs["count"][place])
            factors = np.tile(np.array(one.size[::-1]) / np.array(one.inside[::-1]), 2)
            boxes = outputs["boxes"][place, :count].astype(np.float64) * factors
            scores, labels = (outputs[name][place, :count].tolist() for name in ("scores", "labels"))
            objects = [
                {"label": self._name(label), "score": score, "box": box}
                for label, score, box in zip(labels, scores, boxes.tolist(), strict=True)
            ]
            answers.append({"path": one.path, "height": one.size[0], "width": one.size[1], "objects": objects})
        return answers


def _softmax(logits: np.ndarray) -> np.ndarray:
    chances = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)


def _session(path: Path, threads: int | None, providers: Sequence[str]) -> Any:
    onnxruntime: Any = import_onnx()
    if not path.is_file():
        raise ValueError(f"There is no file {path}; `nexus export MODEL -o {path}` writes one.")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    if threads is not None:
        settings.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, settings, providers=list(providers))
    except Exception as error:  # ONNX Runtime has its own kinds, and none for a damaged file
        raise ValueError(f"{path} cannot be opened by ONNX Runtime: {error}") from error


def _check_shape(path: Path, name: str, wanted: Sequence[int | str], given: tuple[int, ...]) -> None:
    fits = len(wanted) == len(given) and all(isinstance(w, str) or w == g for w, g in zip(wanted, given))
    if not fits:
        raise ValueError(f"{name} has the shape {given}; {path} takes ({', '.join(map(str, wanted))}).")
