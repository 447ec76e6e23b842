"""Everyday arrays in every entry of `jensen.GMM`: read as the numbers they hold, or refused in one
sentence.
"""

import datetime
import decimal
import fractions
import re

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.utils.data import DataLoader, TensorDataset

from jensen.base.errors import InputError
from jensen.family.moments import PseudoCounts
from jensen.model.arrays import as_tensor
from jensen.model.em_layer import EMLayer
from jensen.model.gmm import GMM

X = np.random.default_rng(0).normal(size=(120, 2)) + 6 * (np.arange(120) % 2)[:, None]
WEIGHTS = 1.0 + np.arange(120) % 3
HOLES = np.zeros(X.shape, bool)
HOLES[::7, 1] = True


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class Frame:
    """What a pandas or polars frame looks like from outside."""

    def __init__(self, x, columns=("height", "width")):
        self._x = x
        self.columns = list(columns)
        self.shape = x.shape

    def to_numpy(self):
        return self._x


class Column:
    def __init__(self, x):
        self._x = x

    def to_numpy(self):
        return self._x


class Tagged(torch.Tensor):
    pass


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def backwards(x):
    return x[::-1].copy()[::-1]


ROWS = {
    "negative strides": backwards,
    "columns first": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "longdouble": lambda x: x.astype(np.longdouble),
    "read-only": read_only,
    "list of rows": list,
    "tuple of tuples": lambda x: tuple(map(tuple, x)) if x.ndim == 2 else tuple(x),
    "list of tensors": lambda x: list(torch.from_numpy(x)),
    "objects": lambda x: x.astype(object),
    "frame": lambda x: Frame(x) if x.ndim == 2 else Column(x),
    "frame of objects": lambda x: (
        Frame(x.astype(object)) if x.ndim == 2 else Column(x.astype(object))
    ),
    "unmasked": np.ma.masked_array,
    "tensor": torch.from_numpy,
    "subclass": lambda x: torch.from_numpy(x).as_subclass(Tagged),
    "parameter": lambda x: torch.nn.Parameter(torch.from_numpy(x)),
    "integers and halves": lambda x: x,
    "memory view": lambda x: memoryview(np.ascontiguousarray(x)),
    "leaf with a gradient": lambda x: torch.from_numpy(x.copy()).requires_grad_(),
    "not a leaf": lambda x: torch.from_numpy(x.copy()).requires_grad_() * 1,
    "decimals": np.vectorize(decimal.Decimal, otypes=[object]),
}


@pytest.mark.parametrize("kind", ROWS)
def test_whatever_holds_the_numbers_they_are_the_same_numbers(kind):
    of = ROWS[kind]
    plain = GMM(2, init=X[:2]).fit(X, WEIGHTS)
    gmm = GMM(2, init=of(X[:2])).fit(of(X), of(WEIGHTS))
    close(gmm.mean, plain.mean)
    x = of(X[:9])
    values = of(X[0, :1])
    for name in ("log_prob", "predict", "responsibilities"):
        found = getattr(gmm, name)(x).detach()
        assert type(found) is torch.Tensor
        close(found, getattr(plain, name)(X[:9]))
    close(gmm.bound(x).elbo.detach(), plain.bound(X[:9]).elbo)
    assert gmm.bic(of(X)) == pytest.approx(plain.bic(X), rel=1e-12)
    assert gmm.aic(of(X)) == pytest.approx(plain.aic(X), rel=1e-12)
    conditional = gmm.conditional([0], values).components.mean.detach()
    close(conditional, plain.conditional([0], X[0, :1]).components.mean)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.int64, np.uint64, bool])
def test_narrow_numbers_are_what_they_say(dtype):
    x = np.abs(np.round(X)).astype(dtype)
    plain, found = (GMM(2, "diag", init="random").fit(each) for each in (x.astype(np.float64), x))
    torch.testing.assert_close(found.mean, plain.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found.log_prob(x).double(), plain.log_prob(x.astype(np.float64)), rtol=1e-5, atol=1e-5
    )


