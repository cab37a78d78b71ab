"""The zoo: cards, weights files that are not what they should be, fetching, keeping, and all entries."""

import errno
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import yaml

import keras_robust
from keras_robust import data, models, zoo
from keras_robust.defenses import defenses
from keras_robust.errors import InputError
from keras_robust.evaluation import Outcome, Report
from keras_robust.evaluation.report import Stage
from keras_robust.packaged import packaged
from keras_robust.threat import NORMS
from keras_robust.zoo.cards import Card
from keras_robust.zoo.weights import sha256_and_size

CARD, WEIGHTS = "card.yaml", "model.weights.h5"
IMAGES = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
ARCHITECTURE = {"name": "small_cnn", "filters": 2, "hidden": 4, "input_shape": [8, 8, 1], "num_classes": 10}
CARD_VALUES = {
    "name": "mine",
    "architecture": ARCHITECTURE,
    "dataset": "digits",
    "threat": {"norm": "linf", "eps": 0.1, "step_size": 0.01},
    "results": {"clean": 97.5, "worst_case": 60},
    "paper": {"source": "Table 1", "results": {"pgd-20": 50.0}},
    "sha256": "0" * 64,
    "size": 5,
}
PAGE = b"<!DOCTYPE html><html><title>404</title></html>"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's zoo and cache, empty."""
    monkeypatch.setenv("KERAS_ROBUST_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("KERAS_ROBUST_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def classifier():
    return models.build("small_cnn", filters=2, hidden=4)


@pytest.fixture
def entry(classifier):
    """The directory of the one entry, "mine"."""
    return zoo.save(classifier, "mine")


def relabel(entry: Path, **changes) -> Card:
    """Change an entry's card, by default so that its hash and size fit its weights again."""
    card = replace(Card.read(entry / CARD), **(changes or sha256_and_size(entry / WEIGHTS)))
    card.write(entry / CARD)
    return card


def refused(message: str, name: str = "mine") -> None:
    with pytest.raises(InputError, match=message):
        zoo.load(name)


# Cards


def test_a_card_survives_writing_and_reading(tmp_path):
    card = Card.from_dict(CARD_VALUES)
    card.write(tmp_path / CARD)
    assert Card.read(tmp_path / CARD) == card
    assert card.results["worst_case"] == 60
    assert (card.input_shape, card.num_classes, card.norm) == ((8, 8, 1), 10, "linf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datset": "digits"}, "card.yaml: 'datset'. Did you mean 'dataset'"),
        ({"results": {"clean": 101}}, "results: clean must be an accuracy in percent.*Received: 101"),
        ({"results": {"clean": float("nan")}}, "results: clean .*Received: nan"),
        ({"results": {"clean": "97"}}, "results: clean .*Received: '97'"),
        ({"results": 97}, "results must be .*Received: 97"),
        ({"paper": {"source": "Table 1", "results": {"pgd": -1}}}, "paper: results: pgd .*Received: -1"),
        ({"paper": {"results": {}}}, "paper lacks source"),
        ({"threat": {"norm": "linf"}}, "threat lacks eps"),
        ({"threat": {"norm": "linf", "eps": "8/255"}}, "threat: eps must be a number. Received: '8/255'"),
        ({"threat": {"norm": "linf", "eps": -0.1}}, "threat: eps must be a finite number >= 0"),
        ({"training": {"recipe": "r", "profile": "laptop", "epochs": "9"}}, "epochs must be an integer"),
        ({"architecture": {"name": "small_cnn"}}, "architecture lacks input_shape, num_classes"),
        ({"architecture": {**ARCHITECTURE, "num_classes": 0}}, "must be at least 1"),
        ({"architecture": {**ARCHITECTURE, "input_shape": ["8"]}}, r"input_shape .*Received: \['8'\]"),
        ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits .*Received: 'abc'"),
        ({"size": 0}, "size must be the bytes .*Received: 0"),
        ({"size": 1.5}, "size must be an integer"),
        ({"url": "ftp://host/file"}, "url must begin with http://, https://, file://.*Received: 'ftp:"),
        ({"name": "../mine"}, "name must be letters.*Received: '../mine'"),
        ({"name": 7}, "name must be text. Received: 7"),
    ],
)
def test_a_card_says_which_value_is_wrong(tmp_path, changes, message):
    path = tmp_path / CARD
    path.write_text(yaml.safe_dump({**CARD_VALUES, **changes}))
    with pytest.raises(InputError, match=message) as error:
        Card.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", ["name", "architecture"])
