"""Models: encoders, decoders, likelihoods, priors, mixtures."""

from jensen.base.lazy import lazily

PLACES = {
    "BayesianGMM": "bayesian_gmm",
    "BayesianMixturePrior": "bayesian_prior",
    "Bernoulli": "likelihood",
    "ColumnNormal": "column_normal",
    "ContinuousBernoulli": "likelihood",
    "ConvDecoder": "conv",
    "ConvEncoder": "conv",
    "CrossEntropy": "likelihood",
    "DiffusionPrior": "diffusion_prior",
    "EMLayer": "em_layer",
    "FactorisedMixturePrior": "factorised_prior",
    "FlowPrior": "flow_prior",
    "GMM": "gmm",
    "LearnedNormal": "likelihood",
    "LinearDecoder": "linear",
    "LinearEncoder": "linear",
    "MLPDecoder": "mlp",
    "MLPEncoder": "mlp",
    "MixtureModel": "mixture_model",
    "MixturePrior": "mixture_prior",
    "MultimodalVAE": "multimodal",
    "Normal": "likelihood",
    "OneHot": "one_hot",
    "OptimalNormal": "likelihood",
    "StandardNormal": "prior",
    "VAE": "vae",
    "VampPrior": "vamp",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
