"""Tables and plots from results.json and scores.jsonl: Markdown, CSV, LaTeX and one self-contained HTML page.

    python eval/report.py --out outputs/eval          # evaluate.py does this at its end

Averages and differences are computed here from the scores, never copied. A number that is missing is shown as missing.
"""

from alignxplore.command import run
from alignxplore.evaluation.report.writing import ReportOptions, metrics_help, write_report

if __name__ == "__main__":
    run(write_report, ReportOptions, f"{__doc__}\n{metrics_help()}")
