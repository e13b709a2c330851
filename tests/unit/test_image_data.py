"""A stranger's archive of pictures: what is made of it, and what it cannot do."""

import zipfile
from io import BytesIO
from pathlib import Path
from stat import S_IFLNK
from typing import Any

import pytest

Image = pytest.importorskip("PIL.Image")

from live.training.address import FetchLimits  # noqa: E402
from live.training.images.archive import ArchiveLimits, kind_of  # noqa: E402
from live.training.images.pairs import (  # noqa: E402
    PairLimits,
    image_of,
    prepare,
    read_pairs,
    squared,
)
from shared.errors import InputError  # noqa: E402

Files = dict[str, bytes]


def picture(size: tuple[int, int] = (40, 30), colour: Any = "red", form: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(file, form)
    return file.getvalue()


def pairs(count: int) -> Files:
    files: Files = {}
    for at in range(count):
        files[f"{at}.png"] = picture(colour=(at, 0, 0))
        files[f"{at}.txt"] = f"number {at}".encode()
    return files


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as held:
        for name, content in files.items():
            held.writestr(name, content)
    return path


def prepared(tmp_path: Path, files: Files | Path, **archive: int) -> Any:
    path = files if isinstance(files, Path) else zipped(tmp_path / "a.zip", files)
    limits = PairLimits(FetchLimits(), ArchiveLimits(**archive), pixels=32, share=0.1, most=5)
    folder = tmp_path / "job"
    folder.mkdir(exist_ok=True)
    request = {"dataset_zip": str(path)}
    return prepare(request, folder, limits, local_files=True, beat=lambda: None)


def test_pairs_become_squares_with_their_captions_and_some_are_held_out(tmp_path: Path) -> None:
    files = pairs(10) | {"10.jpg": picture((64, 128), form="JPEG"), "10.txt": b" a  tall\none "}
    record = prepared(tmp_path, files)
    assert (record.kind, record.usable, record.train + record.held_out) == ("zip", 11, 11)
    got = read_pairs(tmp_path / "job")
    assert sum(each.held_out for each in got) == record.held_out == 2
    tall = got[-1]
    assert (tall.caption, tall.width, tall.height) == ("a tall one", 64, 128)
    assert (tall.left, tall.top) == (0, 16)
    assert {image_of(tmp_path / "job", each).size for each in got} == {(32, 32)}


def test_what_was_prepared_is_found_again(tmp_path: Path) -> None:
    first = prepared(tmp_path, pairs(4))
    (tmp_path / "a.zip").unlink()
    assert prepared(tmp_path, tmp_path / "a.zip") == first


def test_the_middle_is_cut_out() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("blue", (100, 0, 200, 100))
    square, left, top = squared(image, 50)
    assert (square.size, left, top) == ((50, 50), 50, 0)
    assert square.getpixel((25, 25)) == (0, 0, 255)


def test_see_through_is_white(tmp_path: Path) -> None:
    prepared(tmp_path, {"a.png": picture(colour=(0, 0, 0, 0)), "a.txt": b"nothing"})
    (pair,) = read_pairs(tmp_path / "job")
    assert image_of(tmp_path / "job", pair).getpixel((5, 5)) == (255, 255, 255)


def bomb() -> bytes:
    """8,000 x 10,000 pixels in a few kilobytes."""
    return picture((8_000, 10_000), "black")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x.png": picture()}, "an image without a caption of the same name"),
        ({"x.png": picture(), "x.txt": b" \n"}, "an empty caption"),
        ({"x.png": picture(), "x.txt": b"\xff\xfe\x00"}, "a caption that is no UTF-8"),
        ({"x.png": picture(), "x.txt": b"a" * 90_000}, "a file of over 40000 bytes"),
        ({"x.png": b"GIF89a", "x.txt": b"a"}, "no image of PNG, JPEG, WEBP"),
        ({"x.png": picture()[:40], "x.txt": b"a"}, "no image of PNG, JPEG, WEBP"),
        ({"x.png": picture((4, 400)), "x.txt": b"a"}, "an image of under 16 pixels a side"),
        ({"x.png": bomb(), "x.txt": b"a"}, "an image of over 64000000 pixels"),
        ({"x.png": bytes(70 << 20), "x.txt": b"a"}, "a file of over 67108864 bytes"),
    ],
    ids=["alone", "empty", "no text", "long", "gif", "cut", "thin", "pixels", "bytes"],
)
def test_a_bad_pair_is_left_out_and_counted(tmp_path: Path, files: Files, said: str) -> None:
    record = prepared(tmp_path, pairs(3) | files)
    assert {reason: each.count for reason, each in record.bad.items()} == {said: 1}
    assert record.usable == 3


def test_names_lead_nowhere(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", pairs(2))
    with zipfile.ZipFile(path, "a") as held:
        for name in ("../../up", "/etc/up", "C:\\up"):
            held.writestr(f"{name}.png", picture(colour="blue"))
            held.writestr(f"{name}.txt", name)
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = (S_IFLNK | 0o777) << 16
        held.writestr(link, "/etc/passwd")
        held.writestr("link.png", picture())
        held.writestr("__MACOSX/0.png", b"junk")
        held.writestr(".DS_Store", b"junk")
    record = prepared(tmp_path, path)
    assert record.usable == 5
    assert list(record.bad) == ["an image without a caption of the same name"]
    there = {each.name for each in tmp_path.rglob("*") if each.is_file()}
    assert there == {"a.zip", "data.json", "pairs.jsonl", *(f"{at:05d}.png" for at in range(5))}


@pytest.mark.parametrize(
    ("files", "limits", "said"),
    [
        ({}, {}, "0 of 0 pairs"),
        ({"a.csv": b"1"}, {}, 'no image with a caption among "a.csv"'),
        ({"a.png": picture()}, {}, "1 of 1 pairs that cannot be used"),
        (pairs(3), {"entries": 5}, "found 6 files in it, allowed are 5"),
        (pairs(3), {"bytes": 100}, "found over 100 bytes unpacked"),
    ],
)
def test_an_archive_of_no_use_is_told_of_in_a_line(
    tmp_path: Path, files: Files, limits: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError) as told:
        prepared(tmp_path, files, **limits)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "job" / "data" / "data.json").exists()


def test_no_archive_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(InputError, match="no archive that can be read"):
        prepared(tmp_path, tmp_path / "a.zip")
    with pytest.raises(InputError, match="no zip archive"):
        kind_of(b"[1, 2]", "x")
    assert kind_of(b"PK\x03\x04..", "x") == "zip"
    with pytest.raises(InputError, match="a file that is there"):
        prepared(tmp_path, tmp_path / "none.zip")


def test_pictures_that_are_all_alike_are_trained_on_and_judged_by(tmp_path: Path) -> None:
    files = {f"{at}.{end}": content for at in range(3)
             for end, content in (("png", picture()), ("txt", b"one"))}  # fmt: skip
    record = prepared(tmp_path, files)
    assert (record.train, record.held_out, record.held_out_is_train) == (3, 1, True)
