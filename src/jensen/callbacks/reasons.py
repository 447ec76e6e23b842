"""The words for what ended a training."""

STEPS = "trainer.max_steps"
EPOCHS = "trainer.max_epochs"
TIME = "trainer.max_time"
CALLBACK = "a callback"
EARLY = "EarlyStopping"
