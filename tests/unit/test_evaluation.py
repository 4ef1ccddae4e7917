"""`evaluate` on stage directories as a run leaves them."""

import csv
import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from scipy import ndimage

from synthmed.config import parse_config
from synthmed.errors import InputError
from synthmed.evaluation import SCHEMA, evaluate, format_evaluation
from synthmed.evaluation.cases import synthetic_cases
from synthmed.files import write_json
from synthmed.io import write_volume
from synthmed.models.autoencoder import build_autoencoder
from synthmed.models.checkpoint import save_model
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen
from synthmed.prepare.space import Space
from synthmed.volume import Volume

GRID = (16, 16, 16)
SMALL = {"channels": [16, 16], "latent_channels": 8, "norm_num_groups": 8}


ASKED = {"scalars": ["age"], "classes": ["sex"]}


def settings(steps=0, seeds=1, **changed):
    evaluation = {"segmenter_steps": steps, "segmenter_batch_size": 4, "segmenter_seeds": seeds, "encoder_steps": 0}
    content = {"preprocess": {"grid": GRID}, "autoencoder": SMALL, "evaluation": evaluation | changed}
    return parse_config(content | {"conditioning": ASKED if changed.get("predictor_steps") else {}})


def full():
    return settings(steps=2, seeds=2, utility_sizes=[3, 8, 50], encoder_steps=2, predictor_steps=2)


def space_of(*, labelled):
    names = {"label_values": (0, 3, 7), "label_names": {3: "core"}} if labelled else {}
    return Space(GRID, (1.0, 1.0, 2.0), intensity_range=(0.0, 1000.0), **names)


def write_case(folder, name, rng, space, values=None):
    """Write a bright ball in two halves, label values 3 and 7."""
    axes = np.indices(GRID).astype(float)
    distance = np.sqrt(((axes - 7.5 - rng.uniform(-1, 1, (3, 1, 1, 1))) ** 2).sum(0))
    ball = distance < rng.uniform(4, 6)
    image = 800 * ndimage.gaussian_filter(ball.astype(float), 1) + 40 * rng.random(GRID)
    write_volume(folder / "images" / f"{name}.nii.gz", Volume(image[None], space.affine))
    if space.num_classes:
        label = np.where(ball, np.where(axes[0] < 8, 3, 7), 0)
        label = label if values is None else np.where(label == 7, values, label)
        write_volume(folder / "labels" / f"{name}.nii.gz", Volume(label[None], space.affine), dtype="uint8")


def covariates(number):
    """Age of all but one, and sex."""
    age = {} if number == 1 else {"age": 40.0 + 3 * number}
    return json.dumps(age | {"sex": "FM"[number % 2]})


def write_prepared(folder, space, rng, subjects):
    write_json(folder / "space.json", space.to_json())
    rows = []
    for split, names in subjects.items():
        for number, subject in enumerate(names):
            case = f"{split}_{number:02d}"
            write_case(folder / split, case, rng, space)
            rows.append({"case": case, "subject": subject, "split": split, "covariates": covariates(number)})
    write_table(folder / "cases.csv", rows)


def write_table(file, rows):
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_run(root, *, labelled=True, holdout=6, config=None):
    """Write the four stages that `evaluate` reads; return their directories."""
    rng, space = np.random.default_rng(0), space_of(labelled=labelled)
    prepare, autoencoder, denoiser, generate = folders = [
        root / n for n in ("prepare", "autoencoder", "denoiser", "generate")
    ]
    subjects = {"train": [f"Secret-{i}" for i in range(8)], "holdout": [f"Hidden-{i // 2}" for i in range(holdout)]}
    write_prepared(prepare, space, rng, subjects)
    num_classes = max(space.num_classes, 1)
    architecture = (config or settings()).autoencoder
    model = build_autoencoder(architecture, num_classes)
    record = {
        "architecture": architecture.model_dump(mode="json"),
        "num_classes": num_classes,
        "finish": Finish().to_json(),
        "screen": Screen().to_json(),
        "space": space.to_json(),
    }
    save_model(autoencoder, "autoencoder", model.state_dict(), record)
    write_json(denoiser / "model.json", {"measurements": {"holdout_loss": 0.75, "train_loss": 0.5}})
    for index in range(7):
        write_case(generate, f"sample_{index:05d}", rng, space)
    rows = [{"name": f"sample_{i:05d}", "condition": covariates(i)} for i in range(7)]
    write_table(generate / "samples.csv", rows)
    return folders


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    folders = write_run(root)
    result = evaluate(full(), *folders, root / "evaluate", device="cpu", progress=False)
    return root, folders, result


