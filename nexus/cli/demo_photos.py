"""The part of `nexus demo` with a published network: it names real photos, shows why, and learns eight new classes."""

import torch
from PIL.Image import Image

from nexus import visualization
from nexus.core.module import NexusModule
from nexus.data import eval_transform, load_image
from nexus.data.datasets.photo_crops import SIDE, PhotoCrops
from nexus.data.datasets.photos import read_photo
from nexus.evaluation import probe
from nexus.models.registry import create_model
from nexus.predict import DEFAULT_MODEL, Predictor
from nexus.tasks.source import preprocessing_of
from nexus.visualization.page import Picture, Section
from nexus.visualization.pictures import to_picture

PHOTOS = ("cat", "coffee", "camera", "rocket")
SEED = 0


def photo_sections() -> list[Section]:
    """Returns the sections of the report. Nothing is downloaded: the weights come with a package of PyPI."""
    model = NexusModule.from_pretrained(DEFAULT_MODEL)
    return [_names(model), _probe(model)]


def _names(model: NexusModule) -> Section:
    """Photos with their names, and below each what speaks for the first guess."""
    preprocessing = preprocessing_of(model)
    predictions = Predictor(model)([read_photo(name) for name in PHOTOS])
    transform = eval_transform(preprocessing)
    pixels = torch.stack([transform(load_image(read_photo(name))) for name in PHOTOS])
    pictures = [to_picture(image, preprocessing) for image in pixels]
    heat = visualization.GradCAM(model)(pixels)
    explained = [visualization.overlay(picture, one, side=224) for picture, one in zip(pictures, heat)]
    guesses = [f"{one.label} ({one.score:.0%})" for one in predictions]
    sheet = visualization.contact_sheet(
        [*pictures, *explained],
        [*guesses, *(f"why {one.label}?" for one in predictions)],
        columns=len(PHOTOS),
        tile=224,
    )
    rows = [
        {"photo": name, **{f"guess {rank}": f"{g.label} {g.score:.0%}" for rank, g in enumerate(one.top(3), start=1)}}
        for name, one in zip(PHOTOS, predictions)
    ]
    return Section(
        title="A network that knows what a cat is",
        text=(
            f"{DEFAULT_MODEL}, trained on ImageNet by its authors, names four photos, and GradCAM shows the pixels that"
            " speak for each name. From the command line: nexus predict photo.png"
        ),
        pictures=[Picture(data=visualization.to_data_uri(sheet), alt="photos, their names, and where these are seen")],
        rows=rows,
    )


def _probe(model: NexusModule) -> Section:
    """A linear classifier on top of frozen features, of the trained network and of one that never saw an image."""
    torch.manual_seed(SEED)
    fresh = create_model(DEFAULT_MODEL.partition(".")[0]).eval()
    fresh.preprocessing = model.preprocessing
    data = PhotoCrops("train"), PhotoCrops("val")
    rows = [
        {"features of": title, "held-out accuracy": f"{probe(network, data, 'linear').metrics['top1']:.0%}"}
        for title, network in (("the trained network", model), ("the same network, random weights", fresh))
    ]
    return Section(
        title="Eight new classes from ten examples each",
        text=(
            f"A linear classifier learns on frozen features from which of {len(data[0].class_names)} photos a part of"
            f" {SIDE} pixels is: ten parts of each photo's left half to learn from, ten of its right"
            " half to be measured on."
        ),
        pictures=[Picture(data=visualization.to_data_uri(_parts(data[1])), alt="held-out parts, one of each photo")],
        rows=rows,
    )


def _parts(data: PhotoCrops) -> Image:
    samples = [data[place] for place in range(0, len(data), len(data) // len(data.class_names))]
    return visualization.contact_sheet(
        [one.image for one in samples], [data.class_names[one.label] for one in samples], columns=len(samples)
    )
