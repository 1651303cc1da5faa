"""Stateless tensor functions of detection: boxes, suppression, region pooling, sampling, matching, losses.

All are plain PyTorch. torchvision's compiled operators take over where they load (see `nexus.ops.compiled`).
"""
