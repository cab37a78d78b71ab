"""`krobust train ...` that is killed after a step: a script, because a killed process tells no more."""

import signal
import sys

from small_runs import sending

from keras_robust.cli import main

with sending(signal.SIGKILL, after_step=int(sys.argv[1])):
    main(sys.argv[2:])
