"""The commands about recipes: which published labels and parsers there are, make them and compare."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded, say, table
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, DryRun, Quiet, StorePath, Verbose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avvp_pipe.pipeline.recipe import Published, Recipe
    from avvp_pipe.pipeline.recipe_run import Compared
    from avvp_pipe.pipeline.runner import Outcome

recipes = typer.Typer(
    name="recipes",
    help="Published labels and parsers: how each is made, and its numbers beside yours.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="A recipe of the package, or a .toml file of your own.")]
LEVELS = ("segment", "event")
BASELINES = {"video_labels": "video labels", "nothing": "predict nothing"}


@recipes.command("ls")
@guarded
def list_recipes(json: AsJson = False, verbose: Verbose = False) -> None:
    """List the recipes in the package.

    Example: avvp-pipe recipes ls
    """
    from avvp_pipe.pipeline.recipe import read_recipe, recipe_names

    found = [read_recipe(name) for name in recipe_names()]
    rows = [
        {"name": one.name, "title": one.title, "paper": one.paper, "stages": [step.stage for step in one.steps]}
        for one in found
    ]
    Console(as_json=json).result(
        {"recipes": rows}, lambda: table("", ("recipe", "what"), [(one.name, one.title) for one in found], left=2)
    )


@recipes.command("show")
@guarded
def show_recipe(name: Name, json: AsJson = False, verbose: Verbose = False) -> None:
    """Show one recipe: steps, parameters, published numbers, and what speaks against them.

    Example: avvp-pipe recipes show valor
    """
    from dataclasses import asdict

    from avvp_pipe.pipeline.recipe import read_recipe
    from avvp_pipe.pipeline.recipe_run import doubts

    recipe = read_recipe(name)
    document = asdict(recipe) | {"given": list(recipe.given)}
    for row, one in zip(document["published"], recipe.published, strict=True):
        row["doubts"] = list(doubts(one))
    Console(as_json=json).result(document, lambda: _print_recipe(recipe))


def _print_recipe(recipe: "Recipe") -> None:
    from avvp_pipe.pipeline.recipe import OPTIONAL
    from avvp_pipe.pipeline.recipe_run import doubts

    say(f"{recipe.name}: {recipe.title}\n{recipe.paper}\non {recipe.dataset}\n")
    for note in recipe.notes:
        say(f"- {note}")
    if recipe.notes:
        say()
    for step in recipe.steps:
        say(f"{step.id}: {step.stage}")
        inputs = {role: f"{came} if given" if came in OPTIONAL else came for role, came in step.inputs.items()}
        for title, values in (("from", inputs), ("with", step.params)):
            if values:
                say(f"  {title} " + ", ".join(f"{key} = {value}" for key, value in values.items()))
    say()
    for row in recipe.published:
        say(_title(row))
        for metrics in _printed(row):
            scores = {level: getattr(row, level) for level in LEVELS if getattr(row, level)}
            lines = [(level, *(_number(found.get(one)) for one in metrics)) for level, found in scores.items()]
            table("", ("", *metrics), lines)
        for doubt in doubts(row):
            say(f"doubt: {doubt}\n")


def _title(row: "Published") -> str:
    how = f"percent ({row.pooling})" if row.accuracy is None else f"accuracy of seconds {row.accuracy:.1f} %"
    return f"{row.labels}, {row.split}, {how}: {row.source}"


def _printed(row: "Published") -> "list[tuple[str, ...]]":
    """The metrics that a table has room for, those of which the row has some."""
    from avvp_pipe.pipeline.recipe import COLEAF_METRICS, METRICS

    return [every for every in (METRICS, COLEAF_METRICS) if {*row.segment, *row.event} & set(every)]


def _number(value: float | None, *, signed: bool = False) -> str:
    """With one decimal, or two where that is how it was printed."""
    if value is None:
        return "-"
    if signed:
        return f"{round(value, 1) + 0.0:+.1f}"  # no -0.0
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


@recipes.command("run")
@guarded
def run_one(
    name: Name,
    dataset: Annotated[str, typer.Option(help="The dataset to label (dataset/NAME).")] = "",
    features: Annotated[str, typer.Option(help="Its features (features/NAME).")] = "",
    parser_features: Annotated[
        str, typer.Option(help="Its features that the parser reads, where labels are made of others (features/NAME).")
    ] = "",
    threshold_dataset: Annotated[
        str, typer.Option(help="The dataset, as it was read for thresholds: `dataset --joint each` (dataset/NAME).")
    ] = "",
    pretrain_dataset: Annotated[str, typer.Option(help="What generators are pre-trained on (dataset/NAME).")] = "",
    pretrain_features: Annotated[str, typer.Option(help="Its features (features/NAME).")] = "",
    apart_from: Annotated[
        str, typer.Option(help="Keep videos that this has, too, out of pre-training (dataset/NAME).")
    ] = "",
    use: Annotated[
        list[str] | None,
        typer.Option("--use", metavar="STEP=REFERENCE", help="Take what is there instead of a step; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.PARAMETER=VALUE", help="Change a parameter; repeatable.")
    ] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    dry_run: DryRun = False,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe's steps and print published against measured. Exits with 1 where clips failed.

    Example: avvp-pipe recipes run valor --dataset llp --features llp-uwav
    """
    from avvp_pipe.cli.show import print_conditions
    from avvp_pipe.pipeline.recipe import read_recipe
    from avvp_pipe.pipeline.recipe_run import compare, plan_recipe
    from avvp_pipe.pipeline.run import run_steps
    from avvp_pipe.pipeline.settings import settings_of
    from avvp_pipe.pipeline.status import conditions, requested_steps
    from avvp_pipe.store import Reference, Store

    recipe, opened, console = read_recipe(name), Store(store), Console(as_json=json, quiet=quiet)
    given = {
        "@dataset": dataset,
        "@features": features,
        "@parser-features": parser_features,
        "@threshold-dataset": threshold_dataset,
        "@pretrain-dataset": pretrain_dataset,
        "@pretrain-features": pretrain_features,
        "@apart-from": apart_from,
    }
    steps = plan_recipe(recipe, given, used=_used(use or []), settings=settings_of(settings or []))
    if dry_run:
        mine = {step.reference for step in steps}
        asked = [step for step in requested_steps(opened) if step.reference not in mine]
        found = conditions(opened, [*asked, *steps])
        print_conditions([one for one in found if Reference(one.reference.kind, one.reference.name) in mine], console)
        return
    outcomes = run_steps(opened, steps, progress=console)
    scores = [outcome.artifact for outcome in outcomes if outcome.artifact.kind == "scores"]
    rows = [row for artifact in scores for row in compare(recipe, artifact)]
    console.result(_run_document(recipe, outcomes, rows), lambda: _print_run(outcomes, rows))
    if any(outcome.failures for outcome in outcomes):
        raise typer.Exit(FOUND_WRONG)


