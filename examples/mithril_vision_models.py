"""Vision models: a torch ResNet's weights on NumPy, two tasks on one backbone, and CLIP, which joins two towers."""

import numpy as np

import mithril as ml
from mithril.models import clip, multi_task_cnn, resnet18, vision_transformer


def initial(compiled):
    """Random parameters, and statistics of batch norm as they are before training."""
    return {**compiled.randomize_params(0), **compiled.initial_state()}


def same_weights_elsewhere(image):
    """A model's parameters bear torchvision's names with underscores, so a state dict fits by replacing dots."""
    shapes = {"input": image.shape}
    torch_model = ml.compile(resnet18(num_classes=10), ml.TorchBackend(), shapes=shapes, inference=True)
    params = initial(torch_model)
    state_dict = {key: value.numpy() for key, value in params.items()}
    numpy_model = ml.compile(resnet18(num_classes=10), ml.NumpyBackend(), shapes=shapes, inference=True)
    ours = numpy_model.evaluate(state_dict, {"input": image})["output"]
    theirs = torch_model.evaluate(params, {"input": image})["output"].numpy()
    print(
        "ResNet-18, NumPy against torch, largest difference:",
        f"{np.abs(ours - theirs).max() / np.abs(theirs).max():.0e}",
    )


def two_tasks(image):
    compiled = ml.compile(multi_task_cnn(), ml.NumpyBackend(), shapes={"input": image.shape})
    found = compiled.evaluate(compiled.randomize_params(0), {"input": image})
    print("two tasks:", {key: value.shape for key, value in found.items()})


def zero_shot(images, words):
    """Which text fits which image; with published weights this classifies without training."""
    sizes = {"embed_dim": 16, "image_resolution": 64, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 16}
    text = {"context_length": 5, "vocab_size": 20, "transformer_width": 16, "transformer_heads": 2}
    model = clip(**sizes, **text, transformer_layers=1)
    compiled = ml.compile(model, ml.NumpyBackend(), shapes={"image": images.shape, "text": words.shape})
    logits = compiled.evaluate(compiled.randomize_params(0), {"image": images, "text": words})["logits_per_image"]
    print("CLIP's best text for each image:", logits.argmax(axis=1))


def readable():
    """Twelve blocks are one function and a loop over it."""
    shapes = {"input": [None, 3, 224, 224]}
    source = ml.compile(vision_transformer(), ml.TorchBackend(), shapes=shapes, inference=True).source
    print(f"ViT-B/16 is {len(source.splitlines())} lines; it ends:\n")
    print("\n".join(source.splitlines()[-18:]))


if __name__ == "__main__":
    random = np.random.default_rng(0)
    pictures = random.standard_normal((2, 3, 64, 64)).astype(np.float32)
    same_weights_elsewhere(pictures)
    two_tasks(pictures)
    zero_shot(pictures, random.integers(0, 20, (3, 5)))
    readable()