def test_pandas_and_polars_frames():
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    plain = GMM(2, init=X[:2]).fit(X)
    for frame in (pandas.DataFrame(X, columns=["a", "b"]), polars.DataFrame(X, schema=["a", "b"])):
        gmm = GMM(2, init=frame[:2]).fit(frame)
        close(gmm.mean, plain.mean)
        assert gmm.columns == ("a", "b")
        close(gmm.log_prob(frame), plain.log_prob(X))
        assert gmm.bic(frame) == pytest.approx(plain.bic(X), rel=1e-12)
    nullable = pandas.DataFrame(
        {"a": [1, 2, None, 4, 8] * 9, "b": np.arange(45.0)}
    ).convert_dtypes()
    assert GMM(1, missing=True).fit(nullable).mean[0, 0].item() == pytest.approx(3.75, abs=0.3)
    with pytest.raises(InputError, match=r"NaN in row 2, column 0 \(a\)"):
        GMM(1).fit(nullable)
    with pytest.raises(InputError, match=r"'red' at \[0, 1\] \(column c\)"):
        GMM(1).fit(pandas.DataFrame({"a": [1.0, 2.0], "c": ["red", "blue"]}))


def test_a_frames_columns_come_back():
    gmm = GMM(2).fit(Frame(X))
    assert gmm.columns == ("height", "width")
    assert torch.equal(gmm.marginal(["width"]).components.mean, gmm.marginal([1]).components.mean)
    by_name = gmm.conditional(["width"], [2.0]).components.mean
    assert torch.equal(by_name, gmm.conditional([1], [2.0]).components.mean)
    for call in (gmm.log_prob, gmm.predict, gmm.bound, gmm.bic):
        with pytest.raises(
            InputError, match="x has the columns width, height: expected height, width"
        ):
            call(Frame(X[:, ::-1], ["width", "height"]))
    with pytest.raises(
        InputError,
        match=r"dims is \['depth'\]: expected different coordinates of 0..1 or height, width",
    ):
        gmm.marginal(["depth"])
    with pytest.raises(InputError, match=r"column 1 \(width\) of x is 3 in every point"):
        GMM(2).fit(Frame(np.where(np.arange(2) == 1, 3.0, X)))
    with pytest.raises(InputError, match=r"inf.* in row 4, column 0 \(height\)"):
        GMM(2).fit(Frame(np.where((np.arange(120) == 4)[:, None] & (np.arange(2) == 0), np.inf, X)))
    assert GMM(2).fit(X).columns is None
    assert GMM(2).fit(Frame(X, range(2))).columns is None


def test_batches_of_every_kind():
    x = torch.from_numpy(X)
    plain = GMM(2, "diag", init=X[:2]).fit(X)
    for batches in (
        DataLoader([{"x": row, "label": 1} for row in x], 50),
        DataLoader(TensorDataset(x, x[:, 0]), 50),
        list(x.split(50)),
        tuple(x.split(50)),
        [(part, 0) for part in x.split(50)],
        [part.numpy()[::-1] for part in x.split(50)],
        [np.ma.masked_array(part.numpy()) for part in x.split(50)],
        [Frame(part.numpy()) for part in x.split(50)],
        [part.clone().requires_grad_() for part in x.split(50)],
    ):
        found = GMM(2, "diag", init=X[:2]).fit(batches)
        torch.testing.assert_close(found.mean, plain.mean, rtol=1e-9, atol=1e-9)
        assert found.bic(batches) == pytest.approx(found.bic(X))


MASKED = np.ma.masked_array(np.where(HOLES, 1e4, X), HOLES)
HOLED = np.where(HOLES, np.nan, X)


def test_a_mask_is_read_as_missing_or_refused():
    plain = GMM(2, missing=True, init=X[1:3]).fit(HOLED)
    found = GMM(2, missing=True, init=X[1:3]).fit(MASKED)
    assert torch.equal(found.mean, plain.mean)
    assert torch.equal(found.log_prob(MASKED), plain.log_prob(HOLED))
    assert torch.equal(found.bound(MASKED).rate, plain.bound(HOLED).rate)
    assert found.bic(MASKED) == plain.bic(HOLED)
    batches = [MASKED[:60], MASKED[60:]]
    torch.testing.assert_close(GMM(2, missing=True, init=X[1:3]).fit(batches).mean, plain.mean)
    torch.testing.assert_close(GMM(2, missing=True, init=X[1:3]).fit(list(MASKED)).mean, plain.mean)


