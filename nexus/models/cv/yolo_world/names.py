"""The names of YOLO-World's weights in the authors' files."""

from nexus.core.formats import Format
from nexus.models.cv.clip_names import join_hub
from nexus.models.cv.image_text import HUB_TOWERS

AUTHORS_NAMES = {
    r"^backbone\.image_model\.": "backbone.",
    r"^backbone\.text_model\.model\.": "",
    **HUB_TOWERS,
    r"^text_projection\.": "text.head.",
    r"^neck\.top_down_layers\.": "neck.top_down.",
    r"^neck\.bottom_up_layers\.": "neck.bottom_up.",
    r"^neck\.downsample_layers\.": "neck.shrink.",
    r"^neck\.text_enhancer\.projections\.(\d)\.conv\.": r"neck.pooling.projections.\1.",
    r"^neck\.text_enhancer\.": "neck.pooling.",
    r"\.attn_block\.guide_fc\.": ".attention.guide.",
    r"\.attn_block\.project_conv\.": ".attention.project.",
    r"\.attn_block\.": ".attention.",
    r"\.main_conv\.": ".conv1.",
    r"\.final_conv\.": ".conv2.",
    r"^bbox_head\.head_module\.cls_preds\.": "head.cls.",
    r"^bbox_head\.head_module\.reg_preds\.": "head.box.",
    r"^bbox_head\.head_module\.cls_contrasts\.": "head.contrast.",
    r"\.bn\.": ".norm.",
}


FORMATS = (Format("authors", r"^backbone\.image_model\.", AUTHORS_NAMES, join_hub),)
