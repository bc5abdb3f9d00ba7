"""Execute a notebook in a kernel of its own; print what it printed, as JSON: a text for each cell.

python run_notebook.py NOTEBOOK FOLDER
"""

import json
import sys

import nbformat
from nbclient import NotebookClient

file, folder = sys.argv[1:]
notebook = nbformat.read(file, as_version=4)
NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
print(json.dumps({"cells": cells}))
