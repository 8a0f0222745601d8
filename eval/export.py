"""Summaries and scores as Parquet with a data card, for sharing: a folder hub/. Nothing is uploaded unless --push is
given.

    python eval/export.py --out outputs/eval
    python eval/export.py --out outputs/eval --report outputs/eval/tables/main      # after main_table.sh
    python eval/export.py --out outputs/eval --texts none               # where the terms of the data forbid texts
    python eval/export.py --out outputs/eval --push OWNER/NAME          # needs a login (HF_TOKEN)

Comes after evaluate.py, whose choice of --texts holds here, too, unless another one is given.
"""

from alignxplore.command import run
from alignxplore.evaluation.export import ExportOptions, export

if __name__ == "__main__":
    run(export, ExportOptions, __doc__)
