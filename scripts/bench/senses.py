"""Several senses in one latent: log p(x) beside MultiVae's, and what fusing costs.

    python scripts/bench/senses.py evidence [--points 200] [--peers FOLDER]
    python scripts/bench/senses.py cost [--rounds 20]

evidence: minus log p(x) of points of z ~ N(0, 1), see = z + N(0, .25), hear = z + N(0, 1), summed, by importance
sampling, where each library is given the exact experts and decoders: MVAE beside `fusion=product`, MMVAE beside
`mixture`, MoPoE beside `subsets`, the subsets named. MultiVae is installed by pip into FOLDER, beside this environment's
torch; where it cannot be, that is said.

cost: processor time of one thread. `encode` and a whole step (loss and gradient) of two modalities against two VAEs of
one each, one after the other; `encode` written by hand, in the fewest kernels; a step of all 7 subsets of three
modalities (7 draws an example, encoders once) against one pass, a step of their product with one draw; and the same of
bare modules, with squared errors: what no fusion can go below. Each decoder is asked for all 7 subsets with
`reconstruct=all`, and for the 4 that saw its modality with `reconstruct=given`.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve()
SRC = HERE.parents[2] / "src"
SD = {"see": 0.5, "hear": 1.0}
DRAWS = (100, 1000, 10_000)
SUBSETS = [["see"], ["hear"], ["see", "hear"]]
FUSION = {"MVAE": "product", "MMVAE": "mixture", "MoPoE": "subsets"}
PACKAGES = (
    *("multivae==1.0.3", "pythae==0.1.2", "nltk", "regex", "defusedxml", "imageio"),
    *("pydantic==2.11.7", "pydantic-core==2.33.2", "annotated-types", "typing-inspection"),
)
"""MultiVae and what it loads that is not here, installed without what they ask for."""


def points(count: int) -> Any:
    """`(N, 2)` float32."""
    import torch

    draw = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return draw[:, :1] + draw[:, 1:] * torch.tensor([*SD.values()])


def exact(x: Any) -> float:
    """Minus log p(x) by the joint Gaussian, summed, nats."""
    import torch

    covariance = 1 + torch.diag(torch.tensor([*SD.values()]).double().square())
    joint = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    return -float(joint.log_prob(x.double()).sum())


# ---- log p(x) -------------------------------------------------------------------------------------


def ours(fusion: str, x: Any) -> list[float]:
    import torch

    from jensen.family.gaussian import LOG_VAR_BOUND, Gaussian
    from jensen.model.likelihood import Normal
    from jensen.model.multimodal import MultimodalVAE
    from jensen.model.prior import StandardNormal

    class Expert(torch.nn.Module):
        def __init__(self, sd: float) -> None:
            super().__init__()
            self.raw = LOG_VAR_BOUND * math.atanh(2 * math.log(sd) / LOG_VAR_BOUND)

        def forward(self, x: Any) -> Gaussian:
            return Gaussian(x, torch.full_like(x, self.raw))

    model = MultimodalVAE(
        {name: [1] for name in SD},
        {name: Expert(sd) for name, sd in SD.items()},
        {name: torch.nn.Identity() for name in SD},
        {name: Normal(sd**2) for name, sd in SD.items()},
        StandardNormal(),
        1,
        fusion,
        SUBSETS if fusion == "subsets" else "all",
    )
    return [-float(model.evidence(x, draws).log_p.sum()) for draws in DRAWS]


def theirs(kind: str, x: Any) -> list[float]:
    """Of MultiVae; its MVAE multiplies the prior in, the others take posteriors."""
    import numpy as np
    import torch
    from multivae import models
    from multivae.data.datasets.base import MultimodalBaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.base_architectures import BaseDecoder, BaseEncoder

    class Expert(BaseEncoder):
        def __init__(self, sd: float) -> None:
            super().__init__()
            self.latent_dim = 1
            prior = float(kind != "MVAE")
            self.scale = 1 / (1 + prior * sd**2)
            self.log_var = math.log(sd**2 * self.scale)

        def forward(self, x: Any) -> Any:
            return ModelOutput(
                embedding=x * self.scale, log_covariance=torch.full_like(x, self.log_var)
            )

    class Teller(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.latent_dim = 1

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=z)

    more: dict[str, Any] = {
        "MoPoE": {"subsets": SUBSETS},
        "MMVAE": {"prior_and_posterior_dist": "normal", "learn_prior": False},
    }.get(kind, {})
    config = getattr(models, f"{kind}Config")(
        n_modalities=2,
        latent_dim=1,
        input_dims=dict.fromkeys(SD, (1,)),
        decoders_dist=dict.fromkeys(SD, "normal"),
        decoder_dist_params={name: {"scale": sd} for name, sd in SD.items()},
        **more,
    )
    data = MultimodalBaseDataset({"see": x[:, :1], "hear": x[:, 1:]})
    found = []
    for draws in DRAWS:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 (its experts are chosen by numpy's own generator)
        encoders = {name: Expert(sd) for name, sd in SD.items()}
        model = getattr(models, kind)(config, encoders, {name: Teller() for name in SD})
        found.append(float(model.compute_joint_nll(data, K=draws, batch_size_K=100)))
    return found


def install(folder: Path) -> str:
    """Install MultiVae into a folder of its own; the reason where that fails."""
    done = folder / "installed"
    if done.exists() and done.read_text() == " ".join(PACKAGES):
        return ""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    found = subprocess.run([*command, *PACKAGES], capture_output=True, text=True)
    if found.returncode:
        return found.stderr.strip().splitlines()[-1]
    done.write_text(" ".join(PACKAGES))
    return ""


def asked(kind: str, count: int, folder: Path) -> str:
    """A row of MultiVae's, by a process that has it; or why there is none."""
    own = os.environ | {"PYTHONPATH": os.pathsep.join([str(SRC), str(folder)])}
    command = [sys.executable, "-W", "ignore", str(HERE), "child", kind, "--points", str(count)]
    found = subprocess.run(command, env=own, capture_output=True, text=True)
    rows = [line for line in found.stdout.splitlines() if line.startswith("ROW ")]
    if rows:
        return rows[-1].removeprefix("ROW ")
    return f"fails: {(found.stderr.strip().splitlines() or ['?'])[-1][:100]}"


