"""The learning rate that each step is made with, once a step."""

from runs import scalar
from tiny import TINY

from jensen.launch.training import train

RUN = (
    *(*TINY, "trainer.accelerator=cpu", "trainer.val_check_interval=4", "diagnostics=[]"),
    *("trainer.log_every_n_steps=1", "callbacks=[checkpoint,lr_monitor]", "optimizer.lr=0.1"),
    *("+schedule@algorithm.lr_scale=linear", "algorithm.lr_scale.start=1"),
    *("algorithm.lr_scale.end=0", "algorithm.lr_scale.steps=5", "data.batch_size=40"),
)


def test_the_rate_of_a_run_that_goes_on_from_its_end_is_its_schedules(configure, tmp_path):
    words = ("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=2")
    train(configure(*RUN, *words, "trainer.max_steps=5"), tmp_path)
    train(configure(*RUN, *words, "trainer.max_steps=7"), tmp_path)
    found = scalar(tmp_path, "train/lr")
    expected = [0.1, 0.08, 0.06, 0.04, 0.02, 0.0, 0.0]
    assert [round(found[step], 6) for step in range(7)] == expected
    assert len(found) == 7
