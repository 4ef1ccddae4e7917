"""The MONAI bundle: what is in it, that it draws what its run draws, and when it is refused."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import invoke
from monai.bundle import ConfigWorkflow, load, verify_metadata
from releases import digest, make_audit
from small_models import SPACE, audited_run, save_models

from synthmed.bundle import write_bundle
from synthmed.errors import AuditInconclusive, ConfigError, InputError, ReleaseRefused, StorageError, SynthmedError
from synthmed.models.checkpoint import load_denoiser
from synthmed.prepare.space import Space
from synthmed.sampling.generate import generate
from synthmed.stages import Run

# MONAI warns of every configuration, and of a schema without a digest.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in ("parsing config_file", "No hash value")]
FILES = {
    "LICENSE",
    "configs/inference.json",
    "configs/metadata.json",
    "docs/README.md",
    "docs/audit/report.json",
    "docs/audit/report.md",
    "models/autoencoder.json",
    "models/autoencoder.pt",
    "models/model.json",
    "models/model.pt",
}
# What MONAI's bundle specification asks of metadata.json, written from its text.
TEXT = {"type": "string", "minLength": 1}
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"],
    "properties": {
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": TEXT},
    },
}
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
FORMAT = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "additionalProperties": TENSORS,
}
TEXTS = ["schema", "version", "monai_version", "pytorch_version", "numpy_version"]
TEXTS += ["task", "description", "authors", "copyright"]
SCHEMA = {
    "type": "object",
    "required": [*TEXTS, "changelog", "required_packages_version", "network_data_format"],
    "properties": dict.fromkeys(TEXTS, TEXT)
    | {key: {"type": "object", "additionalProperties": TEXT} for key in ("changelog", "required_packages_version")},
    "patternProperties": {"_data_format$": FORMAT},
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with an audit that passed, never modified."""
    return audited_run(tmp_path_factory.mktemp("private-ward"), export={"title": "Knees", "license": "cc-by-4.0"})


