"""Cards of CLIP."""

from nexus.core.card import Metric, ModelCard, Weights
from nexus.core.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from nexus.models.cv.clip import CLIP, VARIANTS
from nexus.models.registry import register

ZERO_SHOT = "imagenet-1k zero-shot top-1"
_AZURE = "https://openaipublic.azureedge.net/clip/models"

# variant: parameters, OpenAI's file and its sha256, repository of the hub, zero-shot accuracy in the paper (Table 11)
_FACTS: dict[str, tuple[int, str, str, str, float]] = {
    "clip_vit_base_patch32_224": (
        151_277_313,
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "openai/clip-vit-base-patch32",
        63.2,
    ),
    "clip_vit_base_patch16_224": (
        149_620_737,
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "openai/clip-vit-base-patch16",
        68.6,
    ),
    "clip_vit_large_patch14_224": (
        427_616_513,
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "openai/clip-vit-large-patch14",
        75.3,
    ),
    "clip_vit_large_patch14_336": (
        427_944_193,
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "openai/clip-vit-large-patch14-336",
        76.2,
    ),
    "clip_resnet50": (
        102_007_137,
        "RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "",
        59.6,
    ),
    "clip_resnet101": (
        119_688_033,
        "RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "",
        62.2,
    ),
    "clip_resnet50x4": (
        178_300_601,
        "RN50x4.pt",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        "",
        65.8,
    ),
    "clip_resnet50x16": (
        290_979_217,
        "RN50x16.pt",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        "",
        70.5,
    ),
    "clip_resnet50x64": (
        623_258_305,
        "RN50x64.pt",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        "",
        73.6,
    ),
}


def _weights(name: str) -> tuple[Weights, ...]:
    _, file, sha256, repo, top1 = _FACTS[name]
    size = VARIANTS[name].image_size
    preprocessing = Preprocessing(image_size=(size, size), resize_size=size, mean=CLIP_MEAN, std=CLIP_STD)
    metrics = (Metric(name=ZERO_SHOT, value=top1, source="CLIP paper, Table 11"),)
    openai = Weights(
        tag="openai",
        url=f"{_AZURE}/{sha256}/{file}",
        sha256=sha256,
        licence="mit",
        preprocessing=preprocessing,
        metrics=metrics,
    )
    hub = Weights(tag="hub", url=f"hf-hub:{repo}", licence="mit", preprocessing=preprocessing, metrics=metrics)
    return (hub, openai) if repo else (openai,)


register(
    *(
        ModelCard(
            name=name,
            model_class=CLIP,
            config=config,
            num_parameters=_FACTS[name][0],
            weights=_weights(name),
            paper="https://arxiv.org/abs/2103.00020",
            good_for=("zero-shot:alternative", "none:alternative"),
        )
        for name, config in VARIANTS.items()
    )
)
