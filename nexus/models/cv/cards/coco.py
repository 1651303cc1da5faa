"""Names of COCO's categories (https://cocodataset.org), as the labels of published detectors count them."""

UNUSED = "N/A"
COCO_80 = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 categories in their order: labels of RT-DETR, YOLOv10 and mmdetection's files."""

UNUSED_NUMBERS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))


def by_number(first: int) -> tuple[str, ...]:
    """Returns names for labels that are COCO's own category numbers, `first` to 90; ten of 1 to 90 are not used."""
    names = iter(COCO_80)
    return tuple(UNUSED if number in UNUSED_NUMBERS or not number else next(names) for number in range(first, 91))


COCO_90 = by_number(1)
"""Labels that are category numbers less 1: torchvision's files."""

COCO_91 = by_number(0)
"""Labels that are category numbers: DETR's files."""
