"""Sessions: what a model says of an image does not depend on those beside it."""

import numpy as np
import PIL.Image
import torch

from nexus.core.preprocessing import Preprocessing
from nexus.data import eval_transform
from nexus.models.cv import SigLIP
from nexus.proofs.image_text import SIGLIP_SMALL
from nexus.tasks.session import Stateless
from nexus.tasks.views import ImageInfo, View


class Embeds:
    """A task that returns the embeddings, and counts the batches."""

    calls = 0

    def predict(self, model, batch):
        self.calls += 1
        features = model.visual(batch["images"], checkpointing=False, keep=False)[-1]
        return {"embeddings": model.visual.project(features)}

    def results(self, outputs, infos):
        assert len(infos) == len(outputs["embeddings"])
        return list(outputs["embeddings"])


def test_images_whose_grids_of_patches_differ_are_not_padded_to_one_batch():
    torch.manual_seed(0)
    model = SigLIP(SIGLIP_SMALL).eval()
    patch = model.config.patch_size
    model.preprocessing = Preprocessing(image_size=(6 * patch, 6 * patch), resize="patches", resize_size=patch)
    transform = eval_transform(model.preprocessing)
    rng = np.random.default_rng(0)
    views = []
    for number, shape in enumerate([(40, 90), (90, 40), (40, 90), (60, 60)]):
        image = PIL.Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8))
        views.append(View(number, ImageInfo(str(number), *shape), transform(image)))
    task = Embeds()
    together = Stateless(task, model).push_all(views)
    assert task.calls == 3
    for view, one in zip(views, together, strict=True):
        torch.testing.assert_close(one, Stateless(task, model).push(view), rtol=1e-5, atol=1e-6)
