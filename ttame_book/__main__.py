"""Papermill's command line, which starts faster after the package is loaded: see its first lines.

python -m ttame_book notebooks/03_train.ipynb out.ipynb -p backbone demo_vit
"""

from papermill.cli import papermill

papermill()
