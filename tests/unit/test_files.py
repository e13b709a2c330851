"""Files are there whole or not at all."""

import os
import stat

import pytest

from shared.errors import InputError
from sim.files import written_whole


def test_a_file_takes_its_place_when_all_went_well(tmp_path):
    path = tmp_path / "result.json"
    with written_whole(path) as aside:
        aside.write_text("new")
        assert aside.parent == tmp_path
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_it_replaces_an_older_one(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with written_whole(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("why", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_an_interrupted_run(tmp_path, why):
    path = tmp_path / "result.json"

    def interrupted():
        with written_whole(path) as aside:
            aside.write_text("half of it")
            raise why

    with pytest.raises(why):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(why):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_the_file_has_the_rights_of_any_new_file(tmp_path):
    path = tmp_path / "result.json"
    mask = os.umask(0o027)
    try:
        with written_whole(path):
            pass
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027, "the mask itself is as it was"
    finally:
        os.umask(mask)


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "none" / "result.json"
    with (
        pytest.raises(InputError, match=r"result\.json: cannot be written: no such file"),
        written_whole(path),
    ):
        pytest.fail("there is nothing to write to")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(InputError, match="cannot be written: permission denied"),
        written_whole(tmp_path / "result.json"),
    ):
        pytest.fail("there is nothing to write to")


def test_a_folder_of_that_name(tmp_path):
    path = tmp_path / "result"
    path.mkdir()
    with (
        pytest.raises(InputError, match="result: cannot be written: is a directory"),
        written_whole(path) as aside,
    ):
        aside.write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert list(path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("old")
    with (
        pytest.raises(InputError, match="cannot be written: not a directory"),
        written_whole(tmp_path / "file" / "result.json"),
    ):
        pytest.fail("there is nothing to write to")
