"""What a trained autoencoder's volumes lack of scans, and the range that samples have to keep to."""

from __future__ import annotations

import numpy as np
import torch
from lightning_fabric import Fabric

from synthmed.models.autoencoder import LabelledAutoencoder
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen
from synthmed.prepare.prepared import PreparedSplit

_FINISHED_CASES = 64
_SCREENED_CASES = 2000


def fit_screen(train: PreparedSplit) -> Screen:
    """Return the range of the training cases, of at most 2,000 evenly spaced ones."""
    cases = _spaced(len(train.images), _SCREENED_CASES)
    labels = None if train.labels is None else train.labels[cases, 0].numpy()
    return Screen.fit(train.images[cases, 0].numpy(), labels, max(1, train.num_classes))


def fit_finish(model: LabelledAutoencoder, train: PreparedSplit, fabric: Fabric) -> Finish:
    """Return what at most 64 evenly spaced training cases lose in the autoencoder.

    Parameters
    ----------
    model : LabelledAutoencoder
        In evaluation mode, on Fabric's device.
    train : PreparedSplit
    fabric : Fabric
    """
    cases = _spaced(len(train.images), _FINISHED_CASES)
    decoded = []
    for case in cases.split(1):
        label = None if train.labels is None else fabric.to_device(train.labels[case])
        image, _ = model.reconstruct(fabric.to_device(train.images[case]), label)
        decoded.append(image[0, 0].float().cpu().numpy())
    labels = None if train.labels is None else train.labels[cases, 0].numpy()
    return Finish.fit(train.images[cases, 0].numpy(), np.stack(decoded), labels, max(1, train.num_classes))


def _spaced(count: int, limit: int) -> torch.Tensor:
    return torch.linspace(0, count - 1, min(count, limit)).round().long()
