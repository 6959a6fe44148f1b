"""The command line: the same work as in Python, for a shell.

Everything heavy is imported inside the commands, so that ``workbench --help`` and ``workbench sql`` stay quick and the
latter needs no torch.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from typer.core import TyperGroup

from workbench.errors import PlanError, WorkbenchError

if TYPE_CHECKING:
    from workbench.interventions import Plan
    from workbench.runtime.bench import Bench

DEFAULT_STORE = "workbench.duckdb"


class _Group(TyperGroup):
    """Prints a :class:`WorkbenchError` as its two sentences on the standard error and leaves with status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WorkbenchError as error:
            typer.echo(f"{error.problem}\n{error.remedy}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    name="workbench",
    help="See, change and query the routing inside neural networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Prompt = Annotated[str, typer.Argument(help="The text to run.", show_default=False)]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Hugging Face name or folder; left out: the demo model.")
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store", "-s", help=f"DuckDB file to record into; left out: ./{DEFAULT_STORE}, shared if in use."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model.")]
KernelName: TypeAlias = Literal["auto", "model", "reference", "cpu", "triton"]
Kernels = Annotated[KernelName, typer.Option(help="What runs the experts; model: the model's own.")]
PlanFile = Annotated[
    str | None, typer.Option("--plan", "-p", help="Plan as JSON (plan.to_json()); its edits come first.")
]
Ban = Annotated[list[str] | None, typer.Option(help="LAYER:EXPERTS never chosen, as 3:5, 3:5,7 or all:5.")]
Force = Annotated[
    list[str] | None, typer.Option(help="LAYER:EXPERTS always chosen, with a weight as 3:5=0.4.")
]
Bias = Annotated[
    list[str] | None, typer.Option(help="LAYER:EXPERT=DELTA added to the router logits, as 3:5=-1.5.")
]
Replay = Annotated[int | None, typer.Option(help="Run whose routes are used again.", show_default=False)]
Skip = Annotated[list[str] | None, typer.Option(help="LAYERS whose block is left out, as 7 or 7,8.")]
Heads = Annotated[list[str] | None, typer.Option(help="LAYER:HEADS silenced, as 2:0,3.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def _version(wanted: bool) -> None:
    if wanted:
        import workbench

        typer.echo(workbench.__version__)
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See, change and query the routing inside neural networks."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address; open no browser.")
    ] = False,
) -> None:
    """Open JupyterLab with the Workbench card; other arguments go to JupyterLab as they are."""
    # The panel asks nothing of the network; JupyterLab by itself would ask for news, updates and extensions.
    arguments = [
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if no_browser:
        arguments.append("--no-browser")
    if os.geteuid() == 0 and "--allow-root" not in context.args:
        typer.echo("You are root, so the server runs as root (--allow-root).", err=True)
        arguments.append("--allow-root")
    # Neither does JupyterLab ask whether it may: our defaults for its settings, which the user's own still override.
    folders = [str(Path(__file__).parent / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, folders))
    command = [sys.executable, "-m", "jupyterlab", *arguments, *context.args]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)


@app.command()
def run(
    prompt: Prompt,
    model: Model = None,
    store: Store = None,
    plan: PlanFile = None,
    ban: Ban = None,
    force: Force = None,
    bias: Bias = None,
    replay: Replay = None,
    skip: Skip = None,
    heads: Heads = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    kernels: Kernels = "auto",
    layers: Annotated[
        str | None, typer.Option(help="Layers to print, as 0-5 or 3,7; all are recorded.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many next tokens to print.")] = 5,
    json: AsJson = False,
) -> None:
    """Run a prompt once and print its tokens, their experts by layer, and what comes next."""
    from workbench import console

    wanted = _plan(plan, ban, force, bias, replay, skip, heads)
    shown = None if layers is None else _numbers(layers, f"--layers {layers}", "0-5 or 3,7")
    with _open(model, store, device, dtype, revision, kernels) as bench:
        result = bench.run(prompt, plan=wanted)
        if json:
            console.print_json(console.run_as_data(bench, result, top))
        else:
            console.print_run(bench, result, shown, top)


