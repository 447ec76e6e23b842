"""The shell entry points, with a pip that is a stub: nothing is fetched and nothing is
installed.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PARALLEL = ["-n", "logical", "--maxprocesses", "8", "--dist", "worksteal"]
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the entry points need bash")

# Stands in for pip in an environment: notes each call, says $PIP_SAYS, and ends with $PIP_EXIT.
FAKE_PIP = """
import os, sys
with open(os.environ["CALLS"], "a") as calls:
    print(*sys.argv[1:], file=calls)
print(os.environ.get("PIP_SAYS", ""))
sys.exit(int(os.environ.get("PIP_EXIT", "0")))
"""

# A Python whose environments hold the stub (the real pip would take seconds to unpack).
MAKER = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  "{python}" -m venv --without-pip "$3" && cp -R "{pip}" "$(echo "$3"/lib/python3.*/site-packages)/pip"
else
  exec "{python}" "$@"
fi
"""

# A Python that takes itself for 3.9.
OLD = """#!/bin/sh
for code in "$@"; do case $code in *"import sys"*) break ;; esac; done
exec "{python}" -c 'import sys; sys.version_info = (3, 9, 2, "final", 0); exec(sys.argv.pop(1))' "$code"
"""

PYTHONS = ("python3", "python3.11", "python3.12", "python3.13")


@dataclass
class Machine:
    """A copy of the scripts in a repository of their own, and stubs that come first on PATH."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repo = self.home / "a repository"  # a space, to find missing quotes
        self.bin = self.home / "bin"
        self.calls = self.home / "calls"
        shutil.copytree(ROOT / "scripts", self.repo / "scripts")
        (self.repo / "pyproject.toml").write_text('[project]\nname = "jensen"\n')
        pip = self.home / "pip"
        pip.mkdir()
        (pip / "__init__.py").touch()
        (pip / "__main__.py").write_text(FAKE_PIP)
        self.bin.mkdir()
        for name in PYTHONS:
            self.stub(name, MAKER.format(python=sys.executable, pip=pip))
        self.disk(free_gb=100)
        dropped = (
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "JENSEN_VENV",
            "JENSEN_PYTHON",
            "PYTHONPATH",
            "PYTHONHOME",
            "TMPDIR",
        )
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in dropped and not name.startswith("PIP_")
        }
        self.variables = {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{kept['PATH']}",
            "CALLS": str(self.calls),
        }

    def stub(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def disk(self, free_gb: int) -> None:
        self.stub(
            "df",
            f"#!/bin/sh\necho header\necho /dev/a 999999999 1 {free_gb * 1024**2} 50% /a disk\n",
        )

    def run(
        self, script: str = "setup", *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.repo / "scripts" / script), *arguments],
            env={**self.variables, **variables},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def pip_calls(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def site_packages(self, prefix: Path) -> Path:
        return next((prefix / "lib").glob("python3.*/site-packages"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def last(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a failure: the last line, with nothing of bash's own or of Python's
    around it.
    """
    lines = result.stderr.splitlines()
    assert result.returncode != 0
    assert all(line.startswith("jensen: ") for line in lines), result.stderr
    assert result.stdout == ""
    return lines[-1]


def stamp(prefix: Path) -> Path:
    return prefix / ".jensen-setup"


def test_python_too_old(machine: Machine) -> None:
    for name in PYTHONS:
        machine.stub(name, OLD.format(python=sys.executable))
    result = machine.run()
    assert "Python 3.11 or newer is needed" in last(result)
    assert "python3 (3.9.2)" in last(result)
    assert len(result.stderr.splitlines()) == 1


def test_a_python_that_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.stub("python3", "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n")
    assert machine.run().returncode == 0


def test_venv_module_missing(machine: Machine) -> None:
    for name in PYTHONS:
        machine.stub(
            name,
            f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n',
        )
    assert "apt install python3-venv" in last(machine.run())


def test_a_named_python_is_not_replaced_by_another(machine: Machine) -> None:
    machine.stub("python3.9", OLD.format(python=sys.executable))
    assert "JENSEN_PYTHON names python3.9 (3.9.2)" in last(machine.run(JENSEN_PYTHON="python3.9"))


def test_active_environment_too_old(machine: Machine) -> None:
    active = machine.home / "active"
    (active / "bin").mkdir(parents=True)
    machine.stub("../active/bin/python", OLD.format(python=sys.executable))
    assert f"the active environment {active} has 3.9.2" in last(
        machine.run(CONDA_PREFIX=str(active))
    )


def test_second_run_makes_no_pip_call(machine: Machine) -> None:
    first = machine.run("setup", "dev")
    assert first.returncode == 0, first.stderr
    assert machine.pip_calls() == ["install --no-input --disable-pip-version-check -e .[dev]"]
    assert stamp(machine.repo / ".venv").exists()
    for extra in ("dev", "plain"):  # what the tests need covers what training needs
        again = machine.run("setup", extra, PIP_EXIT="1")
        assert again.returncode == 0, again.stderr
        assert "using the environment" in again.stderr
    assert len(machine.pip_calls()) == 1


