"""MedSAM: how an image becomes its input and logits its masks, as in the authors' scripts; its files, however wrapped.

`golden/medsam` holds pictures, and what the authors' scripts (bowang-lab/MedSAM at d71e8a1) made of them.
"""

import dataclasses
import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from nexus import create_model
from nexus.core.card import Weights
from nexus.core.files import WeightsError
from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.data.spline import resize_by_spline
from nexus.data.transforms import eval_transform
from nexus.models import registry
from nexus.models.cv import SAM, MedSAM, SAMConfig
from nexus.models.cv.medsam import mask_probabilities
from nexus.models.cv.sam import Prompts
from nexus.models.registry import model_info
from nexus.proofs.parity import randomize
from nexus.proofs.sam import SAMS, SMALL

PIXELS = model_info("medsam_vit_base").preprocessing
GOLDEN = Path(__file__).parent / "golden"
AUTHORS = SAMConfig(
    image_size=128,
    patch_size=8,
    encoder_embed_dim=32,
    encoder_depth=3,
    encoder_num_heads=2,
    encoder_global_blocks=(1,),
    window_size=5,
    embed_dim=64,
    decoder_num_heads=4,
    decoder_mlp_dim=128,
    iou_head_dim=64,
)
CASES = [
    ("grey_small", 64),
    ("grey_float", 64),
    ("grey_photo", 64),
    ("grey_photo", 256),
    ("rgb_photo", 64),
    ("tall", 64),
    ("tall", 256),
    ("constant", 64),
]


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "medsam.safetensors")


def small() -> MedSAM:
    torch.manual_seed(0)
    model = MedSAM(SAMConfig(**SMALL)).eval()
    randomize(model)
    return model


@pytest.mark.parametrize(("name", "side"), CASES)
def test_pictures_become_input_as_by_the_authors(golden, name, side):
    """Every grey level is theirs. Floats are theirs too before the fraction is dropped, which ours keep."""
    picture = golden[f"inputs/{name}"]
    levels = golden[f"outputs/predict/{name}/{side}/uint8"]
    channels = picture if picture.ndim == 3 else picture[:, :, None]
    assert np.array_equal(resize_by_spline(channels, (side, side)).astype(np.uint8).squeeze(), levels)
    if picture.dtype != np.uint8:
        return
    found = eval_transform(PIXELS.fitted({"image_size": side}))(channels)
    scaled = golden.get(f"outputs/predict/{name}/{side}/scaled")
    if scaled is None and f"outputs/predict/{name}/{side}/scaled_mean_min_max" in golden:
        told = golden[f"outputs/predict/{name}/{side}/scaled_mean_min_max"]
        np.testing.assert_allclose([found.mean(), found.min(), found.max()], told, atol=1e-6)
    wanted = (levels - levels.min()) / max(int(levels.max()) - int(levels.min()), 1e-8) if scaled is None else scaled
    wanted = wanted if wanted.ndim == 3 else wanted[:, :, None].repeat(3, axis=2)
    assert torch.equal(found, torch.from_numpy(wanted).permute(2, 0, 1).float())


def test_a_picture_of_full_size(golden):
    picture = golden["inputs/grey_photo"]
    levels = resize_by_spline(picture[:, :, None], (1024, 1024))
    assert np.array_equal(levels[::8, ::8, 0], golden["outputs/predict/grey_photo/1024/uint8_every_8th"])
    assert levels.sum(dtype=np.int64) == golden["outputs/predict/grey_photo/1024/sum"]
    told = golden["outputs/predict/grey_photo/1024/scaled_mean_min_max"]
    found = eval_transform(PIXELS)(picture[:, :, None])
    assert found.shape == (3, 1024, 1024)
    np.testing.assert_allclose([found.double().mean(), found.min(), found.max()], told, atol=1e-6)


@pytest.mark.parametrize("size", [(50, 80), (64, 64), (300, 200)])
def test_logits_become_masks_as_by_the_authors(golden, size):
    found = mask_probabilities(torch.from_numpy(golden["inputs/low_res_logits"]), size)[0, 0].numpy()
    name = f"{size[0]}x{size[1]}"
    np.testing.assert_allclose(found, golden[f"outputs/probability/{name}"], rtol=0, atol=1e-6)
    near = np.abs(found - 0.5) < 1e-6
    assert np.array_equal((found > 0.5)[~near], golden[f"outputs/mask/{name}"].astype(bool)[~near])


def test_the_network_is_sams():
    ours, theirs = small(), SAM(SAMConfig(**SMALL)).eval()
    theirs.load_state_dict(ours.state_dict())
    images, boxes = torch.randn(1, 3, 64, 64), torch.tensor([[[5.0, 9, 40, 50]]])
    assert torch.equal(ours(images, boxes=boxes)["masks"], theirs(images, boxes=boxes)["masks"])
    with torch.device("meta"):
        model = create_model("medsam_vit_base")
    assert model.num_parameters() == model.card.num_parameters == 93_735_472


