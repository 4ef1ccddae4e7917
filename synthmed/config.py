"""The configuration of a complete run: frozen pydantic models read from plain YAML.

Names are MONAI's own where MONAI has one. An unknown key, or a value out of range, is refused with the key that
was probably meant. There are no expressions, class paths or environment variables inside a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from synthmed.errors import ConfigError
from synthmed.label_groups import LabelGroup, check_groups
from synthmed.wrong_keys import explain

Modality = Literal["MR", "CT", "PT"]
Triple = tuple[int, int, int]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
UNRECORDED: Any = {"denoiser_training": {"sharded"}}  # in how many parts it is trained changes nothing in a network
WHOLE_VOXELS = 2**22
"""Largest grid, in voxels, that goes through the autoencoder in one piece: 161 a side; see `synthmed.models.tiling`."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomConfig(_Section):
    """The embedded cohort of procedural head-like phantoms, each with a known segmentation."""

    num_subjects: int = Field(96, ge=2)
    shape: Triple = (32, 32, 32)
    seed: int = 0


class CohortConfig(_Section):
    """Where the scans are, whose they are, and how they are split.

    A relative `path` is looked up from the working directory, then from the folder that ``SYNTHMED_DATA`` names.
    """

    format: Literal["auto", "folder", "decathlon", "monai", "csv", "dicom", "phantom"] = "auto"
    path: str | None = None
    images: str | None = Field(None, description="folder format: sub-folder or glob of the images")
    labels: str | None = Field(None, description="folder format: sub-folder or glob of the labels")
    subjects: str | None = Field(None, description="CSV in `path` that maps a volume to its patient")
    covariates: str | None = Field(None, description="CSV in `path` with one row a case or patient")
    modality: Modality | None = Field(None, description="default: what the files say, else MR")
    label_names: dict[int, str] = Field(default_factory=dict, description="label value -> structure")
    # What nobody asked for is not written, so that runs from before there was the option keep what they made.
    label_groups: dict[int, LabelGroup] = Field(
        default_factory=dict,
        exclude_if=lambda groups: not groups,
        description="new label value -> name, and the values of the label files that it stands for",
    )
    holdout_fraction: float = Field(0.35, gt=0.0, lt=0.9)
    phantom: PhantomConfig = PhantomConfig()

    @model_validator(mode="after")
    def _one_meaning(self) -> CohortConfig:
        check_groups(self.label_groups)
        if self.label_groups and self.label_names:
            raise ValueError("label_names and label_groups: a group has its own name, so give one of the two")
        return self


class PreprocessConfig(_Section):
    """One grid for every case, and one scale of intensities."""

    orientation: str = Field("RAS", pattern="^[LRAPSI]{3}$")
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grid: Triple = (32, 32, 32)
    normalisation: Literal["percentile", "window"] = "percentile"
    percentiles: tuple[float, float] = (0.5, 99.9)
    intensity_range: tuple[float, float] = Field(
        (0.0, 1000.0), description="units of the release: HU or SUV window, or where percentiles land"
    )
    mask: Literal["none", "label"] = Field(
        "none",
        exclude_if=lambda mask: mask == "none",
        description="label: what no value of the label file covers becomes the low end of the range",
    )
    centre: Literal["image", "label", "foreground"] = Field(
        "image",
        exclude_if=lambda centre: centre == "image",
        description="what the grid's centre is put on: the field of view, the label's box, or the bright voxels",
    )

    @model_validator(mode="after")
    def _ordered(self) -> PreprocessConfig:
        for name in ("percentiles", "intensity_range"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name}: the first value must be below the second, found {low} and {high}")
        if min(self.grid) < 8 or min(self.spacing) <= 0:
            raise ValueError("grid must be at least 8 a side and spacing above 0")
        return self


class ConditioningConfig(_Section):
    """Covariates that condition the denoiser; their vocabularies are read from the training patients."""

    classes: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    drop_probability: float = Field(0.15, ge=0.0, le=0.5, description="share of steps with the learned null")


