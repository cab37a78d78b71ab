"""Studies: a paper's table or figure as data that one command repeats, ours beside the paper's."""

from keras_robust.studies import detecting, looking  # noqa: F401  (they register their measures)
from keras_robust.studies.measures import Subject as Subject
from keras_robust.studies.measures import measures as measures
from keras_robust.studies.reproducing import reproduce as reproduce
from keras_robust.studies.results import Cell as Cell
from keras_robust.studies.results import Results as Results
from keras_robust.studies.study import Study as Study
from keras_robust.studies.study import describe as describe
from keras_robust.studies.study import load as load
from keras_robust.studies.study import names as names