def test_images_with_a_box_each_are_answered_in_one_call():
    """The authors' decoder was changed for this; SAM's would answer every box about every image."""
    model = small().double()
    images = torch.randn(3, 3, 64, 64).double()
    boxes = torch.tensor([[5.0, 9, 40, 50], [20, 2, 60, 33], [0, 0, 64, 64]]).double()
    together = model(images, boxes=boxes[:, None], multimask=False)
    assert together["low_res_masks"].shape == (3, 1, 1, 16, 16)
    embeddings = model.image_encoder(images)
    by_words = model.predict(image_embedding=embeddings, prompt={"boxes": boxes[:, None]}, multimask=False)
    for at in range(3):
        alone = model.decode(embeddings[at : at + 1], Prompts(boxes=boxes[None, at : at + 1]), multimask=False)
        for answer in (together, by_words):
            torch.testing.assert_close(answer["low_res_masks"][at], alone["low_res_masks"][0], rtol=1e-9, atol=1e-9)


@pytest.fixture
def served(tmp_path):
    """A folder that a local server shows, and its address."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def authors_file() -> dict[str, torch.Tensor]:
    """Weights of a small SAM in the authors' names, which are MedSAM's."""
    kept = load_file(GOLDEN / "sam_prompts.safetensors")
    named = {key.removeprefix("weights/"): value for key, value in kept.items() if key.startswith("weights/")}
    return {key: torch.from_numpy(value).float() for key, value in named.items()}


WRAPPED = {
    "plain": lambda state: state,
    "nested": lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 7},
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "nested module": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 7},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_file_is_read_however_training_wrapped_it(served, wrapping, monkeypatch, tmp_path):
    """Users' files do not load in the authors' code until they are unwrapped (bowang-lab/MedSAM#200)."""
    folder, address = served
    state = authors_file()
    assert "image_encoder.blocks.0.mlp.lin1.weight" in state
    torch.save(WRAPPED[wrapping](state), folder / "medsam_vit_b.pth")
    card = model_info("medsam_vit_base")
    weights = Weights(tag="test", url=f"{address}/medsam_vit_b.pth", preprocessing=PIXELS)
    changed = dataclasses.replace(card, config=AUTHORS, weights=(weights,))
    monkeypatch.setitem(registry._CARDS, card.name, changed)
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path / "home"))
    for name in ("NEXUS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    ours = NexusModule.from_pretrained("medsam_vit_base")
    assert type(ours) is MedSAM
    assert ours.preprocessing == PIXELS
    wanted = MedSAM(AUTHORS)
    wanted.load_state_dict(to_our_names(state, MedSAM.formats)[0])
    assert all(torch.equal(value, wanted.state_dict()[key]) for key, value in ours.state_dict().items())


def test_a_file_fetched_by_hand_is_known_by_its_name(monkeypatch, tmp_path):
    card = model_info("medsam_vit_base")
    changed = dataclasses.replace(card, config=AUTHORS)
    monkeypatch.setitem(registry._CARDS, card.name, changed)
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path))
    place = tmp_path / "weights" / "medsam_vit_b.pth"
    with pytest.raises(
        WeightsError, match=r"lies in a folder that a browser opens .*drive\.google\.com.*put it at .*_b\.pth"
    ):
        NexusModule.from_pretrained("medsam_vit_base.authors")
    place.parent.mkdir()
    torch.save(authors_file(), place)
    for source in ("medsam_vit_base.authors", place):
        model = NexusModule.from_pretrained(source)
        assert (type(model), model.preprocessing) == (MedSAM, PIXELS)


def test_a_file_of_ones_own_has_the_preprocessing_of_all_published_ones(tmp_path):
    torch.save({"model": authors_file(), "epoch": 3}, tmp_path / "mine.pth")
    model = MedSAM.from_pretrained(tmp_path / "mine.pth", **AUTHORS.to_dict())
    assert model.preprocessing == PIXELS.fitted({"image_size": 128})


def test_what_was_saved_says_how_images_become_input(tmp_path):
    model = create_model("medsam_vit_base", **SMALL)
    model.save_pretrained(tmp_path / "model")
    again = NexusModule.from_pretrained(tmp_path / "model")
    assert type(again) is MedSAM
    assert again.preprocessing == PIXELS.fitted({"image_size": 64})
    assert again.preprocessing.image_size == (64, 64)


def test_transformers_proves_it_too():
    assert "medsam_vit_*" in SAMS.variants
