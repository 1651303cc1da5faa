"""Small SAM 2 models that ran in the authors' code (sam2 at 2b90b9f), with what came out: see `golden/sam2_*.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from nexus.core.formats import to_our_names
from nexus.models.cv.sam2 import SAM2, SAM2Config

GOLDEN = Path(__file__).parent / "golden"
AUTHORS = SAM2Config(
    image_size=128,
    trunk_embed_dim=8,
    trunk_depths=(1, 1, 2, 1),
    trunk_global_blocks=(3,),
    embed_dim=32,
    memory_dim=8,
    memory_depth=2,
    memory_mlp_dim=64,
)
MEAN, STD = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the notes of one file."""
    return load_file(GOLDEN / f"{name}.safetensors"), json.loads((GOLDEN / f"{name}.json").read_text())


def authors_model(tensors: dict[str, Tensor], **changes: Any) -> SAM2:
    """Returns our model with the authors' weights."""
    model = SAM2(AUTHORS.replace(**changes)).eval()
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    state, spelling = to_our_names({key: value.float() for key, value in weights.items()}, SAM2.formats)
    assert spelling == "authors"
    model.load_state_dict(state)
    return model


def frames_of(tensors: dict[str, Tensor]) -> list[Tensor]:
    """Returns the frames as the authors' code saw them."""
    resized = [np.asarray(Image.fromarray(frame).resize((128, 128))) for frame in tensors["inputs/frames"].numpy()]
    return [(torch.from_numpy(frame.copy()).permute(2, 0, 1) / 255 - MEAN) / STD for frame in resized]
