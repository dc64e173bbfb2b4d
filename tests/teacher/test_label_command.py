"""``python -m consensus_lib label``: the bundled photographs, and what is no photograph."""

import matplotlib.cbook
import pytest
from PIL import Image
from skimage import data as samples

from consensus_lib.__main__ import main
from consensus_lib.data import FaceDataset
from consensus_lib.data.folder import read_info
from consensus_lib.teacher.pseudo_labels import read_records
from synthetic_faces import Recipe, draw_face


@pytest.fixture
def astronaut(tmp_path):
    file = tmp_path / "astronaut.png"
    Image.fromarray(samples.astronaut()).save(file)
    return file


@pytest.mark.slow
def test_photographs_become_a_folder_to_train_on(astronaut, tmp_path, capsys):
    hopper = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    assert main(["label", str(astronaut), str(hopper), "--out", str(tmp_path / "o")]) == 0
    # The detector takes a helmet for a face; the confidence leaves it out.
    assert "2 faces labelled, 1 left out, of 2 of 2 photographs" in capsys.readouterr().out
    data = FaceDataset(tmp_path / "o", "train", "occlusion", progress=False)
    assert data.size == 128
    for sample in (data[0], data[1]):
        shares = [(sample["labels"] == number).float().mean() for number in range(3)]
        assert 0.1 < shares[1] < 0.4  # a face in the middle
        assert shares[2] < 0.05  # that nothing covers
    records = read_records(tmp_path / "o").set_index("id")
    assert set(records.index) - {row.id for row in data.rows} == {"00000 astronaut 2"}
    assert records.confidence.idxmin() == "00000 astronaut 2"


def test_what_covers_a_face_is_labelled(tmp_path):
    face = draw_face(7, 3, 160, recipe=Recipe(occluded=1.0, occluders=(("mask", 1.0),), most=1))
    Image.fromarray(face.image).save(tmp_path / "face.png")
    options = ["--whole", "--size", "96", "--confidence", "0"]
    assert main(["label", str(tmp_path / "face.png"), "--out", str(tmp_path / "o"), *options]) == 0
    found = FaceDataset(tmp_path / "o", "train", "occlusion", size=160, progress=False)[0]["labels"].numpy()
    truth = face.face & (face.labels == 11)
    assert ((found == 2) & truth).sum() / ((found == 2) | truth).sum() > 0.6


@pytest.mark.slow
def test_bad_photographs_cost_one_line_each_and_the_others_are_done(astronaut, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (200, 200)).save(tmp_path / "nobody.png")
    bad = [str(tmp_path / name) for name in ("broken.jpg", "nobody.png", "missing.png")]
    assert main(["label", *bad, "--out", str(tmp_path / "none")]) == 1
    assert not (tmp_path / "none").exists()
    capsys.readouterr()
    assert main(["label", *bad, str(astronaut), "--out", str(tmp_path / "o")]) == 1
    assert read_info(tmp_path / "o").counts == {"train": 1, "unlabelled": 1}
    lines = capsys.readouterr().err.splitlines()
    assert all(sum(line.startswith(f"{name}: ") for line in lines) == 1 for name in bad)


def test_a_folder_of_something_else_stays(astronaut, tmp_path, capsys):
    mine = tmp_path / "o/mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert main(["label", str(astronaut), "--out", str(mine.parent)]) == 1
    assert str(mine.parent) in capsys.readouterr().err
    assert list(mine.parent.iterdir()) == [mine]
