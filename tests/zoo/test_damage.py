"""Weights files that are not what they should be."""

import h5py
import pytest
from zoo_entries import ARCHITECTURE, CARD, PAGE, WEIGHTS, refused, relabel, truncate

from keras_robust import models, zoo
from keras_robust.errors import InputError
from keras_robust.zoo.cards import Card


def alter(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": (truncate, "is truncated: .* bytes, valid: "),
    "altered": (alter, "was altered: its sha256 is .*, the card of mine says"),
    "web page": (lambda path: path.write_bytes(PAGE), "is not an HDF5 file: it is a web page"),
    "empty": (lambda path: path.write_bytes(b""), "is not an HDF5 file: it is empty"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04K\x01."), "is not an HDF5 file: it begins with"),
    "large": (lambda path: path.write_bytes(path.read_bytes() + b"more"), "is larger than its card says"),
    "absent": (lambda path: path.unlink(), "Cannot read .*No such file"),
}


@pytest.mark.parametrize("look", [zoo.load, zoo.verify, zoo.pull])
@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights(entry, look, damage, message):
    assert zoo.verify("mine") == entry / WEIGHTS
    damage(entry / WEIGHTS)
    with pytest.raises(InputError, match=message):
        look("mine")


def test_a_file_larger_than_its_card_is_not_read(entry, monkeypatch):
    alter(entry / WEIGHTS)
    with (entry / WEIGHTS).open("ab") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that nobody could read in the time of a test
    refused("larger than its card says: 1099511627776 bytes")


def test_damage_that_the_card_vouches_for(entry):
    truncate(entry / WEIGHTS)
    relabel(entry)
    refused("is not a whole HDF5 file")


@pytest.mark.parametrize(
    ("kept", "asked", "message"),
    [(True, False, "it has besides"), (False, True, "it lacks")],
    ids=["into a net without it", "missing from the file"],
)
def test_batch_norm_in_the_file_and_in_the_net(kept, asked, message):
    entry = zoo.save(models.build("vgg", width_multiplier=0.03, batch_norm=kept), "mine")
    relabel(entry, architecture={**Card.read(entry / CARD).architecture, "batch_norm": asked})
    refused(f"does not fit the architecture on its card: .*{message}")


def _bias(file) -> str:
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found[-1]


def swap(file, name, **dataset):
    del file[name]
    file.create_dataset(name, **dataset)


def link(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("elsewhere.h5", "/values")


MISFITS = {
    "missing": (lambda file, name: file.pop(name), "it lacks layers/"),
    "extra": (lambda file, name: file.create_dataset("more", data=1.0), "it has besides more"),
    "shape": (lambda file, name: swap(file, name, shape=(11,), dtype="f4"), r"it differs in .*\(11,\)"),
    "type": (lambda file, name: swap(file, name, shape=(10,), dtype="f8"), "it differs in .*float64"),
    "linked": (link, "it lacks layers/"),
    "external": (
        lambda file, name: swap(file, name, shape=(10,), dtype="f4", external="/dev/zero"),
        "are in another file",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_arrays_that_do_not_fit(entry, change, message):
    with h5py.File(entry / WEIGHTS, "a") as file:
        change(file, _bias(file))
    relabel(entry)
    refused(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "small_cnm"}, "Unknown architecture: 'small_cnm'. Did you mean 'small_cnn'"),
        ({"filtres": 3}, "Unknown option of mine: architecture: 'filtres'. Did you mean 'filters'"),
        ({"filters": "2"}, "architecture: filters must be an integer. Received: '2'"),
        ({"dtype": "bfloat16"}, "Unknown option of mine: architecture: 'dtype'"),
        ({"filters": 0}, "filters must be an integer >= 1"),
    ],
)
def test_an_architecture_that_cannot_be_built(entry, changes, message):
    relabel(entry, architecture={**ARCHITECTURE, **changes})
    refused(message)
