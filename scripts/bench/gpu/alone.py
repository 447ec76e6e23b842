"""Imported by each part of `python scripts/bench/gpu`: a sentence for who runs that part itself."""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def sentence(name: str) -> str:
    """What is said in the place of a part, by the name of its file."""
    sections = runpy.run_path(str(HERE / "__main__.py"))["SECTIONS"]
    names = ",".join(key for key, section in sections.items() if section.module == name)
    words = f"--sections {names}" if names else "--help"
    return (
        f"{name}.py is a part of python scripts/bench/gpu: expected that; run python"
        f" scripts/bench/gpu {words}"
    )


_run = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
if _run.parent == HERE and _run.stem != "__main__":
    sys.exit(sentence(_run.stem))