def row(values: Sequence[float]) -> str:
    return " | ".join(f"{value:.2f}" for value in values)


def evidence(options: argparse.Namespace) -> None:
    x = points(options.points)
    why = install(options.peers)
    print(f"minus log p of {len(x)} points, exactly {exact(x):.2f} nats; by so many draws:\n")
    print("| | " + " | ".join(f"{draws:,}" for draws in DRAWS) + " |\n|---|---|---|---|")
    for kind, fusion in FUSION.items():
        said = f"cannot be installed: {why}" if why else asked(kind, len(x), options.peers)
        print(f"| MultiVae's {kind} | {said} |")
        print(f"| `fusion={fusion}` | {row(ours(fusion, x))} |", flush=True)


# ---- cost -----------------------------------------------------------------------------------------


def seconds(calls: Sequence[Callable[[], object]], rounds: int, times: int) -> list[float]:
    """Processor time of each call, the least over rounds in turn: others' load adds to all."""
    best = [math.inf] * len(calls)
    for _ in range(rounds + 1):
        for place, call in enumerate(calls):
            start = time.process_time()
            for _ in range(times):
                call()
            best[place] = min(best[place], (time.process_time() - start) / times)
    return best


class Networks(NamedTuple):
    """Numbers of a modality, of a hidden layer, of latents, and of a batch."""

    size: int
    hidden: int
    latents: int
    batch: int

    def several(self, names: str, fusion: str = "product", reconstruct: str = "all") -> Any:
        from jensen.model.likelihood import Normal
        from jensen.model.mlp import MLPDecoder, MLPEncoder
        from jensen.model.multimodal import MultimodalVAE
        from jensen.model.prior import StandardNormal

        return MultimodalVAE(
            {name: [self.size] for name in names},
            {"each": partial(MLPEncoder, hidden=[self.hidden])},
            {"each": partial(MLPDecoder, hidden=[self.hidden])},
            {"each": Normal},
            StandardNormal(),
            self.latents,
            fusion,
            reconstruct=reconstruct,
        )

    def one(self) -> Any:
        from jensen.model.likelihood import Normal
        from jensen.model.mlp import MLPDecoder, MLPEncoder
        from jensen.model.prior import StandardNormal
        from jensen.model.vae import VAE

        shape = {"x_shape": [self.size], "latent_dim": self.latents, "hidden": [self.hidden]}
        parts = MLPEncoder(**shape), MLPDecoder(**shape)
        return VAE(*parts, Normal(), StandardNormal(), self.latents)


def encoded(model: Any, x: Any) -> None:
    import torch

    with torch.no_grad():
        model.encoded(x)


def in_turn(calls: Sequence[Callable[[], object]]) -> None:
    """One after another, so that the weights of each are as far from the processor as in a model of several."""
    for call in calls:
        call()


