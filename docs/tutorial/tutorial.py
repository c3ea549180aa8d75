"""Runs the cells of notebook.py and writes the tutorial page with their outputs and figures.

    python docs/tutorial/tutorial.py [--out DIR] [--samples PATH]

--out defaults to the directory of this file, --samples to $MARKET_DATA_SAMPLES. Without recordings the simulated market
stands in, and the page says so. The page is `tutorial.md`, the figures are next to it.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
NOTEBOOK: Final = HERE / "notebook.py"
_NOTE: Final = "<!-- Written by docs/tutorial/tutorial.py from notebook.py; edit that and run it again. -->\n"
_CELL: Final = "# %%"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the notebook; `line` is where its text begins."""

    is_text: bool
    text: str
    line: int


def cells(source: str) -> Iterator[Cell]:
    """The cells of a script in the `# %%` format."""
    lines = source.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(_CELL)]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        is_text = "[markdown]" in lines[start]
        body = [line.removeprefix("#").removeprefix(" ") if is_text else line for line in lines[start + 1 : stop]]
        yield Cell(is_text, "\n".join(body).strip("\n"), start + 2)


def page(source: str, figures: Path) -> str:
    """Run all cells in one namespace; text cells may say `{expression}` of it. Figures are saved by their name."""
    namespace: dict[str, Any] = {"__name__": "notebook"}
    parts = [_NOTE]
    for cell in cells(source):
        if cell.is_text:
            parts.append(_filled(cell, namespace) + "\n")
            continue
        parts.append(f"```python\n{cell.text}\n```\n")
        printed = _run(cell, namespace)
        if printed:
            parts.append(f"```text\n{printed}\n```\n")
        parts += [f"![{name}]({name}.png)\n" for name in _save_figures(figures)]
    return "\n".join(parts)


def _filled(cell: Cell, namespace: dict[str, Any]) -> str:
    code = compile('f"""' + cell.text + '"""', str(NOTEBOOK), "eval")
    return str(eval(code, namespace))


def _run(cell: Cell, namespace: dict[str, Any]) -> str:
    # Line numbers of the file, so that a traceback points to the cell.
    code = compile("\n" * (cell.line - 1) + cell.text, str(NOTEBOOK), "exec")
    with redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    return printed.getvalue().rstrip()


def _save_figures(directory: Path) -> Iterator[str]:
    from matplotlib import pyplot

    for name in pyplot.get_figlabels():
        figure = pyplot.figure(name)
        # No version and no date inside: the file changes when the picture does.
        figure.savefig(directory / f"{name}.png", metadata={"Software": None})
        pyplot.close(figure)
        yield name


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--samples", type=Path)
    given = parser.parse_args(arguments)
    if given.samples is not None:
        os.environ["MARKET_DATA_SAMPLES"] = str(given.samples.resolve())
    os.environ["MPLBACKEND"] = "Agg"
    sys.path.insert(0, str(ROOT))
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tutorial-") as working:
        tempfile.tempdir = working
        text = page(NOTEBOOK.read_text(encoding="utf-8"), given.out)
    (given.out / "tutorial.md").write_text(text, encoding="utf-8")
    print(f"wrote {given.out / 'tutorial.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
