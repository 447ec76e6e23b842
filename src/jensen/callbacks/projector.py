"""The files that TensorBoard's PROJECTOR reads. They are of the last validation: each replaces
those of the one before.
"""

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from jensen.base.files import within, write
from jensen.diagnostics.snapshot import Embedding

FOLDER = "projector"


def project(run: Path, tag: str, embedding: Embedding) -> None:
    """Writes `embedding` below `run`/projector, and the configuration that names all that is there.

    torch's `add_embedding` would keep the files of every step, and name each again with every
    write.
    """
    name = tag.replace("/", "_")
    folder = run / FOLDER / name
    within(run, folder)
    # TensorBoard takes the first line for a header only if there are two columns or more.
    metadata = _tsv(
        [[*embedding.columns], *embedding.labels]
        if len(embedding.columns) > 1
        else embedding.labels
    )
    codes = _tsv([[f"{value:.6g}" for value in row] for row in embedding.codes.tolist()])
    write(folder / "codes.tsv", lambda file: file.write(codes.encode()))
    write(folder / "metadata.tsv", lambda file: file.write(metadata.encode()))
    if embedding.thumbnails is not None:
        picture = Image.fromarray(sprite(embedding.thumbnails).permute(1, 2, 0).numpy())
        size = "{} {}".format(*reversed(embedding.thumbnails.shape[2:]))
        write(folder / "sprite.png", lambda file: picture.save(file, format="png"))
        write(folder / "size", lambda file: file.write(size.encode()))
    entries = "".join(
        _entry(path.name, run) for path in sorted((run / FOLDER).iterdir()) if path.is_dir()
    )
    write(run / "projector_config.pbtxt", lambda file: file.write(entries.encode()))


def sprite(thumbnails: Tensor) -> Tensor:
    """`(N, 3, h, w)` as a square of as many rows as columns, `(3, H, W)`, black where it is not
    full.
    """
    count, channels, height, width = thumbnails.shape
    across = math.ceil(math.sqrt(count))
    cells = torch.zeros(across * across, channels, height, width, dtype=thumbnails.dtype)
    cells[:count] = thumbnails
    square = cells.unflatten(0, (across, across)).permute(2, 0, 3, 1, 4)
    return square.reshape(channels, across * height, across * width).contiguous()


def _tsv(rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def _entry(name: str, run: Path) -> str:
    """An embedding of the configuration, in protobuf's text form."""
    folder = f"{FOLDER}/{name}"
    picture = ""
    if (size := run / folder / "size").exists():
        width, height = size.read_text().split()
        picture = f'  sprite {{ image_path: "{folder}/sprite.png" single_image_dim: {width} single_image_dim: {height} }}\n'
    return (
        f'embeddings {{\n  tensor_name: "{name}"\n  tensor_path: "{folder}/codes.tsv"\n'
        f'  metadata_path: "{folder}/metadata.tsv"\n{picture}}}\n'
    )