class Lazy:
    """What a polars LazyFrame looks like from outside."""

    def collect(self):
        raise NotImplementedError


def cut(x, part):
    """A part of `x`, or the whole of what has no parts."""
    try:
        return x[part]
    except (TypeError, RuntimeError, NotImplementedError):
        return x


FITTED = GMM(2).fit(X)
ENTRIES = {
    "fit": lambda bad: GMM(2).fit(bad),
    "fit of batches": lambda bad: GMM(2).fit([bad, bad]),
    "weights": lambda bad: GMM(2).fit(X, cut(bad, np.s_[:, 0])),
    "init": lambda bad: GMM(2, init=cut(bad, np.s_[:2])).fit(X),
    "log_prob": FITTED.log_prob,
    "forward": FITTED,
    "predict": FITTED.predict,
    "responsibilities": FITTED.responsibilities,
    "bound": FITTED.bound,
    "bic": FITTED.bic,
    "aic": FITTED.aic,
    "values": lambda bad: FITTED.conditional([0], cut(bad, np.s_[:, :1])),
    "r": lambda bad: FITTED.bound(X, bad),
}
JAGGED = torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)], layout=torch.jagged)
BAD = {
    "mask": (
        np.ma.masked_array(X, np.arange(240).reshape(X.shape) % 120 == 0),
        "masked values, the first at",
    ),
    "imaginary parts": (X + 5j, "complex numbers: expected real ones"),
    "imaginary parts of a tensor": (
        torch.from_numpy(X) + 5j,
        "complex numbers: expected real ones",
    ),
    "text": (X.astype(str), "expected numbers"),
    "text among objects": (
        np.where(np.arange(2) == 0, X.astype(object), "1.5"),
        r"holds '1.5' at \[0",
    ),
    "times": (X.astype("datetime64[s]"), "array of datetime64"),
    "sparse": (torch.from_numpy(X).to_sparse(), "use to_dense"),
    "scipy's sparse": (
        sparse.csc_matrix(X),
        "is a csc_matrix: expected an array of numbers; use toarray",
    ),
    "lazy": (Lazy(), "expected .*numbers; use collect"),
    "no device's": (
        torch.from_numpy(X).to("meta"),
        "is a tensor on the device meta, which has no numbers",
    ),
    "nested": (JAGGED, "is a nested tensor: expected rows of as many"),
    "spans": (X.astype("timedelta64[s]"), "array of timedelta64"),
    "dates": (
        np.full(X.shape, datetime.datetime(2020, 1, 1)),
        r"holds datetime.datetime\(2020, 1, 1, 0, 0\) at \[0",
    ),
    "records": (np.zeros((120, 2), [("a", "f8")]), "expected numbers"),
    "bytes": (X.astype("S"), "expected numbers"),
    "long integers": (
        (X * 10).astype(np.int64) + 2**60 + 1,
        "holds the integer 1152.*, which float64 would round",
    ),
    "long integers of torch": (
        torch.full((120, 2), 2**53 + 1),
        "holds the integer 9007199254740993, which",
    ),
    "long integers of Python": (
        np.full((120, 2), 2**70 + 1, object),
        "holds the integer 1180591620717411303425, which",
    ),
    "unsigned integers": (
        np.full((120, 2), 2**64 - 1, np.uint64),
        "holds the integer 18446744073709551615, which",
    ),
}


def refused(entry, bad):
    """What it says."""
    try:
        ENTRIES[entry](bad)
    except InputError as error:
        return str(error)
    pytest.fail(f"{entry} takes it")


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_real_number_is_refused_everywhere(kind):
    for entry in ENTRIES:
        bad, message = BAD[kind]
        if kind == "text among objects" and entry in ("weights", "values"):
            bad = bad[:, ::-1]
        said = refused(entry, bad)
        assert re.search(message, said), entry
        assert "\n" not in said
        assert len(said) < 250


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused_everywhere(value):
    bad = X.copy()
    bad[0, 0] = value
    for entry in ENTRIES:
        assert re.search(r"finite|numbers of at least 0", refused(entry, bad)), entry


