"""The plots of an evaluation report, as figures or as SVG text for a page that needs no other file. Used by
eval/html_report.py.

python figures/report_plots.py --results outputs/eval --out outputs/eval/figures
"""

from alignxplore.evaluation.report.plots import main

if __name__ == "__main__":
    main()