def check(result):
    schema = json.loads(files("synthmed.evaluation").joinpath("schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(result)))


def test_the_file_is_what_was_returned_and_is_strict_json(labelled):
    root, _, result = labelled
    text = (root / "evaluate" / "evaluation.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == json.loads(json.dumps(result))
    assert result["schema"] == SCHEMA == "synthmed-evaluation/2"
    check(result)


def test_the_schema_refuses_what_is_not_in_it(labelled):
    for wrong in ({"subject": "P1"}, {"schema": "synthmed-evaluation/1"}, {"diversity": {}}):
        with pytest.raises(jsonschema.ValidationError):
            check(labelled[2] | wrong)


def test_the_file_names_no_patient_and_no_path(labelled):
    root, _, _ = labelled
    text = (root / "evaluate" / "evaluation.json").read_text()
    for secret in ("Secret", "Hidden", "train_0", "holdout_0", "sample_0", str(root)):
        assert secret not in text


def test_sizes_count_cases_and_patients(labelled):
    assert labelled[2]["n"] == {"synthetic": 7, "train": 8, "holdout": 6, "train_patients": 8, "holdout_patients": 3}


def test_every_part_is_there(labelled):
    result = labelled[2]
    assert result["structures"] == ["core", "label 7"]
    assert result["denoiser"] == {"holdout_loss": 0.75, "train_loss": 0.5}
    assert result["autoencoder"]["psnr_db"]["n"] == 6
    assert result["autoencoder"]["dice"].keys() == {"core", "label 7"}
    assert result["distance"]["random_convolutions"]["n"] == 7
    assert result["distance"]["radiomics"]["kid"].keys() == {"synthetic", "floor", "ratio"}
    assert result["distance"]["encoder"]["n"] == result["distance"]["encoder"]["n_lessons"] == 4  # of 8 patients
    assert result["diversity"]["real"]["n"] == 12  # 15 pairs, 3 of them within a patient
    assert result["utility"]["sets"].keys() == {"tstr", "trtr", "both"}
    assert result["utility"]["sets"]["both"]["n_training"] == 15
    assert result["utility"]["seeds"] == [0, 1]
    assert [row["patients"] for row in result["utility"]["sizes"]] == [3]  # 8 is all, and 50 there are not
    assert result["unit"] == "arbitrary units"


def test_conditions_leave_out_who_lacks_them(labelled):
    found = labelled[2]["conditions"]["covariates"]
    assert {role: found["age"][role]["n"] for role in ("holdout", "synthetic", "tstr")} == {
        "holdout": 5, "synthetic": 6, "tstr": 5
    }  # fmt: skip
    assert found["sex"]["holdout"]["n"] == 6
    against = labelled[2]["labels"]["core"]["against"]["age"]
    assert {name: part["n"] for name, part in against.items()} == {"synthetic": 6, "train": 7, "holdout": 5}


def test_volumes_count_the_voxels_size(labelled):
    _, (_, _, _, generate), result = labelled
    cases = synthetic_cases(generate, space_of(labelled=True))
    counts = [float((label == 1).sum()) for label in cases.labels]
    assert result["labels"]["core"]["synthetic"]["mean_mm3"] == pytest.approx(2.0 * np.mean(counts))


def test_the_same_seed_gives_the_same_figures(labelled, tmp_path):
    _, folders, result = labelled
    again = evaluate(full(), *folders, tmp_path, device="cpu", progress=False)
    assert again == result


def test_a_montage_is_drawn(labelled):
    assert (labelled[0] / "evaluate" / "montage.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_shows_every_figure_with_its_comparison(labelled):
    result = labelled[2]
    table = format_evaluation(result)
    assert len(set(table.splitlines()[1])) == 2  # a rule of dashes under the header
    for title in (
        "PSNR",
        "Dice, core",
        "Fidelity, self-taught encoder",
        "Fidelity, radiomics",
        "kernel distance (KID)",
        "Frechet",
        "mode coverage",
        "classifier AUC",
        "MS-SSIM",
        "intensities",
        "label 7: volume",
        "volume against age, slope",
        "age, asked and seen",
        "sex, trained on synthetic",
        "real + synthetic",
        "3 patients + synthetic",
        "denoising",
    ):
        assert title in table
    assert f"{result['distance']['radiomics']['kid']['floor']['value']:.3f}" in table
    assert "6 held-out cases of 3 patients" in table
    assert max(map(len, table.splitlines())) <= 150


def test_without_labels_utility_is_left_out_and_said_so(tmp_path):
    folders = write_run(tmp_path, labelled=False)
    result = evaluate(settings(steps=3), *folders, tmp_path / "evaluate", device="cpu", progress=False)
    assert result["utility"] == {"measured": False, "reason": "the cohort has no labels"}
    assert result["labels"] == {}
    check(result)
    assert result["conditions"] == {"measured": False, "reason": "the model has no conditions"}
    assert result["distance"]["radiomics"]["dimensions"] == 18
    assert "Utility not measured: the cohort has no labels" in format_evaluation(result)


def test_no_segmenter_steps_leave_utility_out_and_few_patients_leave_distances_out(tmp_path):
    folders = write_run(tmp_path, holdout=2)
    (folders[2] / "model.json").write_text("{}")
    result = evaluate(settings(steps=0), *folders, tmp_path / "evaluate", device="cpu", progress=False)
    assert result["utility"]["reason"] == "evaluation.segmenter_steps is 0"
    assert not result["distance"]["measured"]
    check(result)
    assert result["diversity"]["real"] is None
    table = format_evaluation(result)
    assert "Distances not measured" in table
    assert "denoising" not in table


class TestSyntheticCases:
    def test_values_become_class_indices_and_intensities_the_networks_scale(self, tmp_path):
        space = space_of(labelled=True)
        write_case(tmp_path, "a", np.random.default_rng(0), space)
        cases = synthetic_cases(tmp_path, space)
        assert cases.labels.unique().tolist() == [0, 1, 2]
        assert -1 <= cases.images.min() < -0.9
        assert 0.5 < cases.images.max() <= 1

    def test_an_empty_folder_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"holds no volumes.*synthmed generate"):
            synthetic_cases(tmp_path, space_of(labelled=True))

    def test_an_unknown_label_value_is_refused(self, tmp_path):
        write_case(tmp_path, "a", np.random.default_rng(0), space_of(labelled=True), values=5)
        with pytest.raises(InputError, match=r"unknown label values; found \[5"):
            synthetic_cases(tmp_path, space_of(labelled=True))

    def test_a_missing_label_is_refused(self, tmp_path):
        write_case(tmp_path, "a", np.random.default_rng(0), space_of(labelled=True))
        (tmp_path / "labels" / "a.nii.gz").unlink()
        with pytest.raises(InputError, match=r"a\.nii\.gz"):
            synthetic_cases(tmp_path, space_of(labelled=True))

    def test_another_grid_is_refused(self, tmp_path):
        write_case(tmp_path, "a", np.random.default_rng(0), space_of(labelled=True))
        with pytest.raises(InputError, match="not on the cohort's grid"):
            synthetic_cases(tmp_path, Space((8, 16, 16), (1.0, 1.0, 2.0)))
