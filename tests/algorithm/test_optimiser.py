"""The optimiser asks for no GPU at every step, where there is none."""

import pytest
import torch

from jensen.algorithm import optimiser
from jensen.objective.beta import Beta


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_a_step_does_not_ask_nvml_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning sets it
    asked = []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: asked.append(1) or -1)
    model = torch.nn.Linear(2, 1)

    def step(made):
        model(torch.ones(1, 2)).sum().backward()
        asked.clear()
        made.step()
        return len(asked)

    assert step(torch.optim.Adam(model.parameters(), fused=True)) >= 1
    assert step(optimiser.make(torch.optim.Adam, model, Beta())) == 0
