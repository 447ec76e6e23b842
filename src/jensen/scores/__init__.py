"""Scores of a code against known factors: `score(codes, factors, ...) -> dict`, the score itself
first.

Codes `(N, D)` are the posterior's means, factors `(N, F)` integer labels; both arrays or tensors.
Informations are in nats. A constant latent tells nothing (see `constant`). One file a score, which
names its variant. Each is a function of its arguments and a seed: same inputs, same bytes.
"""

# Not lazily: once a score's own file were imported, it would take the name of the function here.
# What is slow to import, scikit-learn, is imported by the functions that need it.
from jensen.scores.active_units import active_units
from jensen.scores.beta_vae import beta_vae
from jensen.scores.dci import dci
from jensen.scores.dci_boost20 import dci_boost20
from jensen.scores.dcimig import dcimig
from jensen.scores.explicitness import explicitness
from jensen.scores.factor_vae import factor_vae
from jensen.scores.infomec import infomec
from jensen.scores.irs import irs
from jensen.scores.jemmig import jemmig
from jensen.scores.mig_exact import mig_exact
from jensen.scores.mig_hist import mig_hist
from jensen.scores.mig_hist20 import mig_hist20
from jensen.scores.mig_knn import mig_knn
from jensen.scores.mig_sup import mig_sup
from jensen.scores.modularity import modularity
from jensen.scores.sap_r2 import sap_r2
from jensen.scores.sap_svc import sap_svc
from jensen.scores.udr import udr

__all__ = [
    "active_units",
    "beta_vae",
    "dci",
    "dci_boost20",
    "dcimig",
    "explicitness",
    "factor_vae",
    "infomec",
    "irs",
    "jemmig",
    "mig_exact",
    "mig_hist",
    "mig_hist20",
    "mig_knn",
    "mig_sup",
    "modularity",
    "sap_r2",
    "sap_svc",
    "udr",
]
