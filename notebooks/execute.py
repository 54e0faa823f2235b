"""Runs every notebook from top to bottom; an error in a cell is an error here.

Two run at once, since a notebook seldom keeps two cores busy.

python notebooks/execute.py            (checks them)
python notebooks/execute.py --write    (stores the outputs as well)
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path: Path, write: bool) -> None:
    """Runs one notebook in a fresh kernel, in the directory it lies in."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=600, resources=resources)
    client.execute()
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times, new at every run
        nbformat.write(notebook, path)
    print(f"{path.name}: {len(notebook.cells)} cells ran", flush=True)


def main() -> None:
    """Runs all notebooks beside this file."""
    paths = sorted(Path(__file__).parent.glob("*.ipynb"))
    write = ["--write" in sys.argv[1:]] * len(paths)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(execute, paths, write):  # raises what one has raised
            pass


if __name__ == "__main__":
    main()
