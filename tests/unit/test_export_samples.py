"""The table of a generated set: read as it is, refused where it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from releases import Made

from synthmed.errors import InputError
from synthmed.export.samples import parse_description, parse_samples, read_samples

HEAD = "name,seed,condition,image_sha256,label_sha256\n"
A, B = "a" * 64, "b" * 64
HERE = Path("samples.csv")


def test_rows_come_sorted_with_their_conditions() -> None:
    samples = parse_samples(f'{HEAD}s2,7,"{{""sex"": ""F""}}",{A},\ns1,3,{{}},{B},\n', HERE)
    assert [(s.name, s.seed, s.condition, s.has_label) for s in samples] == [
        ("s1", 3, {}, False),
        ("s2", 7, {"sex": "F"}, False),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks columns"),
        ("name,seed\n", "lacks columns"),
        (HEAD, "lists no volume"),
        (f"{HEAD}../x,1,{{}},{A},\n", "unusable name"),
        (f"{HEAD}a/b,1,{{}},{A},\n", "unusable name"),
        (f"{HEAD}.hidden,1,{{}},{A},\n", "unusable name"),
        (f"{HEAD},1,{{}},{A},\n", "unusable name"),
        (f"{HEAD}s,one,{{}},{A},\n", "row of s"),
        (f"{HEAD}s,1,{{,{A},\n", "row of s"),
        (f"{HEAD}s,1,[],{A},\n", "not a JSON object"),
        (f"{HEAD}s,1,{{}},abc,\n", "no usable digest"),
        (f"{HEAD}s,1,{{}},{A},xyz\n", "no usable digest"),
        (f"{HEAD}s,1\n", "no usable digest"),
        (f"{HEAD}s,1,{{}},{A},\ns,2,{{}},{B},\n", "lists s twice"),
        (f"{HEAD}s,1,{{}},{A},{B}\nt,2,{{}},{B},\n", "labels to some.*none for t"),
        (f'{HEAD}"s"x,1,{{}},{A},\n', "not a CSV"),
    ],
)
def test_unusable_tables_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_samples(text, HERE)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_generated_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"samples\.csv"):
        read_samples(tmp_path)


def test_hidden_leftovers_are_not_samples(made: Made) -> None:
    (made.samples / "images" / ".part-x-synthetic_0000.nii.gz").write_bytes(b"half")
    assert len(read_samples(made.samples)) == 6


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"space": {}}', '{"space": {"grid": [8, 8, 8]}}'])
def test_a_record_without_a_space_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="does not describe the volumes"):
        parse_description(text, Path("generation.json"))