@app.command()
def generate(
    prompt: Prompt,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="How many tokens at most.")
    ] = 64,
    model: Model = None,
    store: Store = None,
    plan: PlanFile = None,
    ban: Ban = None,
    force: Force = None,
    bias: Bias = None,
    replay: Replay = None,
    skip: Skip = None,
    heads: Heads = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    kernels: Kernels = "auto",
) -> None:
    """Generate greedily from a prompt and print the tokens as they come."""
    wanted = _plan(plan, ban, force, bias, replay, skip, heads)
    with _open(model, store, device, dtype, revision, kernels) as bench:
        typer.echo(prompt, nl=False)

        def on_step(step: Any) -> None:
            typer.echo(step.text, nl=False)
            sys.stdout.flush()

        try:
            result = bench.generate(prompt, max_new_tokens=max_new_tokens, plan=wanted, on_step=on_step)
        finally:
            typer.echo()
        typer.echo(f"run {result.id}  store {bench.store.path}", err=True)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help='For example "FROM expert_load(RUN)".', show_default=False)],
    store: Annotated[str, typer.Option("--store", "-s", help="DuckDB file of a bench.")] = DEFAULT_STORE,
    format: Annotated[Literal["table", "csv", "json"], typer.Option(help="How to print the rows.")] = "table",
) -> None:
    """Ask the recorded runs, also while a kernel records into the store."""
    from workbench import console
    from workbench.store import connect

    with connect(store) as connection:
        columns, rows = console.fetch(connection, query)
    console.print_rows(columns, rows, format)


@app.command()
def diff(
    base: Annotated[int, typer.Argument(help="Run to compare with, as printed.", show_default=False)],
    run: Annotated[int, typer.Argument(help="Run to compare, as printed.", show_default=False)],
    store: Annotated[str, typer.Option("--store", "-s", help="DuckDB file of a bench.")] = DEFAULT_STORE,
    json: AsJson = False,
) -> None:
    """Compare two recorded runs: where their routes part, and why."""
    from workbench import analysis, console
    from workbench.store import connect

    with connect(store) as connection:
        found = analysis.diff(connection.cursor(), base, run)
    if json:
        console.print_json(console.diff_as_data(base, run, found))
    else:
        console.print_diff(found)


@app.command()
def export(
    target: Annotated[
        str,
        typer.Argument(
            help="A .parquet folder, an .html page or a .duckdb file to write.", show_default=False
        ),
    ],
    run: Annotated[
        list[int] | None, typer.Option(help="Run to export, several times for several; left out: all.")
    ] = None,
    store: Annotated[str, typer.Option("--store", "-s", help="DuckDB file of a bench.")] = DEFAULT_STORE,
) -> None:
    """Write recorded runs as Parquet, as one page that opens without a kernel, or as a smaller store."""
    from workbench.store.connect import export_file

    typer.echo(export_file(store, target, run or None))


@app.command()
def macros(
    name: Annotated[
        str | None, typer.Argument(help="Say everything about one of them.", show_default=False)
    ] = None,
) -> None:
    """List the macros: the questions that SQL over a store can ask by name."""
    from workbench import console
    from workbench.errors import SqlError
    from workbench.store.schema import macro_docs

    docs = macro_docs()
    if name is None:
        rows = [(f"{doc.name}({doc.arguments})", doc.answers) for doc in docs]
        console.print_rows(["macro", "answers"], rows)
        return
    for doc in docs:
        if doc.name == name:
            typer.echo(
                f"{doc.name}({doc.arguments})\n\n{doc.answers}\n\n{doc.formula}\n\nSource: {doc.source}"
            )
            return
    raise SqlError(f"There is no macro {name!r}.", "List them with workbench macros.")


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Also show what this model is made of, and try every edit on it."),
    ] = None,
    store: Annotated[str, typer.Option("--store", "-s", help="Store to look at.")] = DEFAULT_STORE,
    json: AsJson = False,
) -> None:
    """Say which versions, devices and kernels are in use, and why a faster one is not."""
    from workbench import console, doctor

    findings = doctor.examine(store)
    anatomy = conformance = None
    if model is not None:
        with _open(model, ":memory:", None, None, None, "auto") as bench:
            anatomy, conformance = doctor.describe_model(bench), doctor.conformance(bench)
    if json:
        shown = [vars(finding) for finding in findings]
        console.print_json({"findings": shown, "model": anatomy, "conformance": conformance})
        return
    console.print_findings(findings)
    if anatomy is not None and conformance is not None:
        console.print_model(anatomy)
        console.print_conformance(conformance)


