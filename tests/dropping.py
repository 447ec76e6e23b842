"""A network that draws by itself, for configurations to name."""

from torch import Tensor, nn

from jensen.family.gaussian import Gaussian
from jensen.model.mlp import MLPEncoder


class Encoder(nn.Module):
    """With dropout, which draws from torch's own generator, and running statistics."""

    def __init__(self, x_shape: list[int], latent_dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Dropout(0.2), nn.BatchNorm2d(x_shape[0]), MLPEncoder(x_shape, latent_dim, [16])
        )

    def forward(self, x: Tensor) -> Gaussian:
        return self.body(x)
