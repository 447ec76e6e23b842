"""The commands by name: the list that `python -m jensen` prints, and `jensen-train` and the like.

Nothing here takes time to import.
"""

import ast
import runpy
import sys
from pathlib import Path

import jensen

COMMANDS = ("train", "evaluate", "encode", "report", "doctor")
_COMPLETION = ("-sc", "--shell-completion")


def listed() -> None:
    """Print each command with the first line of its docstring, or the version.

    Raises:
        SystemExit: words that are no option.
    """
    words = sys.argv[1:]
    if words == ["--version"]:
        print(f"jensen {jensen.__version__}")
    elif words and words[0] not in ("-h", "--help"):
        sys.exit(
            f"jensen: {' '.join(words)!r} is no option: expected none, --version, or one of the"
            f" commands python -m jensen.{', jensen.'.join(COMMANDS)}; try python -m"
            f" jensen.{words[0] if words[0] in COMMANDS else 'train'} --help"
        )
    else:
        print(f"jensen {jensen.__version__}: variational autoencoders and Gaussian mixtures\n")
        for command in COMMANDS:
            print(f"  python -m jensen.{command:9} {purpose(command)}")
        print("\nEach is also a program, jensen-train and so on; --help says what it takes.")


def purpose(command: str) -> str:
    """The first line of a command's docstring, without importing it."""
    source = (Path(jensen.__file__).parent / f"{command}.py").read_text()
    first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return first.partition(": `")[0].rstrip(".")


def train() -> None:
    """`jensen-train`."""
    _run("train")


def evaluate() -> None:
    """`jensen-evaluate`."""
    _run("evaluate")


def encode() -> None:
    """`jensen-encode`."""
    _run("encode")


def report() -> None:
    """`jensen-report`."""
    _run("report")


def doctor() -> None:
    """`jensen-doctor`."""
    _run("doctor")


def _run(command: str) -> None:
    """Run `python -m jensen.COMMAND`. What needs no command is answered without importing it, since
    a shell that completes a word asks at every key.
    """
    if sys.argv[1:] == ["--version"]:
        print(f"jensen {jensen.__version__}")
    elif command != "doctor" and sys.argv[1:2] and sys.argv[1] in _COMPLETION:
        _complete(command)
    else:
        sys.path.insert(0, str(Path.cwd()))  # modules of yours, as python -m finds them
        runpy.run_module(f"jensen.{command}", run_name="__main__", alter_sys=True)


def _complete(command: str) -> None:
    import hydra

    from jensen.run.conf import conf_folder

    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=command)(
        lambda cfg: None
    )()
