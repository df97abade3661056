"""The command that sets methods side by side."""

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from avvp_pipe.cli.console import Console, guarded, say, table
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, Quiet, StorePath, Verbose

if TYPE_CHECKING:
    from avvp_pipe.pipeline.compare import Apart, Comparison, Method

COLUMNS = ("method", "runs", "split", "level", "metric", "mean", "deviation", "difference", "low", "high", "p")
"""Of the CSV."""
LEVELS = ("segment", "event")
WIDEST = 20
ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    letter: f"\\{letter}" for letter in "&%$#_{}"
}


@guarded
def compare(
    references: Annotated[
        list[str] | None,
        typer.Argument(help="Scores, labels, parsers or predictions; names that end in -seedN are one method."),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME=REF,REF…", help="Several runs as one method, by a name; repeatable."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="The method that the others are held against; else the first.")
    ] = None,
    split: Annotated[str, typer.Option(help="Whose clips; their seconds must be labelled.")] = "test",
    pooling: Annotated[
        Literal["official", "micro", "class-macro"], typer.Option(help="How counts become one number.")
    ] = "official",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Whose labels are the truth; else the dataset of the first.")
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, max=1_000_000, help="Draws of clips for intervals and p.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line a method, level and metric.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print rows of a LaTeX table, the best in bold.")] = False,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Set methods side by side: mean and spread over seeds, differences with 95 % intervals and p.

    All are scored on the same clips, and clips are drawn jointly (a paired bootstrap).

    \b
    Examples:
      avvp-pipe compare labels/llp-valor labels/llp-uwav
      avvp-pipe compare parser/llp-seed1 parser/llp-seed2 --group ours=parser/a,parser/b --latex
    """
    from avvp_pipe.pipeline.compare import compare_methods, grouped
    from avvp_pipe.stages.stage import ParameterError
    from avvp_pipe.store import Store

    if [as_csv, as_latex, json].count(True) > 1:
        raise ParameterError("--csv, --latex and --json each print another thing; give one of them")
    found = compare_methods(
        Store(store),
        grouped(references or (), groups or ()),
        split=split,
        pooling=pooling,
        against=against,
        dataset=dataset,
        resamples=resamples,
        seed=seed,
    )
    if as_csv or as_latex:
        say((csv_of(found) if as_csv else latex_of(found)).rstrip("\n"))
        return
    Console(as_json=json, quiet=quiet).result(document_of(found), lambda: _print(found))


def document_of(found: "Comparison") -> dict[str, Any]:
    """The JSON of a comparison."""
    return {
        "dataset": found.dataset,
        "split": found.split,
        "clips": found.clips,
        "left_out": found.left_out,
        "pooling": found.pooling,
        "resamples": found.resamples,
        "seed": found.seed,
        "against": found.against,
        "methods": [
            {
                "name": one.name,
                "references": list(one.references),
                **{level: {metric: _said(one, level, metric) for metric in found.metrics} for level in LEVELS},
            }
            for one in found.methods
        ],
        "differences": [
            {
                "method": one.method,
                "level": one.level,
                "metric": one.metric,
                "difference": one.found.difference,
                "low": one.found.low,
                "high": one.found.high,
                "p": one.found.p,
            }
            for one in found.differences
        ],
    }


def _said(one: "Method", level: str, metric: str) -> dict[str, Any]:
    values = list(one.scores[level][metric])
    return {"mean": one.mean(level, metric), "deviation": one.deviation(level, metric), "values": values}


def _print(found: "Comparison") -> None:
    for level in LEVELS:
        title = f"{found.split}, {found.clips} clips, {level}-level F, percent ({found.pooling})"
        lines = [(_named(one), *(_score(one, level, metric) for metric in found.metrics)) for one in found.methods]
        table(title, ("method", *found.metrics), lines, widest=WIDEST)
    if any(len(one.references) > 1 for one in found.methods):
        say("±: standard deviation over the runs of a method\n")
    title = f"points above {found.against}; 95 % interval and p of {found.resamples} draws of clips"
    lines = [
        (one.method, one.level, one.metric, f"{one.found.difference:+.2f}", _interval(one), _p(one.found.p))
        for one in found.differences
    ]
    table(title, ("method", "level", "metric", "points", "95 %", "p"), lines, left=3, widest=WIDEST)
    if found.left_out:
        say(f"{found.left_out} clips failed in one of them and count in none")
    say("p is for one comparison; of many, some will be small by chance")


def _named(one: "Method") -> str:
    return one.name if len(one.references) == 1 else f"{one.name} ({len(one.references)} runs)"


def _score(one: "Method", level: str, metric: str) -> str:
    deviation = one.deviation(level, metric)
    return f"{one.mean(level, metric):.1f}" + ("" if deviation is None else f"±{deviation:.1f}")


def _interval(one: "Apart") -> str:
    return f"{one.found.low:+.2f} … {one.found.high:+.2f}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def csv_of(found: "Comparison") -> str:
    """One line a method, level and metric; differences are empty for the one that others are held against."""
    apart = {(one.method, one.level, one.metric): one.found for one in found.differences}
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in found.methods:
        for level in LEVELS:
            for metric in found.metrics:
                said, other = _said(one, level, metric), apart.get((one.name, level, metric))
                numbers = (other.difference, other.low, other.high, other.p) if other else ("", "", "", "")
                deviation = "" if said["deviation"] is None else said["deviation"]
                facts = (one.name, len(one.references), found.split, level, metric)
                rows.writerow((*facts, said["mean"], deviation, *numbers))
    return out.getvalue()


def latex_of(found: "Comparison") -> str:
    """Rows: name, the metrics of segments, those of events. Bold: the best of a column, as printed."""
    cells = [(level, metric) for level in LEVELS for metric in found.metrics]
    best = {cell: max(round(one.mean(*cell), 1) for one in found.methods) for cell in cells}
    head = " & ".join(("method", *(f"{level} {metric}" for level, metric in cells)))
    rows = (" & ".join((_escaped(one.name), *_latex(one, best))) + r" \\" for one in found.methods)
    return "\n".join((f"% {head}", *rows)) + "\n"


def _latex(one: "Method", best: dict[tuple[str, str], float]) -> Iterator[str]:
    for cell, highest in best.items():
        mean, deviation = one.mean(*cell), one.deviation(*cell)
        number = f"{mean:.1f}"
        number = rf"\textbf{{{number}}}" if round(mean, 1) == highest else number
        yield number if deviation is None else rf"{number} $\pm$ {deviation:.1f}"


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in text)
