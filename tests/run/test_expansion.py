"""Sizes of resolved configurations, told without resolving them, against OmegaConf, which resolves
them.
"""

import pytest
from omegaconf import OmegaConf

from jensen.base.errors import InputError
from jensen.run import expansion


def doubling(first, line, count=60):
    """`count` keys, each made of the one before by `line`."""
    return {"k0": first} | {f"k{place}": line(f"k{place - 1}") for place in range(1, count)}


BOMBS = {
    "texts": doubling("x", lambda key: f"${{{key}}}${{{key}}}"),
    "mappings": doubling({"x": 1}, lambda key: {"x": f"${{{key}}}", "y": f"${{ {key} }}"}),
    "lists": doubling([1], lambda key: [f"${{{key}}}"] * 2),
    "relative names": {"a": doubling("x", lambda key: f"${{.{key}}}${{..a.{key}}}")},
    "bracketed names": {"a": doubling("x", lambda key: f"${{a[{key}]}}${{a[{key}]}}")},
    "resolvers": doubling("x", lambda key: f"${{oc.select:{key}}}${{oc.select:none,${{{key}}}}}"),
    "arguments": doubling("x", lambda key: f"${{if:true,${{{key}}}${{{key}}},2}}"),
    "a line of ten thousand": {f"k{place}": f"${{k{place + 1}}}" for place in range(10_000)},
}
MADE = (
    "${${k}}",
    "${a.${k}}",
    "${oc.select:${k}}",
    "${oc.select:'a b'}",
    "${oc.decode:'${a}'}",
    "${a+b}",
    "${oc.create:{x:1}}",
)


@pytest.mark.parametrize("kind", BOMBS)
def test_what_doubles_at_each_line_is_refused_at_once(kind):
    with pytest.raises(
        InputError,
        match=r"^file says .* characters once its interpolations are resolved: expected at most",
    ):
        expansion.check(BOMBS[kind], "file")


@pytest.mark.parametrize("text", MADE)
def test_a_name_that_is_known_only_by_resolving_it_is_refused(text):
    with pytest.raises(
        InputError, match=r"^file has the interpolation .*: expected the plain name of a key in it"
    ):
        expansion.check({"k": "a", "a": "x", "b": [{"c": text}]}, "file")


@pytest.mark.parametrize("kind", [kind for kind in BOMBS if not kind.startswith("a line")])
def test_no_size_is_too_small(kind):
    small = (
        {"a": {key: value for key, value in BOMBS[kind]["a"].items() if int(key[1:]) < 7}}
        if "a" in BOMBS[kind]
        else {key: value for key, value in BOMBS[kind].items() if int(key[1:]) < 7}
    )
    resolved = OmegaConf.to_container(OmegaConf.create(small), resolve=True)
    least = sum(len(str(leaf)) for leaf in expansion._leaves(resolved))
    assert least <= expansion._Sizes(small).of(()) <= 40 * least


@pytest.mark.parametrize(
    "overrides",
    ["", "experiment=gmm", "experiment=water_filling", "algorithm=stepwise_em data=blobs"],
)
def test_what_jensen_train_writes_is_far_below(configure, overrides):
    tree = OmegaConf.to_container(configure(*overrides.split()))
    expansion.check(tree, "file")
    assert expansion._Sizes(tree).of(()) < expansion.MOST / 100