@pytest.fixture(scope="module")
def bundle(original: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle, copied elsewhere; never modified."""
    made = write_bundle(original, tmp_path_factory.mktemp("made") / "out")
    copy = shutil.copytree(made, tmp_path_factory.mktemp("sömewhere else") / "knees")
    shutil.rmtree(made)
    return copy


@pytest.fixture
def run(original: Run, tmp_path: Path) -> Run:
    """A copy of the run, to be damaged."""
    return Run(original.config, shutil.copytree(original.root, tmp_path / "run"))


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): digest(p) for p in folder.rglob("*") if p.is_file()}


def workflow(bundle: Path, out: Path, **changes: Any) -> ConfigWorkflow:
    flow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        output_dir=str(out),
        **changes,
    )
    flow.initialize()
    return flow


def draw(bundle: Path, out: Path, **changes: Any) -> dict[str, str]:
    flow = workflow(bundle, out, **changes)
    flow.run()
    flow.finalize()
    return contents(out)


# What lies in it.


def test_layout(bundle: Path) -> None:
    assert contents(bundle).keys() == FILES


def test_metadata_is_what_monai_asks_for(bundle: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    metadata = bundle / "configs" / "metadata.json"
    verify_metadata(meta_file=str(metadata), filepath=schema)
    content = json.loads(metadata.read_text())
    del content["task"]
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=schema)


def test_metadata_describes_the_tensors(bundle: Path) -> None:
    content = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert content["network_data_format"]["inputs"]["x_t"]["spatial_shape"] == [2, 3, 2]
    assert content["network_data_format"]["inputs"]["condition"]["num_channels"] == 3  # two classes and a scalar
    written = content["decoder_data_format"]["post_processed_outputs"]
    assert written["image"]["spatial_shape"] == [8, 12, 8]
    assert written["image"]["value_range"] == [-200.0, 800.0]
    assert written["label"]["channel_def"] == {
        "0": "background",
        "3": "structure: nucleus",
        "7": "structure: ventricle",
    }


def test_the_card_says_that_the_weights_were_not_audited(bundle: Path) -> None:
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "**The weights themselves were not audited.**" in card
    assert "verdict **PASS**" in card
    assert "# Knees: the generative model" in card
    assert "cc-by-4.0" in (bundle / "LICENSE").read_text(encoding="utf-8")
    assert "not audited" in json.loads((bundle / "configs" / "metadata.json").read_text())["intended_use"]


def test_no_file_names_a_path_or_a_directory_of_the_run(bundle: Path, original: Run) -> None:
    needles = [original.root.name.encode(), b"/tmp", b"/home", str(Path.cwd()).encode()]
    assert [f for f in FILES for needle in needles if needle in (bundle / f).read_bytes()] == []


def test_the_same_run_gives_the_same_bytes(bundle: Path, original: Run, tmp_path: Path) -> None:
    assert contents(write_bundle(original, tmp_path / "again")) == contents(bundle)


# What it draws.


def test_by_default_it_draws_the_audited_samples_again(bundle: Path, original: Run, tmp_path: Path) -> None:
    assert draw(bundle, tmp_path / "out") == contents(original.stage("generate"))
    image = nib.load(tmp_path / "out" / "images" / "synth_00001.nii.gz")
    np.testing.assert_allclose(image.affine, SPACE.affine)
    label = nib.load(tmp_path / "out" / "labels" / "synth_00001.nii.gz")
    assert set(np.unique(np.asarray(label.dataobj))) <= {0, 3, 7}


def test_another_seed_number_and_setting_are_those_of_generate(bundle: Path, original: Run, tmp_path: Path) -> None:
    sampling = original.config.sampling.model_copy(update={"sampler": "heun", "num_inference_steps": 2})
    models = original.stage("autoencoder"), original.stage("denoiser")
    asked = [{"sex": "F", "age": 50}]
    generate(*models, tmp_path / "a", sampling=sampling, seed=9, num_samples=3, conditions=asked, progress=False)
    changes = {"sampling#sampler": "heun", "sampling#num_inference_steps": 2, "conditions": asked}
    drawn = draw(bundle, tmp_path / "b", seed=9, num_samples=3, **changes)
    assert drawn == contents(tmp_path / "a")
    assert drawn.keys() >= {"images/synth_00003.nii.gz", "labels/synth_00003.nii.gz"}


def test_an_interrupted_drawing_goes_on(bundle: Path, original: Run, tmp_path: Path) -> None:
    draw(bundle, tmp_path / "out", num_samples=1)
    assert draw(bundle, tmp_path / "out") == contents(original.stage("generate"))


def test_a_model_without_labels_and_conditions(tmp_path: Path) -> None:
    bare = Space(grid=(8, 8, 8), spacing=(1.0, 1.0, 1.0), intensity_range=(0.0, 12.5), modality="PT")
    made = audited_run(tmp_path / "run", bare, conditional=False)
    written = write_bundle(made, tmp_path / "bundle")
    assert draw(written, tmp_path / "out") == contents(made.stage("generate"))
    content = json.loads((written / "configs" / "metadata.json").read_text())
    assert content["network_data_format"]["inputs"].keys() == {"x_t", "t"}
    assert content["decoder_data_format"]["outputs"].keys() == {"image"}
    assert content["decoder_data_format"]["post_processed_outputs"]["image"]["dtype"] == "float32"


def test_monai_loads_the_network_with_its_weights(bundle: Path, original: Run) -> None:
    network = load(bundle.name, bundle_dir=bundle.parent, workflow_type="inference", device="cpu")
    expected = load_denoiser(original.stage("denoiser")).model.state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_monai_finds_every_property_of_an_inference_workflow(bundle: Path, tmp_path: Path) -> None:
    flow = workflow(bundle, tmp_path, num_samples=2)
    assert flow.check_properties() == []
    assert flow.version == "1.0.0"
    assert flow.dataset == [0, 1]


def test_words_of_the_user_are_never_evaluated(tmp_path: Path) -> None:
    words = {"title": "$1/0", "license": "@nowhere", "source_statement": "%nowhere.json"}
    space = Space(SPACE.grid, SPACE.spacing, label_values=(0, 3), label_names={3: "$1/0"})
    written = write_bundle(audited_run(tmp_path / "run", space, export=words), tmp_path / "bundle")
    flow = workflow(written, tmp_path / "out")
    assert flow.parser.get_parsed_content("_meta_")["name"] == "Generative model: $1/0"
    assert flow.check_properties() == []


def test_no_samples_are_refused(bundle: Path, tmp_path: Path) -> None:
    flow = workflow(bundle, tmp_path / "out")
    with pytest.raises(ConfigError, match="Too few volumes"):
        flow.inferer(tmp_path / "out", 0)


@pytest.mark.parametrize("name", ["model", "autoencoder"])
def test_changed_weights_are_not_loaded(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    state = torch.load(copy / "models" / f"{name}.pt", weights_only=True)
    first = next(iter(state))
    torch.save(state | {first: state[first] + 1}, copy / "models" / f"{name}.pt")
    with pytest.raises(RuntimeError, match="Failed to instantiate") as caught:
        draw(copy, tmp_path / "out")
    assert isinstance(caught.value.__cause__, InputError)
    assert "is not the file that" in str(caught.value.__cause__)
    assert not (tmp_path / "out").exists()


# When it is refused.


def refused(run: Run, error: type[Exception], words: str) -> None:
    before = sorted(run.root.parent.iterdir())
    with pytest.raises(error, match=words):
        write_bundle(run, run.root.parent / "bundle")
    assert sorted(run.root.parent.iterdir()) == before


def test_without_an_audit(run: Run) -> None:
    shutil.rmtree(run.stage("audit"))
    refused(run, ReleaseRefused, "only after an audit of its samples.*synthmed audit")


def test_after_a_fail(run: Run) -> None:
    make_audit(run.stage("audit") / "release", run.stage("generate"), verdict="FAIL", identity_matches=3)
    refused(run, ReleaseRefused, "audit says FAIL")


def test_after_an_inconclusive_audit(run: Run) -> None:
    make_audit(run.stage("audit") / "release", run.stage("generate"), verdict="INCONCLUSIVE", recall_lower=0.1)
    evidence = run.stage("audit") / "steward" / "report.md"
    refused(run, AuditInconclusive, f"INCONCLUSIVE.*{re.escape(str(evidence))}")


def test_with_samples_that_were_not_audited(run: Run) -> None:
    config = run.config.sampling
    models = run.stage("autoencoder"), run.stage("denoiser")
    generate(*models, run.stage("generate"), sampling=config, seed=1, num_samples=5, progress=False)
    refused(run, ReleaseRefused, "about other files")


@pytest.mark.parametrize("stage", ["autoencoder", "denoiser"])
def test_with_a_model_trained_since(run: Run, stage: str, tmp_path: Path) -> None:
    save_models(tmp_path / "later" / "models", SPACE, weights_seed=9)
    shutil.rmtree(run.stage(stage))
    shutil.copytree(tmp_path / "later" / "models" / stage, run.stage(stage))
    refused(run, ReleaseRefused, f"not of this {stage}")


def test_where_something_lies_already(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    refused(run, ConfigError, "exists already")


def test_on_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(run, StorageError, "No space left")


def test_a_run_is_left_as_it_was(run: Run, tmp_path: Path) -> None:
    before = contents(run.root)
    write_bundle(run, tmp_path / "bundle")
    assert contents(run.root) == before


# The command line.


@pytest.mark.parametrize(
    ("measured", "code"),
    [({}, 0), ({"identity_matches": 3}, 3), ({"recall_lower": 0.1}, 4)],
    ids=["pass", "fail", "weak"],
)
def test_command(run: Run, tmp_path: Path, measured: dict[str, float], code: int) -> None:
    verdict = {0: "PASS", 3: "FAIL", 4: "INCONCLUSIVE"}[code]
    make_audit(run.stage("audit") / "release", run.stage("generate"), verdict=verdict, **measured)
    command = "bundle", run.root, "-o", tmp_path / "bundle"
    if code:
        with pytest.raises(SynthmedError) as refused:
            invoke(*command)
        assert refused.value.exit_code == code
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "bundle").exists()
    else:
        assert "the weights were not" in str(invoke(*command))
        assert contents(tmp_path / "bundle").keys() == FILES


@pytest.mark.slow
def test_monais_own_command_draws_the_same_in_a_copied_directory(bundle: Path, original: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "a cöpy")
    run = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    done = subprocess.run([*run, "--bundle_root", "."], cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert contents(copy / "output") == contents(original.stage("generate"))
    more = [*run, "--bundle_root", ".", "--num_samples", "2", "--seed", "5", "--output_dir", "other"]
    done = subprocess.run(more, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    models = original.stage("autoencoder"), original.stage("denoiser")
    sampling = original.config.sampling
    expected = generate(*models, tmp_path / "expected", sampling=sampling, seed=5, num_samples=2, progress=False)
    assert contents(copy / "other") == contents(expected)
