"""A tour of jensen in Python, cell by cell: open it in an editor or in Jupyter (by jupytext), or
run it.

python scripts/tour.py      # half a minute on two CPU cores; runs/ and tour.png appear where you
stand. STEPS=100 in the environment makes it shorter.
"""

# %% [markdown]
# # A VAE in a notebook
# A square that moves: two factors, 1,024 pictures. Does a model that sees only pictures find the two?

# %%
import os

import matplotlib.pyplot as plt
import torch
from torch import nn

import jensen

latents = jensen.data.sprites.grid(["posX", "posY"])
latents[:, 1] = 5  # the largest
x = torch.as_tensor(jensen.data.sprites.render(latents))[:, None, ::2, ::2]  # 0 and 1
factors = latents[:, 3:]

# %% [markdown]
# ## Model and training
# Parts are modules of your own, or names of `conf/model`. `fit` leaves a run in a folder. TensorBoard
# and every command of jensen take it, and the same call in the same folder continues it.


# %%
class Encoder(nn.Module):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 2 * latent_dim)
        )

    def forward(self, x: torch.Tensor) -> jensen.Gaussian:
        return jensen.Gaussian(*self.body(x).chunk(2, -1))  # mean and log-variance


decoder = nn.Sequential(
    nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 1024), nn.Unflatten(1, (1, 32, 32))
)
model = jensen.VAE(Encoder(4), decoder, likelihood="bernoulli", latent_dim=4)
steps = int(os.environ.get("STEPS", "2000"))
run = jensen.fit(
    model,
    (x, factors),
    validation=256,
    max_steps=steps,
    overrides=["objective.beta=8", "diagnostics=[rate]", "trainer.accelerator=cpu"],
)
print(run, run.results["val/elbo"])

# %% [markdown]
# ## Looking at it
# Nothing below needs a gradient, and nothing changes the model. Every number is in nats per example.

# %%
few = x[100::200].float()
inference = model(few)  # what a training step sees: the bound, q(z|x), a draw z
print(inference.bound.distortion, inference.bound.rate)
print(model.elbo(few, samples=16))

# %%
rates = torch.tensor(
    run.scores["rate"]["by_latent"]
)  # KL of each latent to the prior: near 0, it is unused
active = (rates > 0.1).nonzero()[:, 0].tolist()
rows = [few.squeeze(1), model.reconstruct(few).squeeze(1), model.sample(len(few)).squeeze(1)]
rows += [
    model.traverse(few[2:3], latent)[0, :: 10 // (len(few) - 1)].squeeze(1) for latent in active
]
labels = ["data", "reconstruction", "sample", *(f"z{latent}" for latent in active)]
figure, axes = plt.subplots(len(rows), len(few), figsize=(1.2 * len(few), 1.2 * len(rows)))
for line, images, label in zip(axes, rows, labels, strict=True):
    for place, image in zip(line, images, strict=False):
        place.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
    line[0].set_ylabel(label)
for place in axes.flat:
    place.set(xticks=[], yticks=[])
figure.savefig("tour.png")

# %% [markdown]
# ## Which latent knows which factor
# A score is a function of codes and factors. Trust none alone: the README says what fools each.

# %%
codes = run.encode(x).mean
for score in ("mig_hist20", "mig_exact"):
    print(score, run.diagnose([score])[score][score])
print(jensen.scores.sap_r2(codes, factors)["sap_r2"])

# %% [markdown]
# ## The three parts of the rate
# rate = mutual information + total correlation + dimension-wise KL, exactly, with standard errors.

# %%
parts = jensen.decompose(run.encode(x), samples=1000, generator=torch.Generator().manual_seed(0))
print(parts.mutual_information, parts.total_correlation, parts.dimension_wise_kl)

# %% [markdown]
# ## Later, or elsewhere

# %%
again = jensen.load(
    run.folder / "checkpoints" / "best.ckpt", model=model
)  # parts by name need none
print(again, again.scores["rate"]["by_latent"])

# %% [markdown]
# ## A mixture of the codes
# The same bound, raised by EM instead of by gradient.

# %%
for components in (1, 8):
    mixture = jensen.GMM(components, "full").fit(codes)
    print(components, mixture.log_prob(codes).mean(), "nats per code")
