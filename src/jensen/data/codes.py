"""The codes of a trained model as points, from the npz file that `jensen.encode` writes."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from jensen.base.errors import InputError, check_path
from jensen.base.memory import check_fits
from jensen.data.arrays import arrays, in_words
from jensen.data.examples import Examples, identity

ARRAYS = ("codes", "factors", "log_var", "names", "prior")
"""A file as jensen.encode writes it: `prior` is the kind of the prior that the codes were made
under, a word.
"""


def read(path: Path) -> dict[str, np.ndarray]:
    """Those of the arrays `ARRAYS` that the npz file has.

    Raises:
        InputError: no such file, or not a whole npz file of plain arrays.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("it is no file")
        with zipfile.ZipFile(path) as archive:
            check_fits(str(path), sum(member.file_size for member in archive.infolist()))
        with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
            found = {name: members[name] for name in ARRAYS if name in members}
        return {
            name: array.astype(array.dtype.newbyteorder("="), copy=False)
            for name, array in found.items()
        }
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise almost anything on a damaged file
        why = (
            getattr(error, "strerror", None)
            or str(error).partition("\n")[0]
            or type(error).__name__
        )
        raise InputError(
            f"{path} cannot be read ({why}): expected an npz file of plain arrays; write it with"
            " jensen.encode or numpy.savez"
        ) from error


def codes(path: str) -> Examples:
    """The posterior means `(N, D)` of `codes`, and `factors` `(N, F)` where the file has them.

    Raises:
        InputError: as `read`, or the arrays do not fit each other.
    """
    check_path("path", path)
    found = read(Path(path).expanduser())
    if (
        "codes" not in found
        or found["codes"].ndim != 2
        or not np.issubdtype(found["codes"].dtype, np.floating)
    ):
        what = in_words(arrays(Path(path).expanduser()))
        raise InputError(
            f"data.path={path} holds {what}: expected floating-point codes (N, D) under the name codes;"
            " write it with jensen.encode, or numpy.savez(path, codes=x)"
        )
    if not found["codes"].size or not np.isfinite(found["codes"]).all():
        raise InputError(
            f"data.path={path} has codes that are empty, NaN or infinite: expected finite ones;"
            " encode again"
        )
    points = torch.from_numpy(found["codes"].astype(np.float32, copy=False))
    factors = found.get("factors", np.empty((len(points), 0), np.int64))
    names = found.get("names", np.empty(0, str))
    whole = np.issubdtype(factors.dtype, np.integer) and (factors >= 0).all()
    if (
        factors.ndim != 2
        or len(factors) != len(points)
        or names.shape != factors.shape[1:]
        or not whole
    ):
        shapes = f"codes {tuple(points.shape)}, factors {factors.shape} of {factors.dtype} and names {names.shape}"
        raise InputError(
            f"data.path={path} has {shapes}: expected factors (N, F), integers of at least 0, and"
            " names (F,); write it with jensen.encode"
        )
    sizes = tuple(int(column.max()) + 1 for column in factors.T)
    return Examples(
        points, identity, torch.from_numpy(factors).long(), tuple(map(str, names)), sizes
    )
