"""The two files in a bundle's ``configs``: ``metadata.json`` for people and programs, ``inference.json`` to run it.

MONAI evaluates configuration strings that begin with ``$``, ``@`` or ``%``, so nothing that a user wrote stands at the
beginning of one.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from synthmed.bundle.source import ApprovedModel

# Every bundle of MONAI's model zoo names this file; its keys are those of MONAI's bundle specification.
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
VERSION = "1.0.0"
FIRE = "0.7.0"
"""MONAI's command line needs the package fire, which MONAI itself does not require."""
COMPONENTS = "synthmed.bundle.components"
DENOISER, AUTOENCODER = "model", "autoencoder"
"""Stems of the files in ``models``; MONAI looks for the network's weights in ``model.pt``."""
_FORMATS = {"CT": "hounsfield"}


def inference_config(model: ApprovedModel) -> dict[str, Any]:
    """Return ``configs/inference.json``: by default it draws the first of the audited samples again."""
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "model_dir": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/output'",
        "dataset_dir": "@output_dir",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "num_samples": min(4, model.audited),
        "seed": model.seed,
        "conditions": None,
        "sampling": model.sampling.model_dump(mode="json", exclude={"num_samples"}),
        "autoencoder_def": {
            "_target_": f"{COMPONENTS}.autoencoder_network",
            "num_classes": model.autoencoder_record["num_classes"],
            "architecture": model.autoencoder_record["architecture"],
        },
        "network_def": {
            "_target_": f"{COMPONENTS}.denoiser_network",
            "latent_shape": list(model.denoiser.latent_shape),
            "condition_dim": model.denoiser.conditioning.dimension,
            "architecture": model.denoiser_record["architecture"],
        },
        "autoencoder": _loader("load_autoencoder", "@autoencoder_def", AUTOENCODER),
        "denoiser": _loader("load_denoiser", "@network_def", DENOISER),
        "inferer": {
            "_target_": f"{COMPONENTS}.VolumeWriter",
            "autoencoder": "@autoencoder",
            "denoiser": "@denoiser",
            "sampling": "@sampling",
            "seed": "@seed",
            "conditions": "@conditions",
        },
        "dataset": "$list(range(@num_samples))",
        "evaluator": None,
        "run": ["$@inferer(@output_dir, len(@dataset))"],
    }


def _loader(function: str, network: str, stem: str) -> dict[str, str]:
    return {
        "_target_": f"{COMPONENTS}.{function}",
        "network": network,
        "weights": f"$@model_dir + '/{stem}.pt'",
        "record": f"$@model_dir + '/{stem}.json'",
        "device": "@device",
    }


def metadata(model: ApprovedModel) -> dict[str, Any]:
    """Return ``configs/metadata.json``, with the keys of MONAI's bundle specification."""
    space, labelled = model.autoencoder.space, model.autoencoder.space.num_classes > 1
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: "As trained and audited"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"synthmed": version("synthmed"), "fire": FIRE},
        "supported_apps": {},
        "name": f"Generative model: {model.config.title}",
        "task": f"Drawing synthetic 3D {space.modality} volumes{' with their label maps' if labelled else ''}",
        "description": "A 3D autoencoder and a latent diffusion model. Each volume is drawn from noise by its own seed"
        f"{', its label map together with it' if labelled else ''}, and written as NIfTI.",
        "authors": "Not stated: ask the publisher",
        "copyright": f"Licence: {model.config.license}",
        "data_source": f"Training data: {model.config.source_statement}",
        "data_type": "nibabel",
        "intended_use": "Research and teaching; not for clinical use. The weights themselves were not audited.",
        "references": [
            "Rombach et al. 2022, High-resolution image synthesis with latent diffusion models, arXiv:2112.10752"
        ],
        "network_data_format": _denoiser_format(model),
        "decoder_data_format": _decoder_format(model),
    }


def _tensor(kind: str, fmt: str, channels: int, shape: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """Describe a tensor in the terms of MONAI's bundle specification."""
    common = {"type": kind, "format": fmt, "num_channels": channels, "spatial_shape": list(shape)}
    return common | {"dtype": "float32", "value_range": [], "is_patch_data": False} | more


def _denoiser_format(model: ApprovedModel) -> dict[str, Any]:
    channels, *shape = model.denoiser.latent_shape
    inputs = {
        "x_t": _tensor("noise", "latent", channels, tuple(shape)),
        "t": _tensor("timesteps", "timesteps", 1, (), value_range=[0, 1]),
    }
    if dimension := model.denoiser.conditioning.dimension:
        inputs["condition"] = _tensor("tuples", "condition", dimension, ())
    return {"inputs": inputs, "outputs": {"pred": _tensor("feature", "latent", channels, tuple(shape))}}


def _decoder_format(model: ApprovedModel) -> dict[str, Any]:
    """Describe what the latent becomes: the network's output, and what is written."""
    (channels, *latent), space = model.denoiser.latent_shape, model.autoencoder.space
    fmt = _FORMATS.get(space.modality, "magnitude") if space.normalisation == "window" else "magnitude"
    image = _tensor("image", fmt, 1, space.grid, modality=space.modality, channel_def={"0": "image"})
    outputs = {"image": image | {"format": "magnitude"}}
    written = {"image": image | {"value_range": list(space.intensity_range), "dtype": space.image_type}}
    if space.num_classes > 1:
        names = {value: f"structure: {space.structure(value)}" for value in space.label_values}
        names[0] = "background"
        classes = {str(index): names[value] for index, value in enumerate(space.label_values)}
        outputs["label"] = _tensor("image", "labels", space.num_classes, space.grid, channel_def=classes)
        values = {str(value): name for value, name in names.items()}
        dtype = "uint8" if max(space.label_values) <= 255 else "int16"
        written["label"] = _tensor("image", "segmentation", 1, space.grid, dtype=dtype, channel_def=values)
    return {
        "inputs": {"latent": _tensor("feature", "latent", channels, tuple(latent))},
        "outputs": outputs,
        "post_processed_outputs": written,
    }