def test_a_card_must_not_lack(key):
    with pytest.raises(InputError, match=f"lacks {key}"):
        Card.from_dict({other: value for other, value in CARD_VALUES.items() if other != key})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"- 1\n- 2", "a card is a mapping"),
        (b"name: [", "not valid YAML"),
        (b"name: \xff", "Cannot read"),
        (b"name: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_card(tmp_path, text, message):
    (tmp_path / CARD).write_bytes(text)
    with pytest.raises(InputError, match=message):
        Card.read(tmp_path / CARD)


# Lookup


def test_names_and_filters(classifier):
    for name, changes in {
        "one": {"dataset": "digits", "defense": "trades", "threat": {"norm": "linf", "eps": 0.1}},
        "two": {"dataset": "digits", "defense": "standard", "threat": {"norm": "l2", "eps": 1.0}},
        "bare": {},
    }.items():
        relabel(zoo.save(classifier, name), **changes or {"notes": "no more is known"})
    assert {"one", "two", "bare"} <= set(zoo.names())

    def found(**filters):
        return {card.name for card in zoo.list(**filters)} & {"one", "two", "bare"}

    assert found() == found(architecture="small_cnn") == {"one", "two", "bare"}
    assert found(dataset="digits") == {"one", "two"}
    assert found(dataset="digits", norm="l2") == found(defense="standard") == {"two"}
    assert found(dataset="fashion_mnist") == found(defense="adr", norm="l2") == set()
    with pytest.raises(InputError, match=r"Unknown dataset in the zoo: 'digit'. Did you mean 'digits'"):
        zoo.list(dataset="digit")


@pytest.mark.parametrize("look", [zoo.card, zoo.load, zoo.verify, zoo.pull])
def test_an_unknown_name_gets_close_matches(entry, look):
    with pytest.raises(InputError, match=r"Unknown model in the zoo: 'mime'. Did you mean 'mine'"):
        look("mime")


def test_a_card_must_bear_the_name_of_its_directory(entry):
    entry.rename(entry.with_name("yours"))
    with pytest.raises(InputError, match=r"must be that of its directory, 'yours'. Received: 'mine'"):
        zoo.card("yours")


def test_looking_does_not_import_tensorflow(entry):
    code = """
import sys, keras_robust as kr
assert kr.zoo.list() and kr.zoo.card("mine").name and kr.zoo.verify("mine")
assert not {"tensorflow", "keras", "h5py", "numpy"} & set(sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(keras_robust.__file__).parents[1],
    )
    assert run.returncode == 0, run.stderr


def test_references(entry, tmp_path, classifier, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    zoo.write(run, classifier, zoo.describe(classifier, "other"))
    (tmp_path / "exported").mkdir()
    for path in ("m.keras", "m.tflite", "exported/saved_model.pb"):
        (tmp_path / path).touch()
    assert zoo.resolve("mine") == ("zoo", entry, None)
    assert zoo.resolve("run") == ("directory", Path("run"), None)
    assert zoo.resolve(run).kind == "directory"
    assert [zoo.resolve(path).kind for path in ("m.keras", "m.tflite", "exported")] == [
        "keras",
        "tflite",
        "saved_model",
    ]
    with pytest.raises(InputError, match=r"Unknown model .*'minne'. Did you mean 'mine'"):
        zoo.resolve("minne")
    with pytest.raises(InputError, match=r"no model at .*Valid: a directory with card.yaml"):
        zoo.resolve(tmp_path / "zoo")
    assert zoo.open_model(run)[1].name == "other"
    with pytest.raises(InputError, match="is an export"):
        zoo.open_model("m.tflite")
    with pytest.raises(InputError, match=r"m\.keras cannot be loaded"):
        zoo.open_model("m.keras")


def test_open_keras_file(classifier, tmp_path):
    classifier.save(tmp_path / "m.keras")
    model, card = zoo.open_model(tmp_path / "m.keras")
    assert card is None
    np.testing.assert_array_equal(model(IMAGES), classifier(IMAGES))


def test_code_in_a_keras_file_does_not_run(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(InputError, match="cannot be loaded"):
        zoo.open_model(tmp_path / "m.keras")


# Keeping and loading


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small_cnn", {"filters": 2}),
        ("small_cnn", {"dtype": "bfloat16"}),
        ("small_cnn", {"dtype": "mixed_bfloat16"}),
        ("cnn_4c3f", {"filters": 2, "hidden": 4, "latent": "2C", "input_shape": (16, 16, 1)}),
        ("vgg", {"width_multiplier": 0.03, "num_classes": 3}),
        ("mlp", {}),
    ],
)
def test_what_is_loaded_is_what_was_saved(name, options):
    kept = models.build(name, **options)
    rng = np.random.default_rng(0)
    drawn = (rng.normal(0.5, 0.1, weight.shape).astype(weight.dtype) for weight in kept.get_weights())
    kept.set_weights(list(drawn))
    zoo.save(kept, "mine")
    loaded = zoo.load("mine")
    assert loaded.card == zoo.card("mine")
    assert {layer.compute_dtype for layer in loaded._flatten_layers()} == {"float32"}
    for found, expected in zip(loaded.get_weights(), kept.get_weights(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    if "dtype" not in options:
        images = rng.random((2, *loaded.input_shape[1:]), np.float32)
        np.testing.assert_array_equal(loaded(images), kept(images))


def test_weights_that_half_precision_holds_are_kept_in_it():
    whole, rounded = (models.build("vgg", width_multiplier=0.1) for _ in range(2))
    weights = [weight.astype("float16") for weight in whole.get_weights()]
    rounded.set_weights(weights)
    sizes = [card_of(name, model).size for name, model in (("whole", whole), ("half", rounded))]
    assert sizes[1] < 0.65 * sizes[0], "with what HDF5 needs for itself"
    for found, expected in zip(zoo.load("half").get_weights(), rounded.get_weights(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def card_of(name, model):
    zoo.save(model, name)
    return zoo.card(name)


def test_the_card_says_what_is_known(classifier):
    recipe = SimpleNamespace(
        name="at_digits",
        profile="smoke",
        description="A sentence.",
        dataset="digits",
        defense={"name": "trades", "beta": 6.0},
        threat={"norm": "linf", "eps": 0.1, "step_size": 0.02},
        epochs=3,
        seed=4,
        digest="0123456789abcdef",
        paper=None,
    )
    rows = np.arange(200)
    outcomes = {
        "clean": Outcome((rows >= 1) & (rows < 195)),
        "autoattack": Outcome(rows < 122, stages={"apgd-ce": Stage(rows < 130), "square": Stage(rows < 122)}),
        "ddn-100": Outcome(rows < 0, counted=False),
    }
    report = Report(
        outcomes,
        dataset="digits",
        indices=rows,
        threat={"norm": "linf", "eps": 0.1},
        flags=["Beware."],
        seed=5,
        versions={"keras": "3.15"},
    )
    zoo.save(classifier, "mine", recipe=recipe, report=report)
    card = zoo.card("mine")
    assert card.results == {"clean": 97.0, "autoattack": 61.0, "worst_case": 60.5}
    assert card.flags == ["Beware."]
    assert card.evaluation["stages"] == {"autoattack": {"apgd-ce": 65.0, "square": 61.0}}
    assert card.defense == "trades" and card.dataset == "digits" and card.description == "A sentence."
    assert card.threat == {"norm": "linf", "eps": 0.1, "step_size": 0.02}
    assert card.training["recipe"] == "at_digits" and card.training["seed"] == 4
    assert card.training["digest"] == "0123456789abcdef"
    attacks = "--attack autoattack --attack ddn-100"
    assert card.evaluation["command"] == f"krobust evaluate mine {attacks} --examples 200 --seed 5"
    assert card.architecture == ARCHITECTURE
    zoo.save(classifier, "untrained", report=report)
    assert zoo.card("untrained").threat == {"norm": "linf", "eps": 0.1}


def test_an_entry_is_not_overwritten_unasked(entry):
    other = models.build("small_cnn", filters=2, hidden=4)
    with pytest.raises(InputError, match=r"is an entry already. Pass overwrite=True"):
        zoo.save(other, "mine")
    zoo.save(other, "mine", overwrite=True)
    np.testing.assert_array_equal(zoo.load("mine")(IMAGES), other(IMAGES))


def test_a_packaged_name_is_taken(classifier, tmp_path, monkeypatch):
    (tmp_path / "packaged" / "theirs").mkdir(parents=True)
    monkeypatch.setattr("keras_robust.zoo.saving.packaged", lambda kind: tmp_path / "packaged")
    with pytest.raises(InputError, match="theirs is a packaged entry"):
        zoo.save(classifier, "theirs")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_bad_names(classifier, name):
    with pytest.raises(InputError, match="name must be letters"):
        zoo.save(classifier, name)


def test_only_built_classifiers_are_kept(conv_classifier):
    with pytest.raises(InputError, match=r"Only a classifier built by kr.models.build"):
        zoo.save(conv_classifier, "mine")


def test_a_card_of_another_architecture_is_refused(classifier, tmp_path):
    card = zoo.describe(models.build("small_cnn", filters=3), "mine")
    with pytest.raises(InputError, match="not of the architecture on its card"):
        zoo.write(tmp_path / "run", classifier, card)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", ["keras.Model.save_weights", "keras_robust.zoo.cards.Card.write"])
def test_a_full_disk_leaves_the_old_entry(entry, classifier, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(step, full)
        with pytest.raises(InputError, match="No space left"):
            zoo.save(classifier, "mine", overwrite=True)
    zoo.verify("mine")
    assert sorted(path.name for path in entry.iterdir()) == [CARD, WEIGHTS]


def test_a_place_that_cannot_be_written(classifier, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"):
        zoo.save(classifier, "mine", directory=tmp_path / "file")


def test_an_unknown_variant(entry):
    with pytest.raises(InputError, match=r"Unknown variant of mine: 'imt'"):
        zoo.load("mine", variant="imt")


# Weights files that are not what they should be


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


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
        ({"filters": 0}, "filters must be positive"),
    ],
)
def test_an_architecture_that_cannot_be_built(entry, changes, message):
    relabel(entry, architecture={**ARCHITECTURE, **changes})
    refused(message)


# Fetching


@pytest.fixture
def remote(entry, tmp_path):
    """Gives the entry a URL in place of its weights file; returns the file, elsewhere now."""

    def move(url=None) -> Path:
        moved = tmp_path / "remote.weights.h5"
        shutil.move(entry / WEIGHTS, moved)
        relabel(entry, url=url or moved.as_uri())
        return moved

    return move


@pytest.fixture
def server():
    """Serves `pages` (path: status, chunks, announced length) on the loopback, and counts requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests += 1
            status, content, length = server.pages[self.path]
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            try:
                for chunk in content:
                    self.wfile.write(chunk)
            except ConnectionError:
                server.cut = True

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.requests, server.cut = {}, 0, False
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def cached(home) -> list[Path]:
    return sorted(path for path in home.glob("cache/**/*") if path.is_file())


def test_fetch_from_a_file_then_offline(remote, classifier, home):
    with pytest.raises(InputError, match="were not fetched yet: krobust zoo pull mine"):
        moved = remote()
        zoo.verify("mine")
    np.testing.assert_array_equal(zoo.load("mine")(IMAGES), classifier(IMAGES))
    moved.unlink()
    assert [zoo.pull("mine")] == [zoo.verify("mine")] == cached(home)
    np.testing.assert_array_equal(zoo.load("mine")(IMAGES), classifier(IMAGES))


def test_fetch_over_http_once(remote, server, home):
    content = remote(f"{server.url}/weights").read_bytes()
    server.pages["/weights"] = (200, [content], len(content))
    seen = []
    path = zoo.pull("mine", progress=lambda received, total: seen.append((received, total)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == zoo.card("mine").sha256
    assert seen[-1] == (len(content), len(content))
    zoo.load("mine")
    assert server.requests == 1
    truncate(path)
    assert zoo.pull("mine") == path and server.requests == 2, "a damaged copy is fetched again"
    assert zoo.verify("mine") == path


def wrong(content: bytes):
    """Answers of a server that are not the file: (status, chunks, announced length), message."""
    return {
        "missing": ((404, [PAGE], len(PAGE)), "Cannot fetch http.*404"),
        "web page": ((200, [PAGE], len(PAGE)), "http.*is not an HDF5 file: it is a web page"),
        "altered": ((200, [content[:-1], b"x"], len(content)), "http.*was altered"),
        "cut off": ((200, [content[:5000]], len(content)), "http.*is truncated"),
        "endless": ((200, (bytes(1 << 16) for _ in range(10**6)), None), "http.*is larger than its card"),
    }


@pytest.mark.parametrize("answer", wrong(b"."))
@pytest.mark.parametrize("look", [zoo.pull, zoo.load])
def test_what_is_not_the_file_is_not_kept(remote, server, home, look, answer):
    content = remote(f"{server.url}/weights").read_bytes()
    server.pages["/weights"], message = wrong(content)[answer]
    with pytest.raises(InputError, match=message):
        look("mine")
    assert cached(home) == []


def test_an_unreachable_host(remote, home):
    remote("http://127.0.0.1:1/weights")
    refused("Cannot fetch http://127.0.0.1:1/weights")
    assert cached(home) == []


def test_a_url_that_is_none(remote):
    remote("http://[")
    refused("Cannot fetch http://")


def test_an_interrupted_fetch_keeps_nothing(remote, home):
    remote()

    def interrupt(received, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.pull("mine", progress=interrupt)
    assert cached(home) == []
    zoo.pull("mine")
    assert len(cached(home)) == 1


# Every packaged entry

PACKAGED = sorted(path.parent.name for path in packaged("zoo").glob(f"*/{CARD}"))
MAX_BYTES = 10_000_000


@pytest.mark.parametrize("name", PACKAGED)
class TestPackaged:
    def test_card(self, name):
        card = zoo.card(name)
        info = data.info(card.dataset)
        assert (info.image_shape, info.num_classes) == (card.input_shape, card.num_classes)
        assert card.defense in defenses and card.norm in NORMS and card.threat["eps"] > 0
        assert card.description and card.license and card.training and card.evaluation
        assert card.evaluation["command"].startswith(f"krobust evaluate {name} ")
        assert 0 <= card.results["worst_case"] <= min(card.results.values())
        assert 1 < card.results["clean"] <= 100, "percent"

    def test_size(self, name):
        entry = packaged("zoo") / name
        assert sum(path.stat().st_size for path in entry.iterdir()) < MAX_BYTES

    def test_weights(self, name):
        if zoo.card(name).url is None:
            assert zoo.verify(name).parent == packaged("zoo") / name

    def test_loads(self, name):
        card = zoo.card(name)
        if card.url is not None:
            pytest.skip(f"the weights of {name} are fetched from {card.url}")
        loaded = zoo.load(name)
        assert loaded.input_shape == (None, *card.input_shape)
        logits = np.asarray(loaded(np.random.default_rng(0).random((2, *card.input_shape), np.float32)))
        assert logits.shape == (2, card.num_classes) and logits.dtype == np.float32
        assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("adaptive", "words"),
    [
        ([{"name": "crossentropy"}], "mine: adaptive: Unknown objective: 'crossentropy'"),
        ([{"name": "margin", "confidense": 1.0}], "mine: adaptive: .*'confidense'"),
        ([{"weight": 1.0}], 'mine: adaptive: .*needs a "name"'),
    ],
)
def test_objectives_on_a_card_are_checked(entry, adaptive, words):
    values = yaml.safe_load((entry / CARD).read_text())
    (entry / CARD).write_text(yaml.safe_dump({**values, "adaptive": adaptive}))
    with pytest.raises(InputError, match=words):
        zoo.load("mine")


def test_a_loaded_classifier_brings_the_objectives_of_its_card():
    classifier = models.build("small_cnn", filters=2, hidden=4)
    object.__setattr__(classifier, "adaptive", [{"name": "margin", "confidence": 2.0}])
    zoo.save(classifier, "brings")
    assert zoo.load("brings").adaptive == [{"name": "margin", "confidence": 2.0}]
