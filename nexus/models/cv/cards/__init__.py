"""What is known of every variant: published weights, preprocessing, licences, results. One file per family."""

from nexus.models.cv.cards import (
    clip,
    detr,
    dinov2,
    efficient_net,
    eva02,
    grounding_dino,
    hivit,
    mae,
    medsam,
    mlp_mixer,
    rcnn,
    resnet,
    rt_detr,
    sam,
    siglip,
    swin_transformer,
    vgg,
    vit,
    yolo_world,
    yolov10,
)
