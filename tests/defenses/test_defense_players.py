"""Two players: each move updates its own, every optimizer has its own state."""

import keras
import numpy as np
import pytest
from defense_building import Duel, batch, build, clip

from keras_robust.defenses import Move
from keras_robust.errors import InputError

IMAGES, LABELS = batch()


def duel(moves=None, *, optimizer=None, optimizers=None, dtype=None, **options):
    made = build(Duel, dtype=dtype, **options)
    if moves is not None:
        made.moves = lambda: moves(made)
    made.compile(optimizer or keras.optimizers.SGD(0.1), optimizers=optimizers, run_eagerly=True)
    return made


def fit(defense, **options):
    return defense.fit(IMAGES, LABELS, batch_size=4, shuffle=False, verbose=0, **options)


def weights(defense):
    return {player: model.get_weights() for player, model in defense.players().items()}


MOVES = {
    "critic": lambda d: [Move(d.critic_loss, players=("critic",))],
    "classifier": lambda d: [Move(d.loss_terms)],
    "both": lambda d: [Move(d.peace, players=("classifier", "critic"))],
}


@pytest.mark.parametrize("move", MOVES)
def test_a_move_updates_only_its_own_players(move):
    defense = duel()
    before = weights(defense)
    only = MOVES[move](defense)[0]
    one = defense._batch((IMAGES, LABELS), training=True)
    defense._descend(only, one)
    after = weights(defense)
    for player in defense.players():
        changed = any((a != b).any() for a, b in zip(before[player], after[player], strict=True))
        assert changed == (player in only.players)
        assert int(defense.optimizer_of(player).iterations) == (player in only.players)


def test_moves_are_made_in_order_and_repeated():
    defense = duel()
    history = fit(defense).history  # two batches: 2 + 1 critic and 1 + 1 classifier steps in each
    assert int(defense.step) == 2
    assert int(defense.optimizer_of("critic").iterations) == 6
    assert int(defense.optimizer.iterations) == 4
    assert {"loss", "clean", "critic", "peace"} <= set(history)


def test_a_move_descends_its_weighted_loss():
    """The critic is linear in its weights, so its gradient is known in closed form."""
    defense = duel(MOVES["critic"])
    start = weights(defense)["critic"]
    one = defense._batch((IMAGES, LABELS), training=True)
    scores = [defense.classifier.predict(images, verbose=0) for images in (one.adversarial, IMAGES)]
    defense._descend(MOVES["critic"](defense)[0], one)
    gradient = 0.5 * (scores[0].mean(0) - scores[1].mean(0))[:, None]
    np.testing.assert_allclose(weights(defense)["critic"][0], start[0] - 0.1 * gradient, atol=1e-6)


def test_the_constraint_holds_after_each_step():
    largest = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            largest.append(max(abs(weight).max() for weight in self.model.critic.get_weights()))

    defense = duel(lambda d: [Move(d.critic_loss, players=("critic",), repeat=2, constraint=clip)])
    assert max(abs(weight).max() for weight in defense.critic.get_weights()) > 0.01
    fit(defense, callbacks=[Watch()])
    assert len(largest) == 2
    assert max(largest) <= np.float32(0.01)


def test_optimizers_are_picked_by_player():
    defense = duel(optimizer=keras.optimizers.SGD(0.1), optimizers={"critic": keras.optimizers.Adam(0.5)})
    assert isinstance(defense.optimizer, keras.optimizers.SGD)
    assert isinstance(defense.optimizer_of("critic"), keras.optimizers.Adam)
    assert defense.optimizer_of("classifier") is defense.optimizer

    copied = duel(optimizer=keras.optimizers.Adam(0.25))
    assert copied.optimizer_of("critic") is not copied.optimizer
    assert float(copied.optimizer_of("critic").learning_rate) == 0.25

    for player in ("critics", "classifier"):
        with pytest.raises(InputError, match=f"Unknown further player: '{player}'.*Valid: critic"):
            duel(optimizers={player: "adam"})


def test_averages_of_both_players():
    seen = {"classifier": [], "critic": []}

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for player, model in self.model.players().items():
                seen[player].append(model.get_weights())

    averaging = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    defense = duel(lambda d: [*MOVES["critic"](d), *MOVES["classifier"](d)], optimizer=averaging)
    fit(defense, epochs=2, callbacks=[Record()])
    for player, model in defense.players().items():
        average = seen[player][0]
        for later in seen[player][1:]:
            average = [0.5 * a + 0.5 * w for a, w in zip(average, later, strict=True)]
        for weight, expected in zip(model.get_weights(), average, strict=True):
            np.testing.assert_allclose(weight, expected, atol=1e-6, err_msg=player)


def test_averages_may_be_kept_for_one_player_only():
    averaging = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.99)
    defense = duel(optimizers={"critic": averaging})
    before = []
    last = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: before.append(weights(defense)))
    fit(defense, callbacks=[last])
    for weight, kept in zip(defense.classifier.get_weights(), before[0]["classifier"], strict=True):
        np.testing.assert_array_equal(weight, kept)
    for weight, average in zip(
        defense.critic.trainable_variables, averaging._model_variables_moving_average, strict=True
    ):
        np.testing.assert_array_equal(weight, average)


def test_float16_players_that_descend_together_may_have_different_scales():
    ends = []
    for scale in (2.0**10, 2.0**4):
        critic = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=scale)
        defense = duel(MOVES["both"], optimizers={"critic": critic}, dtype="mixed_float16")
        defense._descend(MOVES["both"](defense)[0], defense._batch((IMAGES, LABELS), training=True))
        assert float(defense.optimizer.dynamic_scale) != scale
        ends.append(weights(defense))
    assert any((a != b).any() for a, b in zip(weights(duel())["critic"], ends[0]["critic"], strict=True))
    for player in ends[0]:
        for one, other in zip(ends[0][player], ends[1][player], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_move_without_a_term_left_is_not_made():
    defense = duel(peace=0.0)
    history = fit(defense).history
    assert "peace" not in history
    assert int(defense.optimizer_of("critic").iterations) == 4
    assert int(defense.optimizer.iterations) == 2
