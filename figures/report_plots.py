"""The plots of an evaluation report as PNG files: accuracy by benchmark, by kind of row and by length of summary;
confidence by the order of the items; reliability. (report.html holds the same.)

    python figures/report_plots.py --results outputs/eval --out outputs/eval/figures
"""

from alignxplore.command import run
from alignxplore.evaluation.report.plots import PlotsOptions, write_plots

if __name__ == "__main__":
    run(write_plots, PlotsOptions, __doc__)