def test_a_changed_project_or_more_needs_install_again(machine: Machine) -> None:
    machine.run("setup", "plain")
    machine.run("setup", "dev")
    with (machine.repo / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    machine.run("setup", "dev")
    assert [call.split()[-1] for call in machine.pip_calls()] == [".", ".[dev]", ".[dev]"]


def test_jensen_venv_comes_before_the_active_environment(machine: Machine) -> None:
    result = machine.run(JENSEN_VENV="mine", VIRTUAL_ENV="/nowhere")
    assert result.returncode == 0, result.stderr
    assert stamp(machine.home / "mine").exists()
    assert not (machine.repo / ".venv").exists()
    active = machine.run(VIRTUAL_ENV=str(machine.home / "mine"))
    assert "using the active environment" in active.stderr
    assert len(machine.pip_calls()) == 1


def test_a_folder_that_is_no_environment_is_left_alone(machine: Machine) -> None:
    (machine.home / "notes").mkdir()
    (machine.home / "notes" / "todo").touch()
    assert "is not a Python environment" in last(machine.run(JENSEN_VENV="notes"))
    assert [path.name for path in (machine.home / "notes").iterdir()] == ["todo"]


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (
            "[Errno -3] Temporary failure in name resolution",
            "The package index cannot be reached (Temporary failure in name",
        ),
        (
            "ERROR: No matching distribution found for torch>=2.11",
            "cannot be reached, or has no torch>=2.11 for Python 3.",
        ),
        ("ERROR: [Errno 28] No space left on device", "ran out of disk space"),
        ("ERROR: [Errno 13] Permission denied", "was not allowed to write"),
    ],
)
def test_pip_failures_are_one_sentence(machine: Machine, says: str, sentence: str) -> None:
    result = machine.run(PIP_EXIT="1", PIP_SAYS=says)
    assert sentence in last(result)
    assert not stamp(machine.repo / ".venv").exists()


def test_another_pip_failure_names_its_log_and_the_next_run_repairs(machine: Machine) -> None:
    result = machine.run(PIP_EXIT="2", PIP_SAYS="a surprise")
    prefix = machine.repo / ".venv"
    assert result.returncode != 0
    assert str(prefix / "jensen-setup.log") in result.stderr
    assert result.stderr.rstrip().endswith("a surprise")
    # What a killed pip leaves: a package whose record looks whole but lacks the last file that pip
    # writes.
    whole, torn = (
        machine.site_packages(prefix) / f"{name}-1.dist-info" for name in ("whole", "torn")
    )
    whole.mkdir()
    (whole / "INSTALLER").touch()
    torn.mkdir()
    repaired = machine.run()
    assert repaired.returncode == 0, repaired.stderr
    assert whole.exists()
    assert not torn.exists()


def test_disk_is_short(machine: Machine) -> None:
    machine.disk(free_gb=3)
    result = machine.run()
    assert "3.0 GB free, about " in last(result)
    assert "JENSEN_VENV" in last(result)
    assert machine.pip_calls() == []


def test_no_network_is_needed_where_all_is_installed(machine: Machine) -> None:
    machine.run()
    prefix = machine.repo / ".venv"
    for name in ("torch", "hatchling"):
        (machine.site_packages(prefix) / f"{name}.py").touch()
    stamp(prefix).unlink()
    machine.disk(free_gb=3)  # no longer asked for
    assert machine.run().returncode == 0
    assert "--no-index --no-build-isolation" in machine.pip_calls()[-1]


def test_environment_that_cannot_be_written_to(machine: Machine) -> None:
    machine.run("setup", "plain")
    prefix = machine.repo / ".venv"
    (prefix / ".jensen-lock").unlink()
    (prefix / ".jensen-lock").mkdir()  # what stops root too, unlike permissions
    assert machine.run("setup", "plain").returncode == 0  # set up already: nothing to write
    assert "cannot be written to" in last(machine.run("setup", "dev", VIRTUAL_ENV=str(prefix)))


def with_modules(machine: Machine, **sources: str) -> None:
    machine.run("setup", "dev")
    for name, source in sources.items():
        (machine.site_packages(machine.repo / ".venv") / f"{name}.py").write_text(source)


def test_train_runs_where_the_caller_stands(machine: Machine) -> None:
    with_modules(machine)
    package = machine.site_packages(machine.repo / ".venv") / "jensen"
    package.mkdir()
    (package / "train.py").write_text(
        "import os, sys; print(os.getcwd(), sys.argv[1:]); sys.exit(3)"
    )
    result = machine.run("train", "model=b c", "x=1")
    assert result.stdout == f"{machine.home.resolve()} ['model=b c', 'x=1']\n"
    assert result.returncode == 3


@pytest.mark.parametrize(("lint", "tests", "status"), [(0, 0, 0), (1, 0, 1), (0, 5, 5), (1, 2, 2)])
def test_tests_run_last_and_whatever_lint_says(
    machine: Machine, lint: int, tests: int, status: int
) -> None:
    with_modules(
        machine,
        ruff=f"import sys; sys.exit({lint})",
        mypy="",
        pytest=f"import sys; print(sys.argv[1:]); sys.exit({tests})",
    )
    result = machine.run("test", "-k", "a b")
    assert result.returncode == status
    assert result.stdout == f"{['-m', 'not slow and not slurm', *PARALLEL, '-k', 'a b']}\n"
    assert ("jensen: failed: ruff check ., ruff format --check . (" in result.stderr) == bool(lint)


def test_slow_option(machine: Machine) -> None:
    with_modules(machine, ruff="", mypy="", pytest="import sys; print(sys.argv[1:])")
    assert machine.run("test", "--slow", "-x").stdout == f"{['-m', 'slow', *PARALLEL, '-x']}\n"


def test_what_is_committed_runs_and_names_no_host() -> None:
    files = [ROOT / "scripts" / name for name in ("setup", "train", "test")] + [
        ROOT / ".ci" / "run"
    ]
    for path in files:
        if path.parent.name == ".ci" and not path.exists():
            continue  # a source distribution has no .ci
        assert os.access(path, os.X_OK), path
        assert "://" not in path.read_text(), path
