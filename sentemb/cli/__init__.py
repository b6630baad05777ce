"""The command line: one file a verb, each imported only when it is used.

A verb's module has ``app``, a ``typer.Typer``; heavy imports live inside its functions, so that help is instant.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings

_COMPLETION = ("--install-completion", "--show-completion")

# verb -> (module, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "quickstart": ("quickstart", "fine-tune, evaluate, index and search on this machine's own docstrings, in minutes"),
    "train": ("train", "train an encoder with a recipe; resumes after an interruption"),
    "check": ("check", "every fault of a recipe at once, without loading a model"),
    "show": ("show", "a recipe resolved: every part with formula, source and file:line"),
    "list": ("list_", "the methods, terms, edits, views, companions and recipes there are"),
    "encode": ("encode", "texts to vectors (.npy or parquet)"),
    "quantize": ("quantize", "the eight-bit form of a model: faster on CPUs"),
    "distill": ("distill", "a static model of an encoder: a hundred times as fast, less able"),
    "merge": ("merge", "one model of several that were trained from one checkpoint"),
    "convert": ("convert", "pickled weights (.bin) to safetensors, without running their code"),
    "export": ("export", "a model as one graph for ONNX Runtime or OpenVINO"),
    "push": ("push", "send a model with its card to the hub"),
    "eval": ("eval_", "score a model on STS, MTEB, retrieval and more; compare models"),
    "report": ("report", "scores and training runs as one HTML page"),
    "data": ("data", "fetch and verify evaluation data, make training data"),
    "index": ("index", "build and change a search index"),
    "search": ("search", "query an index, once or interactively"),
    "serve": ("serve", "models and indexes over HTTP: OpenAI's embeddings, search and its page"),
    "mcp": ("mcp", "an index as tools of an agent (MCP): search and get"),
    "mine": ("mine", "hard negatives for training data"),
    "classify": ("classify", "texts to labels from few examples: fit, predict, score"),
    "rerank": ("rerank", "train and score cross-encoders, which order what a search found"),
}


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10}  {line}" for verb, (_, line) in VERBS.items())
    return f"""sentemb: train, evaluate and search with sentence embeddings.

usage: sentemb [--debug] [--quiet] VERB …        sentemb VERB --help for its options

{verbs}

  --debug               show the traceback of an error
  --quiet               no progress bars, only warnings
  --version             print the version
  --install-completion  complete verbs and options in this shell

Your own defaults of options: ~/.config/sentemb/config.toml, or the file that SENTEMB_CONFIG names; e.g.
[serve] port = 9000
"""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``sentemb`` command; ends the process with the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "_SENTEMB_COMPLETE" in os.environ or (words[:1] and words[0] in _COMPLETION):
        _complete(words)
    debug = "--debug" in words  # welcome before and behind the verb
    if "--quiet" in words:
        os.environ["SENTEMB_QUIET"] = "1"
    verb, *options = [word for word in words if word not in ("--debug", "--quiet")] or ["--help"]
    if verb in VERBS:
        if arguments is None:  # the whole process; the threads of a program that calls are its own matter
            from sentemb.machine.resources import share_processors

            share_processors()
        _run(verb, options, debug=debug)
    elif verb in ("--help", "-h", "--version"):
        from sentemb import __version__

        sys.stdout.write(f"sentemb {__version__}\n" if verb == "--version" else _help())
        sys.exit(0)
    else:
        from sentemb.errors import did_you_mean

        _fail(f'"{verb}" is no verb{did_you_mean(verb, VERBS)}')


def _run(verb: str, arguments: list[str], *, debug: bool) -> None:
    """Run a verb. Every error ends as one message and an exit code: 2 a user's mistake, or a file that cannot be used;
    3 unexpected, with the traceback in a file; 130 stopped by the user. A verb that did a part of its work ends with 1.
    """
    from sentemb.errors import SentembError, first_line
    from sentemb.progress import show_log
    from sentemb.stopping import stoppable

    if not debug:  # without the code's line, which tells a user nothing
        warnings.formatwarning = lambda message, *_: f"sentemb: warning: {message}\n"
    show_log()
    defaults: dict[str, object] = {}
    try:
        with stoppable():
            import typer

            from sentemb.cli.defaults import config_file, defaults_of

            app = importlib.import_module(f"sentemb.cli.{VERBS[verb][0]}").app
            app.rich_markup_mode = None  # plain help: one column of options, twice as dense as boxes
            command = typer.main.get_command(app)
            defaults = defaults_of(verb, command, VERBS)
            command.main(
                args=arguments, prog_name=f"sentemb {verb}", help_option_names=["-h", "--help"], max_content_width=100,
                default_map=defaults,
            )
    except SystemExit as end:
        if end.code == 2 and defaults:  # the option at fault may be none of the command line's
            sys.stderr.write(f"sentemb: options that are not given come from {config_file()}\n")
        raise
    except BrokenPipeError:  # `sentemb list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, SentembError):
            _fail(str(error), error.exit_code)
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or first_line(error)}")
        kind = "" if not str(error).strip() else f"{type(error).__name__}: "
        _fail(f"{kind}{first_line(error)}\nsentemb did not expect this; what happened is in {_keep_traceback()}", 3)


def _keep_traceback() -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="sentemb-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(f"sentemb {' '.join(sys.argv[1:])}\n\n{traceback.format_exc()}")
    return file.name


def _complete(arguments: list[str]) -> None:
    """Let typer answer the shell: all verbs in one program."""
    import typer

    program = typer.Typer(name="sentemb")
    for verb, (module, line) in VERBS.items():
        app = importlib.import_module(f"sentemb.cli.{module}").app
        if len(app.registered_commands) == 1:
            program.command(verb, help=line)(app.registered_commands[0].callback)
        else:
            program.add_typer(app, name=verb, help=line)
    typer.main.get_command(program).main(args=arguments, prog_name="sentemb")


def _fail(message: str, code: int = 2) -> None:
    sys.stderr.write(f"sentemb: {message}\n")
    sys.exit(code)
