"""Learning-rate schedules against their formulas."""

import numpy as np
import pytest

from keras_robust.errors import InputError
from keras_robust.schedules import schedules

RATE, STEPS, EPOCHS = 0.3, 7, 20
TOTAL = STEPS * EPOCHS


def rates(name, steps=STEPS, epochs=EPOCHS, **options):
    """The learning rate of every step of a run."""
    schedule = schedules[name](RATE, steps, epochs, **options)
    values = [float(schedule(step)) if callable(schedule) else schedule for step in range(steps * epochs)]
    return np.array(values)


@pytest.mark.parametrize("name", list(schedules))
@pytest.mark.parametrize(("steps", "epochs"), [(STEPS, EPOCHS), (1, 1), (3, 1), (1, 5)])
def test_every_rate_is_positive_and_at_most_the_one_asked_for(name, steps, epochs):
    values = rates(name, steps, epochs)
    assert np.isfinite(values).all() and (values > 0).all() and (values <= RATE * (1 + 1e-6)).all()


def test_constant():
    assert (rates("constant") == RATE).all()


@pytest.mark.parametrize(
    ("options", "epochs_of_drops"),
    [({}, [10, 15]), ({"at": [0.5, 0.75]}, [10, 15]), ({"at": [4, 6, 19]}, [4, 6, 19])],
)
def test_drops_come_with_the_first_step_of_their_epochs(options, epochs_of_drops):
    factor = 0.2
    epoch = np.arange(TOTAL) // STEPS
    drops = sum((epoch >= drop).astype(int) for drop in epochs_of_drops)
    np.testing.assert_allclose(rates("drops", factor=factor, **options), RATE * factor**drops, rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.99])
def test_one_cycle_rises_in_a_line_and_falls_as_a_cosine(warmup):
    step, rise = np.arange(TOTAL), round(warmup * TOTAL)
    rising = RATE / 25 + (RATE - RATE / 25) * step / max(rise, 1)
    falling = RATE * (1 + np.cos(np.pi * (step - rise) / (TOTAL - rise))) / 2
    expected = np.where(step < rise, rising, falling)
    np.testing.assert_allclose(rates("one_cycle", warmup=warmup), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("drops", {"at": [3, 2]}, "rising positive epochs, at least one. Received: [3, 2]"),
        ("drops", {"at": [0, 2]}, "Received: [0, 2]"),
        ("drops", {"at": []}, "at least one. Received: []"),
        ("drops", {"at": [0.75, 2]}, "Received: [0.75, 2] of 20 epochs"),
        ("one_cycle", {"warmup": 1.0}, "a share in [0, 1). Received: 1.0"),
        ("one_cycle", {"warmup": -0.1}, "Received: -0.1"),
    ],
)
def test_bad_options_are_told(name, options, words):
    with pytest.raises(InputError) as error:
        rates(name, **options)
    assert words in str(error.value)
