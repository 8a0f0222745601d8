"""The robustness table: what each disturbance of the history costs, and whether injected text is obeyed. Called by
robustness.sh.

    python eval/robustness.py --out outputs/robustness

Reads the copies that perturb.py wrote (OUT/data) and the summaries (OUT/summaries). Reads the reports of evaluate.py
with the default prompts (OUT/default) and the hardened ones (OUT/hardened). Writes robustness.md, robustness.html and
each table as LaTeX and CSV. A change is paired: the same users and targets, disturbed less undisturbed.
"""

from alignxplore.command import run
from alignxplore.evaluation.report.robustness import RobustnessOptions, write_robustness

if __name__ == "__main__":
    run(write_robustness, RobustnessOptions, __doc__)