@pytest.mark.parametrize(
    "entry", ["log_prob", "predict", "responsibilities", "bound", "bic", "aic"]
)
def test_an_infinite_number_is_not_missing(entry):
    gmm = GMM(2, missing=True).fit(X)
    with pytest.raises(InputError, match="an infinite number in row 3, column 1"):
        getattr(gmm, entry)(np.where(np.arange(240).reshape(X.shape) == 7, np.inf, X))


def test_the_row_of_a_bad_number_is_counted_over_batches():
    bad = X.copy()
    bad[100, 1] = np.nan
    with pytest.raises(InputError, match="NaN in row 100, column 1"):
        FITTED.bic(list(torch.from_numpy(bad).split(32)))


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_the_bound_of_missing_values_is_tight(covariance):
    gmm = GMM(2, covariance, missing=True).fit(HOLED)
    bound = gmm.bound(HOLED)
    torch.testing.assert_close(bound.elbo, gmm.log_prob(HOLED), rtol=1e-12, atol=1e-12)
    assert (bound.rate >= 0).all()
    even = gmm.bound(HOLED, np.full((120, 2), 0.5)).elbo
    assert (even <= bound.elbo + 1e-12).all()
    assert even.isfinite().all()
    whole = ~HOLES.any(1)
    torch.testing.assert_close(bound.elbo[whole], GMM.of(gmm.mixture).bound(X[whole]).elbo)
    with pytest.raises(InputError, match=r"r has the shape \(1, 2\): expected \(120, 2\)"):
        gmm.bound(HOLED, np.full((1, 2), 0.5))


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_only_ratios_of_weights_matter(covariance):
    plain = GMM(2, covariance, init=X[:2]).fit(X, WEIGHTS)  # a start of cells has pseudo-counts
    for scale in (2.0**-960, 2.0**-400, 2.0**400, 2.0**960):
        found = GMM(2, covariance, init=X[:2]).fit(X, WEIGHTS * scale)
        close(found.mean, plain.mean)
        close(found.log_weight, plain.log_weight)
        assert found.log_likelihood / scale == pytest.approx(plain.log_likelihood)
    tiny = GMM(2, covariance).fit(X, np.full(120, 1e-290))
    assert tiny.log_weight.exp().sum().item() == pytest.approx(1.0)
    close(tiny.log_weight.sort().values, GMM(2, covariance).fit(X).log_weight.sort().values)
    holed = [
        GMM(2, covariance, missing=True, init=X[1:3]).fit(HOLED, WEIGHTS * by).mean
        for by in (1, 2.0**-960)
    ]
    close(*holed)
    for extreme in (5e-324, 1e308):
        with pytest.raises(
            InputError, match="expected numbers nearer to 1; divide them by their mean"
        ):
            GMM(2, covariance).fit(X, np.full(120, extreme))


def test_pseudo_counts_are_in_the_unit_of_the_weights():
    """As many copies, as large a prior: the same posterior."""
    prior = PseudoCounts(weight=3.0, covariance=2.0)
    plain = GMM(2, prior=prior).fit(X)
    scale = 2.0**400
    found = GMM(2, prior=PseudoCounts(weight=3 * scale, covariance=2 * scale)).fit(
        X, np.full(120, scale)
    )
    torch.testing.assert_close(found.mean, plain.mean)
    torch.testing.assert_close(found.log_weight, plain.log_weight)


def test_a_layer_takes_no_weights_out_of_range():
    layer = EMLayer(2, 2)
    x = torch.from_numpy(X)[None]
    for extreme in (1e-290, 1e290):
        with pytest.raises(InputError, match="divide them by their mean"):
            layer(x, weights=torch.full((1, 120), extreme, dtype=torch.float64))
    with pytest.raises(InputError, match="x is a ndarray: expected a tensor"):
        layer(X[None])
    for scale in (1e101, 1e160, np.inf):
        with pytest.raises(
            InputError, match=r"NaN or infinite values, or some beyond 1e\+100, .* or rescale x"
        ):
            layer(x * scale)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": [1.0, 2.0]}, "x is a dict: expected"),
        ({1.0, 2.0}, "x is a set: expected"),
        ("points.csv", "x is a str: expected"),
        (None, "x is a NoneType: expected"),
        ([[1.0, 2.0], [3.0]], "x is a list that is no array: expected rows of as many numbers"),
        (
            DataLoader([{"y": row} for row in torch.from_numpy(X)], 50),
            'dicts of y: expected points as "x"',
        ),
        ([np.ones((3, 2)), "text"], "x is a str: expected"),
        ([torch.ones(3), torch.ones(4)], "x is a list that is no array"),
    ],
)
def test_what_holds_no_points_is_refused(x, message):
    with pytest.raises(InputError, match=message) as caught:
        GMM(1).fit(x)
    assert "\n" not in str(caught.value)