class AutoencoderConfig(_Section):
    """MONAI ``AutoencoderKL`` behind a lossless Haar stem, on image and one-hot label together.

    The whole down-sampling is 2 (stem) x 2^(len(channels) - 1).
    """

    channels: tuple[int, ...] = (32, 64, 128)
    num_res_blocks: int = Field(1, ge=1)
    latent_channels: int = Field(64, ge=1)
    norm_num_groups: int = Field(16, ge=1)
    linear_shortcut: bool = Field(True, description="start from the closed-form block PCA and learn the rest")
    latent_noise: float = Field(0.05, ge=0.0, description="noise on standardised latents while the decoder learns")
    kl_weight: float = Field(1e-6, ge=0.0)
    gradient_weight: float = Field(0.5, ge=0.0, description="L1 of finite differences, for edges")
    label_weight: float = Field(0.5, ge=0.0, description="cross-entropy + Dice on the labels")
    adversarial_weight: float = Field(0.0, ge=0.0)
    adversarial_start: float = Field(0.5, ge=0.0, le=1.0, description="share of steps before the term begins")

    @property
    def downsampling(self) -> int:
        """Voxels of the grid a latent cell spans, a side."""
        return 2 ** len(self.channels)


class DenoiserConfig(_Section):
    """What predicts the clean latent: MONAI's UNet, or a small transformer over latent cells."""

    kind: Literal["unet", "transformer"] = "transformer"
    channels: tuple[int, ...] = Field((128, 256), description="unet only")
    num_res_blocks: int = Field(2, ge=1, description="unet only")
    num_head_channels: int = Field(64, ge=8)
    width: int = Field(256, ge=16, description="transformer only")
    depth: int = Field(6, ge=1, description="transformer only")
    dropout: float = Field(0.0, ge=0.0, le=0.5)


class DiffusionConfig(_Section):
    """The noise path x_t = alpha(t) x_0 + sigma(t) eps and what the network predicts on it."""

    path: Literal["linear", "cosine", "rectified"] = "rectified"
    prediction: Literal["epsilon", "sample", "velocity"] = "velocity"


class TrainingConfig(_Section):
    """One loop serves both stages; each has its own settings."""

    max_steps: int = Field(1000, ge=1)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0.0)
    warmup_steps: int = Field(50, ge=0)
    weight_decay: float = Field(1e-2, ge=0.0)
    gradient_clip: float = Field(1.0, gt=0.0)
    ema_decay: float = Field(0.999, ge=0.0, lt=1.0)
    precision: Precision = "auto"
    validate_every: int = Field(100, ge=1)
    patience: int = Field(0, ge=0, description="validations without a better held-out loss before stopping; 0: never")
    checkpoint_every: int = Field(100, ge=1)
    augment: float = Field(1.0, ge=0.0, le=1.0, description="share of training scans that get small affine changes")


class DenoiserTrainingConfig(TrainingConfig):
    """The denoiser, which alone may be too large for one GPU, can be trained in parts."""

    sharded: bool = Field(False, exclude_if=lambda on: not on, description="each of many processes holds a part")


class SamplingConfig(_Section):
    """How volumes are drawn."""

    num_samples: int = Field(64, ge=1)
    sampler: Literal["ddpm", "ddim", "heun", "dpmpp_2m"] = "dpmpp_2m"
    num_inference_steps: int = Field(20, ge=1, le=1000)
    timestep_shift: float = Field(3.0, ge=1.0, le=20.0)
    guidance_scale: float = Field(1.0, ge=0.0, le=20.0)
    batch_size: int = Field(8, ge=1)
    finish: bool = Field(True, description="add the noise that decoding loses; exact background; no crumbs of labels")
    redraws: int = Field(
        10, ge=0, le=1000, description="further draws of a volume that is out of the real range; 0: none is looked at"
    )
    whole_voxels: int = Field(
        WHOLE_VOXELS,
        ge=1,
        exclude_if=lambda voxels: voxels == WHOLE_VOXELS,
        description="largest grid, in voxels, that is decoded in one piece; a larger one in tiles",
    )


class EvaluationConfig(_Section):
    """What is measured beside the audit, and what the networks that judge may cost."""

    segmenter_steps: int = Field(400, ge=0, description="a segmenter's training; 0 leaves the utility measurement out")
    segmenter_batch_size: int = Field(8, ge=1)
    segmenter_seeds: int = Field(1, ge=1, description="segmenters, and predictors of covariates, a set")
    utility_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="numbers of training patients at which real alone and real + synthetic are also compared"
    )
    encoder_steps: int = Field(150, ge=0, description="the self-taught encoder's training; 0 leaves its features out")
    predictor_steps: int = Field(100, ge=0, description="training of what tells covariates from scans; 0: not measured")


