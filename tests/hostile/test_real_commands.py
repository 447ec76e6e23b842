"""Some of the bad input as commands of a shell, with all that a process of its own brings: ranks,
exit codes, output.
"""

import pytest
import shell
from commands import contents
from conftest import QUICK

DDP = (
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    *(word for word in QUICK if "accelerator" not in word),
)
CASES = {
    "ranks that do not divide the batch": (
        ("train", *DDP, "data.batch_size=13", "hydra.run.dir=run"),
        "data.batch_size is 13 over all ranks: expected a multiple of the 2 ranks",
    ),
    "fewer held-out examples than ranks": (
        ("train", *DDP, "data.validation=1", "hydra.run.dir=run"),
        "there are 1 examples to evaluate: expected at least one for each of the 2 ranks",
    ),
    "no such run": (
        ("evaluate", "run=nowhere"),
        "run=nowhere has no .hydra/config.yaml: expected the folder of a run",
    ),
    "no codes": (("evaluate", "codes=notes.txt"), "notes.txt cannot be read"),
    "nothing to encode": (("encode",), "run is not set: expected run=FOLDER"),
    "no sweep": (
        ("report", "sweep=notes.txt"),
        "sweep=notes.txt is no folder: expected the folder of a sweep",
    ),
    "no GPU": (
        ("train", *QUICK, "trainer.accelerator=tpu", "hydra.run.dir=run"),
        "trainer cannot be made (",
    ),
    "an argument of the doctor's": (
        ("doctor", "--quick"),
        "--quick is no option of python -m jensen.doctor: expected none",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_command(tmp_path, case):
    (program, *words), message = CASES[case]
    (tmp_path / "notes.txt").write_text("mine")
    done = shell.run(f"jensen.{program}", *words, cwd=tmp_path)
    assert done.returncode not in (0, None)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    after = contents(tmp_path)
    assert after["notes.txt"] == b"mine"
    assert not [
        name for name in after if name.endswith((".ckpt", ".partial", "finished.json", ".npz"))
    ]
    if program != "train":
        assert set(after) == {"notes.txt"}