def test_numbers_of_every_sort_among_objects():
    found = as_tensor(
        "x", np.array([1, 2.5, True, None, fractions.Fraction(1, 4), np.float32(3)], object)
    )
    np.testing.assert_array_equal(found, [1, 2.5, 1, np.nan, 0.25, 3])
    assert found.dtype == torch.float64


def test_numbers_of_a_prior_keep_their_precision():
    """As float32 0.1 would be 0.10000000149."""
    variance = torch.tensor([2.0, 3.0], dtype=torch.float64)
    prior = GMM(
        1, prior=PseudoCounts(covariance=1.0, variance=0.1, floor=0.1)
    ).recipe.pseudo_counts(variance, torch.zeros(2))
    assert prior.variance.tolist() == [0.1 * 2, 0.1 * 3]
    assert prior.floor.tolist() == [0.1 * 2, 0.1 * 3]
    for covariance in (
        "full",
        "tied",
        "diag",
        "spherical",
    ):  # where there are no points the prior's variance is all there is
        gmm = GMM(1, covariance, prior=PseudoCounts(covariance=1e14, variance=0.1)).fit(
            X / X.std(0)
        )
        cov = gmm.mixture.components.cholesky().square().sum(-1)[0]
        np.testing.assert_allclose(cov, 0.1, rtol=1e-9)
    with pytest.raises(InputError, match=r"prior\.variance is nan: expected finite"):
        GMM(1, prior=PseudoCounts(variance=float("nan")))


COVARIANCES = ["full", "tied", "diag", "spherical"]


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("init", ["kmeans++", "random", "means"])
def test_other_units_change_nothing_but_the_units_or_are_refused(covariance, init):
    def fitted(scale):
        return GMM(
            2, covariance, order="mean", init=X[:2] * scale if init == "means" else init
        ).fit(X * scale)

    plain = fitted(1.0)
    for scale in (2.0**-325, 2.0**-100, 2.0**100, 2.0**325):  # 1e-98 to 1e98
        found = fitted(scale)
        nats = 2 * np.log(scale)
        close(found.mean / scale, plain.mean)
        assert found.log_likelihood + 120 * nats == pytest.approx(plain.log_likelihood, rel=1e-10)
        assert (found.converged, found.failure, found.collapsed) == (True, None, [])
        close(found.log_prob(X * scale) + nats, plain.log_prob(X))
        assert torch.equal(found.predict(X * scale), plain.predict(X))
        close(found.sample(9) / scale, plain.sample(9))
        close(
            *(
                gmm.conditional([0], X[:9, :1] * by).components.mean / by
                for gmm, by in ((found, scale), (plain, 1.0))
            )
        )
    for scale in (1e-320, 1e-200, 1e-160, 1e-120, 1e120, 1e160, 1e200, 1e300):
        size = rf"column 0 of x reaches {np.abs(X[:, 0] - X[0, 0]).max() * scale:.1g}".partition(
            "."
        )[0].partition("e")[0]
        with pytest.raises(
            InputError,
            match=size + r".* from its first value: expected 1e-100 to 1e\+100, .* divide it by",
        ):
            fitted(scale)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_float32_of_any_unit_is_fitted_as_float64_is(covariance, scale):
    """Of more points than a chunk holds, products would be in float32, which ends at 3e38."""
    x = np.resize(X, (60_000, 2)) + np.random.default_rng(1).normal(size=(60_000, 2)) / 8
    x = (x * scale).astype(np.float32)
    single, double = (
        GMM(2, covariance, init=each[:2], tolerance=1e-4).fit(each)
        for each in (x, x.astype(np.float64))
    )
    assert single.failure is None
    torch.testing.assert_close(single.mean / scale, double.mean / scale, rtol=1e-6, atol=1e-6)
    assert single.log_likelihood == pytest.approx(double.log_likelihood, rel=1e-6)
    torch.testing.assert_close(
        single.log_prob(x[:50]).double(), double.log_prob(x[:50]), rtol=1e-5, atol=1e-4
    )


