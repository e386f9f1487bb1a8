"""Losses of the three networks, in single precision whatever the networks compute in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def peak_loss(logits: Tensor, heat: Tensor, weight: Tensor) -> Tensor:
    """Focal loss for heat maps (Law & Deng 2018): peaks attract, their slopes repel little, the rest fully.

    Parameters
    ----------
    logits, heat, weight
        (N, 1, x, y, z); heat is 1 at a lesion's centre; weight 0 leaves a voxel out.

    Returns
    -------
    Tensor
        Sum over voxels divided by the number of peaks.
    """
    logits = logits.float()
    probability = torch.sigmoid(logits)
    peaks = heat >= 0.99
    attract = F.softplus(-logits) * (1 - probability) ** 2 * peaks
    repel = F.softplus(logits) * probability**2 * (1 - heat) ** 4 * ~peaks
    return ((attract + repel) * weight).sum() / peaks.sum().clamp(min=1)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, voxels of lesions ten times as heavy (Sundaresan 2023), plus Dice over the batch."""
    logits = logits.float()
    weight = 1 + 9 * target
    entropy = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).mean()
    probability = torch.sigmoid(logits)
    dice = 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)
    return entropy + dice


def distillation_loss(
    student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float = 4.0, hard_share: float = 0.4
) -> Tensor:
    """Distillation for one logit: ``0.4 CE + 0.6 T^2 KL(teacher || student at temperature T)`` (Sundaresan 2023, T 4).

    Parameters
    ----------
    student, teacher
        Logits (N,), before any sigmoid.
    target
        (N,) 0 or 1.
    temperature, hard_share
        T, and the weight of the true label.
    """
    student, teacher = student.float(), teacher.float()
    hard = F.binary_cross_entropy_with_logits(student, target)
    soft = torch.sigmoid(teacher / temperature)
    cross = F.binary_cross_entropy_with_logits(student / temperature, soft)
    entropy = (torch.special.entr(soft) + torch.special.entr(1 - soft)).mean()
    return hard_share * hard + (1 - hard_share) * temperature**2 * (cross - entropy)