@app.command(name="import")
def import_(
    file: Annotated[str, typer.Argument(help="A .npz or .json with tokens and routes, or an SGLang reply.")],
    model: Model = None,
    store: Store = None,
    source: Annotated[
        str | None, typer.Option("--source", help="vllm, sglang or megatron, where the file does not say.")
    ] = None,
) -> None:
    """Make a run of routes that vLLM, SGLang or Megatron recorded, to ask about and to replay."""
    from workbench.runtime.imports import read_file

    found = read_file(file)
    if source is not None:
        found["source"] = source
    with _open(model, store, None, None, None, "auto") as bench:
        print(bench.import_routes(**found))


@app.command()
def demo(
    prompt: Annotated[str, typer.Argument(help="The text to run.")] = "The capital of France is",
    model: Model = None,
    store: Store = None,
) -> None:
    """Run a prompt, record it, ban the busiest expert, compare, and ask the store three questions."""
    from workbench.tour import show

    with _open(model, store, None, None, None, "auto") as bench:
        show(bench, prompt)


def _open(
    model: str | None,
    store: str | None,
    device: str | None,
    dtype: str | None,
    revision: str | None,
    kernels: KernelName,
) -> Bench:
    from transformers.utils import logging

    import workbench as wb

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    return wb.open(model, store=store, device=device, dtype=dtype, revision=revision, kernels=kernels)


def _plan(
    file: str | None,
    ban: list[str] | None,
    force: list[str] | None,
    bias: list[str] | None,
    replay: int | None,
    skip: list[str] | None,
    heads: list[str] | None,
) -> Plan | None:
    """The plan of the command line: the file's edits, then the options' in the order of the help."""
    from workbench.interventions import Plan, mask, reroute
    from workbench.interventions import skip as skips

    edits = list(_read_plan(file).edits) if file is not None else []
    for text in ban or ():
        layers, experts, _ = _target(text, "--ban", "3:5")
        edits.append(reroute.ban(layers=layers, experts=experts))
    for text in force or ():
        layers, experts, weight = _target(text, "--force", "3:5 or 3:5=0.4", value=True)
        edits.append(reroute.force(layers=layers, experts=experts, weight=weight))
    for text in bias or ():
        layers, experts, delta = _target(text, "--bias", "3:5=-1.5", value=True)
        if delta is None:
            raise PlanError(f"--bias {text} has no number to add.", "Write it as 3:5=-1.5.")
        edits.append(reroute.bias(layers=layers, delta=dict.fromkeys(experts, delta)))
    if replay is not None:
        edits.append(reroute.replay(run=replay))
    for text in skip or ():
        edits.append(skips.block(layers=_numbers(text, f"--skip {text}", "7 or 7,8")))
    for text in heads or ():
        layers, units, _ = _target(text, "--heads", "2:0,3")
        edits.append(mask.heads(layers=layers, heads=units))
    return Plan(edits) if edits else None


def _read_plan(file: str) -> Plan:
    from workbench.interventions import Plan

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise PlanError(
            f"The plan {file} cannot be read: {reason}.", "Name a file written by plan.to_json()."
        ) from None
    return Plan.from_json(text)


def _target(
    text: str, option: str, example: str, value: bool = False
) -> tuple[list[int] | Literal["all"], list[int], float | None]:
    """``LAYER:UNITS[=VALUE]`` in parts."""
    match = re.fullmatch(r"([^:=]+):([^:=]+)(?:=([^:=]+))?", text.strip())
    if match is None or (match[3] is not None and not value):
        raise PlanError(f"{option} {text} cannot be read.", f"Write it as {example}.")
    number = None
    if match[3] is not None:
        try:
            number = float(match[3])
        except ValueError:
            raise PlanError(
                f"{option} {text}: {match[3]} is not a number.", f"Write it as {example}."
            ) from None
    layers: list[int] | Literal["all"] = "all"
    if match[1].strip() != "all":
        layers = _numbers(match[1], f"{option} {text}", example)
    return layers, _numbers(match[2], f"{option} {text}", example), number


def _numbers(text: str, where: str, example: str) -> list[int]:
    """``3``, ``3,7`` and ``3-5`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise PlanError(
                f"{where}: {part.strip() or 'nothing'} is not a number.", f"Write it as {example}."
            )
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found