def test_one_point_far_away_or_one_tiny_column_is_named():
    far = X.copy()
    far[7, 1] = -1e170
    for points in (far, list(torch.from_numpy(far).split(50))):
        with pytest.raises(InputError, match=r"column 1 of x reaches 1e\+170 from its first value"):
            GMM(2).fit(points)
    used = np.arange(120) != 7  # a point of weight 0 counts for nothing
    for covariance in COVARIANCES:
        found = GMM(2, covariance, init=X[:2]).fit(far, used)
        plain = GMM(2, covariance, init=X[:2]).fit(X[used])
        close(found.mean, plain.mean)
        close(found.log_weight, plain.log_weight)
    with pytest.raises(InputError, match=r"column 0 \(height\) of x reaches .*e-1[67]\d from"):
        GMM(2).fit(Frame(X * [1e-170, 1]))
    with pytest.raises(InputError, match=r"column 1 of x reaches 1e\+170"):
        GMM(2, missing=True).fit(
            np.where(HOLES, np.nan, np.where(np.arange(240).reshape(X.shape) == 17, 1e170, X))
        )
    with pytest.raises(InputError, match="column 1 of x is 1e-170 in every point"):
        GMM(2).fit(np.where(np.arange(2) == 1, 1e-170, X))
    for mean in (1e160, 1e300):
        with pytest.raises(
            InputError, match=rf"init has a mean that lies {mean:g}".replace("+", r"\+")
        ):
            GMM(2, init=[[mean, 0], [0, 1]]).fit(X)


@pytest.mark.parametrize(
    "entry", ["log_prob", "predict", "responsibilities", "bound", "bic", "aic"]
)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_point_without_a_density_is_named_rather_than_labelled(covariance, entry):
    gmm = GMM(2, covariance, missing=True).fit(X)
    x = X.copy()
    getattr(gmm, entry)(np.where(np.arange(120)[:, None] == 70, 1e140, x))
    x[70] = 1e160
    for points in (x, np.where(HOLES, np.nan, x)):
        with pytest.raises(
            InputError,
            match="row 70 of x is so far from all components that the density there is no number",
        ):
            getattr(gmm, entry)(points)
    with pytest.raises(InputError, match="row 1 of values is so far"):
        gmm.conditional([1], [[0.0], [1e160]])


def test_integers_that_float64_holds_are_taken_however_long():
    """2^54 + 2 k is one of its numbers, and so is 2^60 + 256 k."""
    whole = np.arange(120)[:, None] * [256, 512] + 2**60
    for x in (
        whole,
        torch.from_numpy(whole),
        whole.astype(np.uint64),
        whole.astype(object),
        (-whole),
    ):
        found = GMM(1).fit(x).mean[0].numpy()
        mean = np.arange(120).mean() * np.array([256, 512])  # which is rounded, to 128
        np.testing.assert_allclose(np.abs(found - np.sign(found) * 2**60), mean, rtol=0, atol=128)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_remedy_for_a_mask_is_one_that_the_argument_has(entry):
    with pytest.raises(InputError) as caught:
        ENTRIES[entry](BAD["mask"][0])
    assert ("missing=True" in str(caught.value)) == (
        entry not in ("weights", "init", "values", "r")
    )
    assert ("with 0 to leave points out" in str(caught.value)) == (entry == "weights")


def test_a_generator_is_read_once_so_it_is_refused_with_the_remedy():
    for entry in ("fit", "log_prob", "weights", "init", "values", "r", "bic"):
        bad = (row for row in X)
        with pytest.raises(InputError, match=r"is a generator: expected .*(list)"):
            ENTRIES[entry](bad)


def test_no_points_have_no_criterion():
    for name in ("bic", "aic"):
        with pytest.raises(InputError, match="x has 0 points: expected at least one"):
            getattr(FITTED, name)(X[:0])
    assert FITTED.log_prob(X[:0]).shape == (0,)
    with pytest.raises(InputError, match="r holds inf: expected finite numbers of at least 0"):
        FITTED.bound(X, np.full((120, 2), np.inf))