def least(model: Any, x: Any) -> Any:
    """`encode` of a product of two in as few kernels as it has: no class, no check."""
    import torch

    with torch.no_grad():
        parts = x.nan_to_num(0.0).chunk(2, 1)
        raw = [net(part) for net, part in zip(model.encoder.each.values(), parts, strict=True)]
        mean = torch.stack([each.mean for each in raw], 1).clamp(-1e6, 1e6)
        log_precision = torch.tanh(torch.stack([each.log_var for each in raw], 1) / 20) * -20
        absent = torch.stack([part[:, 0] for part in x.chunk(2, 1)], 1).isnan()
        precision = log_precision.exp().masked_fill(absent.unsqueeze(-1), 0.0)
        total = precision.sum(1) + 1
        return (precision * mean).sum(1) / total, -total.log()


def step(model: Any, x: Any, noise: Any) -> None:
    import torch

    from jensen.objective.beta import Beta

    model.zero_grad()
    Beta(1.0)(model(x, noise), torch.tensor(0)).backward()


def bare(model: Any, parts: Sequence[Any], seen: Sequence[Any]) -> None:
    """A step of the networks alone, each decoder of as many codes as its part of `seen` has rows."""
    model.zero_grad()
    encoders, decoders = model.encoder.each.values(), model.decoder.each.values()
    experts = [encoder(part) for encoder, part in zip(encoders, parts, strict=True)]
    z = sum(expert.mean for expert in experts)
    loss = sum(expert.log_var.sum() for expert in experts)
    for decoder, part in zip(decoders, seen, strict=True):
        codes = z.repeat(len(part) // len(z), 1)
        loss = loss + (decoder(codes) - part).square().sum()
    loss.backward()


def ratios(networks: Networks, rounds: int) -> list[float]:
    import torch

    parts = [torch.randn(networks.batch, networks.size) for _ in range(3)]
    noise = torch.randn(networks.batch, networks.latents)
    alone = [networks.one() for _ in range(2)]
    two = networks.several("ab")
    both = torch.cat(parts[:2], 1)
    times = 2 if networks.size > 2 else 20
    pairs = [*zip(alone, parts, strict=False)]
    calls = [partial(encoded, two, both)]
    calls += [partial(in_turn, [partial(encoded, *pair) for pair in pairs])]
    calls += [partial(least, two, both)]
    product, each, floor = seconds(calls, 4 * rounds, 4 * times)
    found = [product / each, floor / each]
    calls = [partial(step, two, both, noise)]
    calls += [partial(in_turn, [partial(step, *pair, noise) for pair in pairs])]
    product, each = seconds(calls, rounds, times)
    found.append(product / each)
    one = networks.several("abc")
    x = torch.cat(parts, 1)
    many = torch.randn(7 * networks.batch, networks.latents + 1)
    calls = [partial(step, one, x, noise), partial(bare, one, parts, parts)]
    for reconstruct, decoded in (("all", 7), ("given", 4)):
        three = networks.several("abc", "subsets", reconstruct)
        seen = [part.repeat(decoded, 1) for part in parts]
        calls += [partial(step, three, x, many), partial(bare, three, parts, seen)]
    once, bare_once, every, bare_every, given, bare_given = seconds(calls, rounds, times)
    found += [every / once, bare_every / bare_once, given / once, bare_given / bare_once]
    return found


def cost(options: argparse.Namespace) -> None:
    import torch

    from jensen.base.memory import keep_freed

    torch.set_num_threads(1)
    keep_freed()  # as a run does
    print(
        "| networks | encode, of two VAEs' | the same by hand | step, of two VAEs' | 7 subsets, of one pass"
        " | of bare networks | 7 subsets, given | of bare networks |\n" + "|---" * 8 + "|"
    )
    for networks in (Networks(784, 400, 20, 128), Networks(2, 64, 2, 256)):
        name = f"{networks.size}-{networks.hidden}-{networks.latents}, batch {networks.batch}"
        print(f"| {name} | {row(ratios(networks, options.rounds))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("what", choices=["evidence", "cost", "child"])
    parser.add_argument("kind", nargs="?", choices=[*FUSION], help=argparse.SUPPRESS)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peers", type=Path, default=cache / "jensen" / "bench_peers" / "multivae")
    options = parser.parse_args()
    if options.what == "child":
        print(f"ROW {row(theirs(options.kind, points(options.points)))}")
    else:
        {"evidence": evidence, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