class AuditConfig(_Section):
    """Which policy judges: a name that ships with `privacy`, or the path of a YAML file."""

    policy: str = "default"


class ExportConfig(_Section):
    """What is released, in which formats, and what the release says about itself."""

    formats: tuple[Literal["nifti", "dicom", "bids"], ...] = Field(("nifti",), min_length=1)
    enhanced: bool = Field(False, description="dicom only: one multi-frame file a series")
    compression: Literal["none", "rle", "jpeg-ls", "jpeg-2000", "htj2k"] = Field("none", description="dicom only")
    key: Path | None = Field(None, description="Ed25519 private key that signs; default: one made for this user")
    validate_with_tools: bool = Field(False, description="run the validators that are installed; keep what they say")
    title: str = "Synthetic cohort"
    license: str = "not stated: ask the publisher"
    source_statement: str = "A private cohort; the scans themselves are not part of this release."

    @field_validator("formats")
    @classmethod
    def _in_one_order(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in ("nifti", "dicom", "bids") if name in formats)


class Config(_Section):
    """A complete run."""

    name: str = Field("run", pattern=r"^[\w.-]+$")
    seed: int = Field(0, ge=0, lt=2**31)
    cohort: CohortConfig = CohortConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    autoencoder_training: TrainingConfig = TrainingConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    denoiser_training: DenoiserTrainingConfig = DenoiserTrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    audit: AuditConfig = AuditConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _grid_divides(self) -> Config:
        step = self.autoencoder.downsampling
        if self.sampling.guidance_scale != 1 and not self.conditioning.drop_probability:
            raise ValueError("sampling.guidance_scale other than 1 needs conditioning.drop_probability above 0")
        if any(n % step for n in self.preprocess.grid):
            raise ValueError(f"preprocess.grid {self.preprocess.grid} must be divisible by the autoencoder's {step}")
        return self


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration from a YAML file, or one that ships with the package by its name.

    Parameters
    ----------
    path : str or Path
        A file, or a bare name such as ``"phantom"`` or ``"hippocampus_mri"``.
    overrides : iterable of str
        ``"sampling.num_inference_steps=20"``: dotted key and YAML value.

    Raises
    ------
    ConfigError
        If the file is missing or not a mapping, or a key or value is wrong.
    """
    file = find_config(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the configuration {file}", found=" ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is not a configuration", found=type(content).__name__, expected="a YAML mapping")
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content)


def parse_config(content: Mapping[str, Any]) -> Config:
    """Validate a nested mapping; raise `ConfigError` naming the first wrong key and the likely right one."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise explain(error, Config) from error


def dump_config(config: Config) -> str:
    """Return the resolved configuration as YAML that `load_config` reads back to an equal value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_config(path: str | Path) -> Path:
    """Return the file that `path` means: itself, or the shipped configuration of that name."""
    file = Path(path)
    if file.is_file():
        return file
    shipped = shipped_configs()
    name = file.name.removesuffix(".yaml")
    if name in shipped and len(file.parts) == 1:
        return shipped[name]
    close = difflib.get_close_matches(name, shipped, n=1)
    raise ConfigError(
        f"There is no configuration or run {path}",
        expected=f"a YAML file, the directory of a run, or one of {', '.join(shipped)}",
        next_step=f"Did you mean {close[0]}?" if close else "Check the path, or plan a run: synthmed plan SCANS",
    )


def shipped_configs() -> dict[str, Path]:
    """Return the files of the configurations that come with the package, by name."""
    here = Path(__file__).parent
    folders = [d for d in (here.parent / "configs", here / "configs") if d.is_dir()]
    return dict(sorted((file.stem, file) for folder in folders for file in folder.glob("*.yaml")))


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Return `config` with ``"section.key=value"`` changes, validated again."""
    content = config.model_dump(mode="json")
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content)


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override} cannot be read", expected="KEY=VALUE, such as sampling.num_samples=16")
    *parents, last = key.strip().split(".")
    node: Any = content
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a section")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML", found=value) from error
