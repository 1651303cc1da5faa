"""Names that other libraries give to the weights of an EfficientNet."""

import re
from collections.abc import Mapping, Sequence

from nexus.core.formats import Format, State

_MBCONV, _FIRST_MBCONV = ("expand", "depthwise", "se", "project"), ("depthwise", "se", "project")
_TIMM_BLOCKS: tuple[dict[str, str], ...] = (
    {
        "conv_pw": "expand.conv",
        "bn1": "expand.norm",
        "conv_dw": "depthwise.conv",
        "bn2": "depthwise.norm",
        "conv_pwl": "project.conv",
        "bn3": "project.norm",
    },
    {"conv_dw": "depthwise.conv", "bn1": "depthwise.norm", "conv_pw": "project.conv", "bn2": "project.norm"},
    {"conv_exp": "expand.conv", "bn1": "expand.norm", "conv_pwl": "project.conv", "bn2": "project.norm"},
    {"conv": "expand.conv", "bn1": "expand.norm"},
)
_TORCHVISION_BLOCKS = tuple(
    {
        f"block.{index}.{theirs}": f"{part}.{ours}"
        for index, part in enumerate(parts)
        for theirs, ours in ((("fc1", "reduce"), ("fc2", "expand")) if part == "se" else (("0", "conv"), ("1", "norm")))
    }
    for parts in (_MBCONV, _FIRST_MBCONV, ("expand", "project"), ("expand",))
)


def _name_blocks(state: State, kinds: Sequence[Mapping[str, str]]) -> State:
    """Renames what is inside `blocks.S.B.`, where the same name means another layer in another kind of block.

    Args:
        state: Weights with the stages and blocks named as ours.
        kinds: For each kind of block its layers' names in ours; the first that a block has all of is its kind.
    """
    members: dict[str, list[str]] = {}
    for key in state:
        if found := re.match(r"blocks\.\d+\.\d+\.", key):
            members.setdefault(found[0], []).append(key)
    renamed: State = {}
    for key, value in state.items():
        if found := re.match(r"blocks\.\d+\.\d+\.", key):
            rests = [other.removeprefix(found[0]) for other in members[found[0]]]
            kind = next((k for k in kinds if all(any(r.startswith(f"{n}.") for r in rests) for n in k)), {})
            for name, ours in kind.items():
                if key.startswith(f"{found[0]}{name}."):
                    key = f"{found[0]}{ours}.{key.removeprefix(f'{found[0]}{name}.')}"
                    break
        renamed[key] = value
    return renamed


def _number_stages(state: State) -> State:
    """Gives `blocks.N.` of one list our `blocks.S.B.`: a stage begins where the width of the blocks' output changes."""
    widths = {
        int(found[1]): len(value)
        for key, value in state.items()
        if (found := re.fullmatch(r"blocks\.(\d+)\.project\.conv\.weight", key))
    }
    places: dict[int, str] = {}
    stage, place = -1, 0
    for index in sorted(widths):
        stage, place = (stage + 1, 0) if widths[index] != widths.get(index - 1) else (stage, place + 1)
        places[index] = f"blocks.{stage}.{place}."
    return {re.sub(r"^blocks\.(\d+)\.", lambda m: places[int(m[1])], key): value for key, value in state.items()}


_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)$"

FORMATS = (
    Format(
        "torchvision",
        detect=r"^features\.0\.0\.weight$",
        rename={
            r"^features\.0\.0\.weight$": "stem.conv.weight",
            rf"^features\.0\.1\.{_NORM}": r"stem.norm.\1",
            r"^features\.\d+\.0\.weight$": "top.conv.weight",
            rf"^features\.\d+\.1\.{_NORM}": r"top.norm.\1",
            **{rf"^features\.{stage + 1}\.": f"blocks.{stage}." for stage in range(9)},
            r"^classifier\.1\.": "head.",
        },
        convert=lambda state: _name_blocks(state, _TORCHVISION_BLOCKS),
    ),
    Format(
        "timm",
        detect=r"^conv_stem\.",
        rename={
            r"^conv_stem\.": "stem.conv.",
            r"^bn1\.": "stem.norm.",
            r"^conv_head\.": "top.conv.",
            r"^bn2\.": "top.norm.",
            r"\.se\.conv_": ".se.",
            r"^classifier\.": "head.",
        },
        convert=lambda state: _name_blocks(state, _TIMM_BLOCKS),
    ),
    Format(
        "hub",
        detect=r"^(efficientnet\.)?embeddings\.convolution\.",
        rename={
            r"^efficientnet\.": "",
            r"^embeddings\.convolution\.": "stem.conv.",
            r"^embeddings\.batchnorm\.": "stem.norm.",
            r"^encoder\.top_conv\.": "top.conv.",
            r"^encoder\.top_bn\.": "top.norm.",
            r"^encoder\.blocks\.": "blocks.",
            r"\.expansion\.expand_conv\.": ".expand.conv.",
            r"\.expansion\.expand_bn\.": ".expand.norm.",
            r"\.depthwise_conv\.depthwise_(conv|norm)\.": r".depthwise.\1.",
            r"\.squeeze_excite\.": ".se.",
            r"\.projection\.project_conv\.": ".project.conv.",
            r"\.projection\.project_bn\.": ".project.norm.",
            r"^classifier\.": "head.",
        },
        convert=_number_stages,
    ),
    Format(
        "efficientnet_pytorch",
        detect=r"^_conv_stem\.",
        rename={
            r"^_conv_stem\.": "stem.conv.",
            r"^_bn0\.": "stem.norm.",
            r"^_conv_head\.": "top.conv.",
            r"^_bn1\.": "top.norm.",
            r"^_fc\.": "head.",
            r"^_blocks\.": "blocks.",
            r"\._expand_conv\.": ".expand.conv.",
            r"\._bn0\.": ".expand.norm.",
            r"\._depthwise_conv\.": ".depthwise.conv.",
            r"\._bn1\.": ".depthwise.norm.",
            r"\._se_(reduce|expand)\.": r".se.\1.",
            r"\._project_conv\.": ".project.conv.",
            r"\._bn2\.": ".project.norm.",
        },
        convert=_number_stages,
    ),
)
