"""p(z | c): a normal prior whose mean and variance depend on the conditions."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from jensen.base.errors import InputError, check_count, check_counts
from jensen.family.family import Posterior
from jensen.family.gaussian import Gaussian, bounded
from jensen.family.unknown import Unknown
from jensen.model.modalities import Modalities

SENTENCE = (
    "model.prior is conditional_normal, and its density of a code alone was asked for: expected the"
    " condition too; leave out what asks, or take model/prior=standard_normal"
)


class ConditionalNormal(nn.Module):
    """N(mean(c), diag var(c)), whose mean and log-variance a network makes of the conditions c
    (Sohn et al. 2015, "Learning structured output representation using deep conditional generative
    models"). It begins as N(0, I) and learns by gradient.

    Args:
        latent_dim: D.
        hidden: sizes of layers between; none makes it linear, a mean and a variance for each value
            of a one-hot condition.
    """

    rate_is_bound = False
    warmup = 0

    def __init__(self, latent_dim: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        check_count("latent_dim", latent_dim)
        check_counts("hidden", hidden or [1])
        self.latent_dim = latent_dim
        self.hidden = tuple(hidden)
        self.net: nn.Module | None = None

    def condition_on(self, modalities: Modalities) -> None:
        """Make the network, of the conditions of these modalities.

        Raises:
            InputError: there are none.
        """
        if not modalities.given:
            raise InputError(
                "model.prior is conditional_normal and data.condition is []: expected a modality"
                " that is given, such as data.condition=[label]; set it, or take"
                " model/prior=standard_normal"
            )
        inputs = sum(prod(modalities.shape_of[name]) for name in modalities.given)
        layers: list[nn.Module] = []
        for before, after in pairwise((inputs, *self.hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        last = nn.Linear((inputs, *self.hidden)[-1], 2 * self.latent_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(*layers, last)

    def given(self, conditions: Tensor) -> Gaussian:
        """p(z | c), `(B, C)` to `(B, D)`."""
        assert self.net is not None
        mean, log_var = self.net(conditions).chunk(2, -1)
        return bounded(Gaussian(mean, log_var))

    def update(self, posterior: Posterior, step: Tensor) -> None:
        pass

    def distribution(self) -> Unknown:
        """A stand-in for p(z), whose density is not known without a condition.

        Raises:
            InputError: the model has no conditions.
        """
        if self.net is None:
            raise InputError(
                "model.prior is conditional_normal and the model is given nothing: expected"
                " model=multimodal, with data.condition; choose these, or model/prior=standard_normal"
            )
        return Unknown(SENTENCE)