def _used(words: list[str]) -> dict[str, str]:
    from avvp_pipe.stages.stage import ParameterError

    found = {}
    for word in words:
        step, equals, reference = word.partition("=")
        if not (step and equals and reference):
            raise ParameterError(f"--use {word!r} is not STEP=REFERENCE; for example --use generator=generator/theirs")
        found[step] = reference
    return found


def _run_document(recipe: "Recipe", outcomes: "tuple[Outcome, ...]", rows: "list[Compared]") -> dict[str, Any]:
    from avvp_pipe.pipeline.recipe_run import compared_document

    return {
        "recipe": recipe.name,
        "steps": [
            {"artifact": str(one.artifact.reference), "state": one.state, "seconds": round(one.seconds, 3)}
            for one in outcomes
        ],
        "comparison": [compared_document(row) for row in rows],
    }


def _print_run(outcomes: "tuple[Outcome, ...]", rows: "list[Compared]") -> None:
    for outcome in outcomes:
        say(f"{outcome.state:8}{outcome.artifact.reference} in {outcome.seconds:.1f} s")
    say()
    print_compared(rows)


def print_compared(rows: "Sequence[Compared]") -> None:
    """Published rows beside what was measured, and what speaks against the comparison."""
    from avvp_pipe.pipeline.recipe_run import compared_document

    for origin in {row.origin for row in rows if row.origin}:
        say(f"measured on features of origin: {origin}\n")
    for row in rows:
        document = compared_document(row)
        say(_title(row.published))
        for metrics in _printed(row.published):
            table("", ("", "", *metrics), list(_lines(document, metrics)), left=2)
        if row.published.accuracy is not None:
            table("", ("", "accuracy"), list(_accuracies(document)))
        means = document["mean_of_ten"]
        if None not in means.values():
            say(f"mean of the ten: published {means['published']:.1f}, measured {means['measured']:.1f}\n")
        for doubt in document["doubts"]:
            say(f"doubt: {doubt}\n")
        if row.other_clips:
            say(f"not the same clips: {row.other_clips}\n")
        if row.measured is None:
            say(f"no clip of split {row.published.split} has its seconds labelled: nothing to compare\n")


def _lines(document: dict[str, Any], metrics: tuple[str, ...]) -> Any:
    """Of each level what was printed, what was measured, the difference; beside CoLeaF's metrics what silence has."""
    from avvp_pipe.pipeline.recipe import COLEAF_METRICS

    silence = document["baselines"].get("nothing", {}) if metrics == COLEAF_METRICS else {}
    for level in LEVELS:
        if not document[level]:
            continue
        for what in ("published", "measured", "difference"):
            values = document[level] if what == "published" else (document[what] or {}).get(level, {})
            yield (level, what, *_cells(values, metrics, what))
        if silence:
            yield (level, BASELINES["nothing"], *_cells(silence[level], metrics, "measured"))


def _cells(values: dict[str, float], metrics: tuple[str, ...], what: str) -> Any:
    found = {metric: round(value, 1) for metric, value in values.items()} if what == "measured" else values
    return (_number(found.get(metric), signed=what == "difference") for metric in metrics)


def _accuracies(document: dict[str, Any]) -> Any:
    """What was printed, what was measured, the difference, and what video labels and silence have."""
    yield ("published", *_cells(document, ("accuracy",), "published"))
    for what in ("measured", "difference"):
        yield (what, *_cells(_accuracy(document[what]), ("accuracy",), what))
    for name, title in BASELINES.items():
        if found := _accuracy(document["baselines"].get(name)):
            yield (title, *_cells(found, ("accuracy",), "measured"))


def _accuracy(scores: dict[str, Any] | None) -> dict[str, float]:
    return {name: value for name, value in (scores or {}).items() if name == "accuracy"}
