"""The command line: one file a verb, each imported only when it is used.

A verb's module has ``app``, a ``typer.Typer``; heavy imports live inside its functions, so that help is instant.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings

_HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_SHOWN = warnings.formatwarning

# verb -> (module, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "quickstart": ("quickstart", "fine-tune, evaluate, index and search on this machine's own docstrings, in minutes"),
    "train": ("train", "train an encoder with a recipe; resumes after an interruption"),
    "check": ("check", "every fault of a recipe at once, without loading a model"),
    "show": ("show", "a recipe resolved: every part with formula, source and file:line"),
    "list": ("list_", "the methods, terms, edits, views, companions and recipes there are"),
    "encode": ("encode", "texts to vectors (.npy or parquet)"),
    "eval": ("eval_", "score a model on STS, MTEB, retrieval and more; compare models"),
    "data": ("data", "fetch and verify evaluation data for offline use"),
    "index": ("index", "build and change a search index"),
    "search": ("search", "query an index, once or interactively"),
    "mine": ("mine", "hard negatives for training data"),
}


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {line}" for verb, (_, line) in VERBS.items())
    return (
        "sentemb: train, evaluate and search with sentence embeddings.\n\n"
        "usage: sentemb [--debug] [--quiet] VERB …        sentemb VERB --help for its options\n\n"
        f"{verbs}\n\n"
        "  --debug    show the traceback of an error\n"
        "  --quiet    no progress bars\n"
        "  --version  print the version\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``sentemb`` command; ends the process with the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = False
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "--debug":
            debug = True
        elif option == "--quiet":
            os.environ["SENTEMB_QUIET"] = "1"
        elif option == "--version":
            from sentemb import __version__

            sys.stdout.write(f"sentemb {__version__}\n")
            sys.exit(0)
        elif option in ("--help", "-h"):
            sys.stdout.write(_help())
            sys.exit(0)
        else:
            _fail(f"unknown option {option}; sentemb --help lists them")
    if not arguments:
        sys.stdout.write(_help())
        sys.exit(0)
    verb, *rest = arguments
    if verb not in VERBS:
        from sentemb.errors import did_you_mean

        _fail(f'unknown verb "{verb}"{did_you_mean(verb, VERBS)}')
    # --debug and --quiet are welcome behind the verb as well
    if "--debug" in rest:
        debug = True
        rest.remove("--debug")
    if "--quiet" in rest:
        os.environ["SENTEMB_QUIET"] = "1"
        rest.remove("--quiet")
    _run(verb, rest, debug=debug)


def _run(verb: str, arguments: list[str], *, debug: bool) -> None:
    from sentemb.errors import SentembError
    from sentemb.progress import show_log

    warnings.formatwarning = _one_line
    show_log()
    try:
        import typer

        app = importlib.import_module(f"sentemb.cli.{VERBS[verb][0]}").app
        typer.main.get_command(app).main(args=arguments, prog_name=f"sentemb {verb}")
    except SentembError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except BrokenPipeError:  # `sentemb list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Our own warnings without the code's line, which tells a user nothing; others as Python shows them."""
    if filename.startswith(_HERE):
        return f"sentemb: warning: {message}\n"
    return _SHOWN(message, category, filename, lineno, line)


def _fail(message: str, code: int = 2) -> None:
    sys.stderr.write(f"sentemb: {message}\n")
    sys.exit(code)
