"""Files are whole or absent, and a disk that cannot take them is said in one line."""

import errno
import hashlib

import pytest

from synthmed.errors import ConfigError, InputError, StorageError
from synthmed.files import (
    atomic_directory,
    atomic_path,
    read_json,
    sha256_file,
    sha256_json,
    storage_errors,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(str(1 / 0))
    assert read_json(target) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_full_disk_becomes_one_line(tmp_path):
    with pytest.raises(StorageError, match="Cannot write") as caught, storage_errors(tmp_path / "big"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 7
    assert "resumes" in str(caught.value)


def test_other_system_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "absent").read_bytes()


def test_a_directory_appears_when_it_is_whole(tmp_path):
    (tmp_path / ".made.partial-killed").mkdir()  # what a killed writer left
    with atomic_directory(tmp_path / "made") as part:
        (part / "a").write_text("whole")
        assert [p.name for p in tmp_path.iterdir()] == [part.name]
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "a").read_text() == "whole"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError("half way"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_failed_directory_leaves_nothing(tmp_path, error):
    expected = StorageError if isinstance(error, OSError) else type(error)

    def half():
        with atomic_directory(tmp_path / "made") as part:
            (part / "a").write_text("half")
            raise error

    with pytest.raises(expected):
        half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_a_directory_replaces_nothing(tmp_path, kind):
    made = tmp_path / "made"
    made.write_text("") if kind == "file" else made.mkdir() if kind == "directory" else made.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="exists already"), atomic_directory(made):
        pytest.fail("it was begun")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_digests(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
    assert sha256_json({"b": 1, "a": [2.5, "é"]}) == sha256_json({"a": [2.5, "é"], "b": 1})
    assert sha256_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_nan_never_enters_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"x": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_broken_json_is_an_input_error(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    with pytest.raises(InputError, match="absent"):
        read_json(tmp_path / "absent.json")
