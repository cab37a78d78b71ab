"""Files and directories are whole or absent."""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from limits import full_disk

from keras_robust import models
from keras_robust.errors import InputError
from keras_robust.files import read_yaml, replacing, save_weights, write_text


def write(draft, kind, text):
    """Write `text` as a file, or into a file of a directory."""
    if kind == "directory":
        draft.mkdir()
        draft = draft / "inside"
    draft.write_text(text)


def content(path):
    return path.read_text() if path.is_file() else {file.name: file.read_text() for file in path.iterdir()}


@pytest.fixture(params=["file", "directory"])
def kind(request):
    return request.param


def test_a_draft_has_the_name_of_what_it_replaces_and_takes_its_place(tmp_path, kind):
    path = tmp_path / "new" / "deep" / "note.weights.h5"
    for text in ("first", "second"):
        with replacing(path) as draft:
            assert draft.name == path.name and draft != path and not draft.exists()
            write(draft, kind, text)
            assert not path.exists() or content(path) != text
        assert content(path) == (text if kind == "file" else {"inside": text})
    assert os.listdir(path.parent) == [path.name], "nothing else is left"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("exists", [True, False])
def test_after_an_error_all_is_as_it_was(tmp_path, kind, error, exists):
    path = tmp_path / "note"
    if exists:
        write(path, kind, "old")
    with pytest.raises(InputError if error is OSError else error), replacing(path) as draft:
        write(draft, kind, "half")
        raise error("stop")
    if exists:
        assert content(path) == ("old" if kind == "file" else {"inside": "old"})
    assert os.listdir(tmp_path) == (["note"] if exists else [])


def test_a_block_that_writes_nothing_takes_nothing_away(tmp_path, kind):
    path = tmp_path / "note"
    write(path, kind, "old")
    with pytest.raises(InputError, match=r"Cannot write .*note"), replacing(path):
        pass
    assert content(path) == ("old" if kind == "file" else {"inside": "old"})
    assert os.listdir(tmp_path) == ["note"]


def test_a_file_never_takes_the_place_of_a_directory(tmp_path):
    path = tmp_path / "results"
    write(path, "directory", "precious")
    with pytest.raises(InputError, match=r"Cannot write .*results: Is a directory\."):
        write_text(path, "report")
    assert content(path) == {"inside": "precious"}


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "note"
    path.write_text("old")
    with full_disk(), pytest.raises(InputError, match=r"Cannot write .*note: "):
        write_text(path, "x" * 100_000)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["note"]


def test_a_place_below_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Cannot write .*file/note: "):
        write_text(tmp_path / "file" / "note", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_may_not_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"Cannot write .*note: Permission denied"):
        write_text(tmp_path / "note", "x")


def test_only_true_and_false_are_truth_values_in_yaml(tmp_path):
    (tmp_path / "options.yaml").write_text("on: off\nyes: no\nplain: [true, False]\n")
    assert read_yaml(tmp_path / "options.yaml") == {"on": "off", "yes": "no", "plain": [True, False]}


def test_weights_are_not_begun_where_there_is_no_room(tmp_path, monkeypatch):
    model = models.build("small_cnn")
    size = 4 * model.count_params()
    for free, fits in ((size, False), (size + 2**21, True)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        with nullcontext() if fits else pytest.raises(InputError, match=r"Cannot write m.weights.h5: .*left"):
            save_weights(model, tmp_path / "m.weights.h5")
        assert os.listdir(tmp_path) == (["m.weights.h5"] if fits else [])
