"""Plot of an evaluation: accuracy by stage of training. (RL steps: figures/rl_curves.py.)

    python figures/plots.py --results outputs/eval/results.json --out outputs/figures

Says so where there is nothing to draw. `quickstart.sh` calls it at its end.
"""

from alignxplore.command import run
from alignxplore.evaluation.report.stages import StagesOptions, draw_stages

if __name__ == "__main__":
    run(draw_stages, StagesOptions, __doc__)
