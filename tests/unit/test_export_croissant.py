"""The Croissant description, judged, and its records loaded, by MLCommons' own library."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
import rdflib
from releases import Made, digest, make_audit, make_samples, read_table, write_table

from synthmed.config import ExportConfig
from synthmed.export.approval import approve
from synthmed.export.bids import write_bids
from synthmed.export.cohort import open_approved
from synthmed.export.documents.croissant import write_croissant
from synthmed.export.nifti import write_nifti
from synthmed.files import write_text

PROV = rdflib.Namespace("http://www.w3.org/ns/prov#")
SDO = rdflib.Namespace("https://schema.org/")


def described(made: Made, part: Path, *exporters: Any, **config: Any) -> Path:
    """Write some formats, `cases.csv` and the description; return the latter."""
    part.mkdir()
    settings = ExportConfig(**config)
    cohort = open_approved(made.samples, approve(made.samples, made.report, "default"))
    columns: dict[str, dict[str, str]] = {s.name: {} for s in cohort.samples}
    for exporter in exporters or (write_nifti,):
        for case, cells in exporter(cohort, part, settings).items():
            columns[case] |= cells
    head = ["case", "seed", *columns[cohort.samples[0].name]]
    rows = [[s.name, str(s.seed), *columns[s.name].values()] for s in cohort.samples]
    write_text(part / "cases.csv", "".join(",".join(row) + "\n" for row in [head, *rows]))
    write_croissant(part, settings, cohort, columns)
    return part / "croissant.json"


def load(file: Path) -> mlcroissant.Dataset:
    """Load as a user would; the constructor raises on any error."""
    return mlcroissant.Dataset(str(file))


def text(record: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("cases/"): v.decode() if isinstance(v, bytes) else v for key, v in record.items()}


def test_no_error_and_one_warning(made: Made, tmp_path: Path) -> None:
    issues = load(described(made, tmp_path / "part")).metadata.ctx.issues
    assert issues.errors == set()
    # Nobody but the publisher knows the day of publication.
    assert len(issues.warnings) == 1
    assert "datePublished" in next(iter(issues.warnings))


def test_the_library_finds_a_fault(made: Made, tmp_path: Path) -> None:
    file = described(made, tmp_path / "part")
    content = json.loads(file.read_text())
    del content["distribution"][0]["contentUrl"]
    file.write_text(json.dumps(content))
    with pytest.raises(mlcroissant.ValidationError, match="contentUrl"):
        load(file)


def test_every_record_of_the_cases_loads(made: Made, tmp_path: Path) -> None:
    rows = read_table(made.samples)
    write_table(made.samples, [row | {"seed": 2**63 - 1 - i} for i, row in enumerate(rows)])
    made = Made(made.samples, make_audit(made.audit, made.samples))
    part = tmp_path / "part"
    records = [text(r) for r in load(described(made, part, write_nifti, write_bids)).records("cases")]
    with (part / "cases.csv").open(newline="") as stream:
        assert records == [row | {"seed": int(row["seed"])} for row in csv.DictReader(stream)]
    assert records[0]["seed"] == 2**63 - 1
    assert len(records) == 6


def test_files_and_sets_are_those_of_the_release_and_relative(made: Made, tmp_path: Path) -> None:
    file = described(made, tmp_path / "part", write_nifti, write_bids)
    content = json.loads(file.read_text())
    objects = {d["@id"]: d for d in content["distribution"] if d["@type"] == "cr:FileObject"}
    assert set(objects) == {
        "cases.csv", "nifti/dataset.json", "nifti/datalist.json", "bids/participants.tsv",
        "bids/derivatives/labels/dseg.tsv",
    }  # fmt: skip
    for name, entry in objects.items():
        assert (entry["contentUrl"], entry["sha256"]) == (name, digest(file.parent / name))
    assert str(tmp_path) not in file.read_text()


def test_each_set_holds_its_files(made: Made, tmp_path: Path) -> None:
    """A record set over each file set, added here, lists the files that its pattern finds."""
    file = described(made, tmp_path / "part", write_nifti, write_bids)
    content = json.loads(file.read_text())
    entries = [d for d in content["distribution"] if d["@type"] == "cr:FileSet"]
    sets = [entry["@id"] for entry in entries]
    for entry in entries:
        entry["encodingFormat"] = "text/plain"
    assert sets == ["nifti-images", "nifti-labels", "bids-images", "bids-labels"]
    content["recordSet"] = [
        {
            "@type": "cr:RecordSet",
            "@id": f"of-{name}",
            "name": f"of-{name}",
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"of-{name}/path",
                    "name": "path",
                    "dataType": "sc:Text",
                    "source": {"fileSet": {"@id": name}, "extract": {"fileProperty": "fullpath"}},
                }
            ],
        }
        for name in sets
    ]
    file.write_text(json.dumps(content))
    dataset = load(file)
    found = {name: [r[f"of-{name}/path"].decode() for r in dataset.records(f"of-{name}")] for name in sets}
    assert found["nifti-images"] == [f"nifti/imagesTr/synthetic_{i:04d}_0000.nii.gz" for i in range(6)]
    assert found["nifti-labels"] == [f"nifti/labelsTr/synthetic_{i:04d}.nii.gz" for i in range(6)]
    assert found["bids-labels"][5].endswith("sub-synthetic0005_dseg.nii.gz")
    assert [len(files) for files in found.values()] == [6, 6, 6, 6]


def test_provenance_is_a_graph_that_names_source_software_and_models(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples")
    record = json.loads((samples / "generation.json").read_text()) | {"autoencoder": "a" * 64, "denoiser": "d" * 64}
    (samples / "generation.json").write_text(json.dumps(record))
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    file = described(made, tmp_path / "part", source_statement="One clinic.")
    graph = rdflib.Graph().parse(file, format="json-ld")
    dataset = graph.value(predicate=rdflib.RDF.type, object=SDO.Dataset)
    source, activity = graph.value(dataset, PROV.wasDerivedFrom), graph.value(dataset, PROV.wasGeneratedBy)
    assert str(graph.value(source, PROV.label)) == "One clinic."
    assert str(graph.value(activity, PROV.label)).endswith("; sampler dpmpp_2m; sampling steps 20")
    agent = graph.value(activity, PROV.wasAssociatedWith)
    assert str(graph.value(agent, PROV.label)).startswith("synthmed ")
    used = {str(graph.value(entity, SDO.sha256)) for entity in graph.objects(activity, PROV.used)}
    assert used == {"a" * 64, "d" * 64}
    rai = rdflib.URIRef("http://mlcommons.org/croissant/RAI/personalSensitiveInformation")
    assert "evidence, not proof" in str(graph.value(dataset, rai))


@pytest.mark.parametrize(
    ("license", "address"), [("cc-by-4.0", "https://spdx.org/licenses/CC-BY-4.0"), ("Agreement 7", None)]
)
def test_licence(made: Made, tmp_path: Path, license: str, address: str | None) -> None:
    file = described(made, tmp_path / "part", license=license, title='A "b": {c} ü')
    stated = json.loads(file.read_text())["license"]
    assert stated == (address or {"@type": "sc:CreativeWork", "name": "Agreement 7", "url": "LICENSE"})
    assert load(file).metadata.name == 'A "b": {c} ü'
