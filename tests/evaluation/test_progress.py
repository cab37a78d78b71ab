"""Progress that is told as work goes on."""

from keras_robust.evaluation.progress import each


def test_each_item_moves_the_bar_on_when_it_is_done():
    told = []

    def begin(name, total, done):
        told.append((name, total, done))
        return told.append

    for item in each(begin, "fit", ["er1", "lid"]):
        told.append(item)
    assert told == [("fit", 2, 0), "er1", 1, "lid", 1]
