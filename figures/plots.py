"""Plot of an evaluation: accuracy by stage of training. (RL steps: figures/rl_curves.py.)

    python figures/plots.py --results outputs/eval/results.json --out outputs/figures

Says so where there is nothing to draw. `quickstart.sh` calls it at its end.
"""

from alignxplore.errors import one_sentence
from alignxplore.evaluation.report.stages import main

if __name__ == "__main__":
    with one_sentence():
        main()
