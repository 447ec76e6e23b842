"""One row a run: `study.csv`."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plan
from figures import draw
from report import document
from report import read as read_rows
from sessions import MARK

from jensen.base import files
from jensen.reports.read import read
from jensen.reports.sweep import Run, numbers
from jensen.run.record import get_json, put
from jensen.scores import udr

COLUMNS = {
    "distortion": "distortion",
    "rate": "rate",
    "elbo": "elbo",
    "mi": "decomposition/mutual_information",
    "mi_se": "decomposition/mutual_information_se",
    "tc": "decomposition/total_correlation",
    "tc_se": "decomposition/total_correlation_se",
    "dwkl": "decomposition/dimension_wise_kl",
    "dwkl_se": "decomposition/dimension_wise_kl_se",
    "marginal_kl": "decomposition/marginal_kl",
    "marginal_kl_se": "decomposition/marginal_kl_se",
    "log_n": "decomposition/log_n",
    "active_units": "rate/active_units",
    "mi_stratified": "estimator_audit/mutual_information_stratified",
    "tc_stratified": "estimator_audit/total_correlation_stratified",
    "mi_mws": "estimator_audit/mutual_information_mws",
    "tc_mws": "estimator_audit/total_correlation_mws",
    "mig_exact": "mig_exact/mig_exact",
    "mig_exact_se": "mig_exact/standard_error",
    "mig_hist20": "mig_hist20/mig_hist20",
    "mig_sup": "mig_sup/mig_sup",
    "infom": "infomec/infom",
    "infoc": "infomec/infoc",
    "infoe": "infomec/infoe",
    "dci_boost20": "dci_boost20/dci_boost20",
    "factor_vae": "factor_vae/factor_vae",
    "sap_r2": "sap_r2/sap_r2",
    "modularity": "modularity/modularity",
}
"""Columns, and the numbers of a run's scores.json that they hold."""

Row = dict[str, Any]


def rows(out: Path) -> list[Row]:
    """A row for each run that has been scored, in the order of the plan."""
    found = []
    for run in read(out / "runs").runs:
        codes = out / "codes" / f"{run.name}.npz"
        if "encode" not in run.scores.get("diagnostics", {}) or not codes.is_file():
            continue
        found.append(_row(run, out))
    order = list(plan.OBJECTIVES)
    found.sort(key=lambda row: (order.index(row["objective"]), row["strength"], row["seed"]))
    return _with_udr(found, out)


def _row(run: Run, out: Path) -> Row:
    objective = run.name.partition("/")[0]
    known = numbers(run.scores)
    finished = get_json(out / "runs" / run.name / "finished.json")
    return {
        "objective": objective,
        "strength": run.settings[plan.OBJECTIVES[objective].key],
        "seed": run.seed,
        "steps": run.scores["step"],
        "latents": run.settings["latent_dim"],
        **{column: known.get(name, math.nan) for column, name in COLUMNS.items()},
        "udr": math.nan,
        "warned": len(run.ills),
        "seconds": finished["seconds"],
        "run": run.name,
    }


def _with_udr(found: list[Row], out: Path) -> list[Row]:
    """The rows, with how far the runs of a setting agree; NaN of one without another seed."""
    settings: dict[tuple[str, Any], list[Row]] = {}
    for row in found:
        settings.setdefault((row["objective"], row["strength"]), []).append(row)
    for same in settings.values():
        if len(same) < 2:
            continue
        codes = [np.load(out / "codes" / f"{row['run']}.npz")["codes"] for row in same]
        rates = [
            get_json(out / "runs" / row["run"] / "scores.json")["diagnostics"]["rate"]["by_latent"]
            for row in same
        ]
        agreement = udr(codes, rates)["per_run"].tolist()
        for row, value in zip(same, agreement, strict=True):
            row["udr"] = value
    return found


def as_csv(found: Sequence[Row], mark: Mapping[str, Any]) -> str:
    """The rows, after lines that say where they come from; every number exactly."""
    sessions = mark["sessions"]
    said = {
        "size": mark["size"],
        "protocol": mark["version"],
        "command": "; ".join(dict.fromkeys(each["command"] for each in sessions)),
        "commit": ", ".join(dict.fromkeys(each["commit"] for each in sessions)),
        "device": "; ".join(
            dict.fromkeys(f"{each['device']}, {each['cores']} cores" for each in sessions)
        ),
        "versions": "; ".join(
            dict.fromkeys(
                " ".join(f"{name} {value}" for name, value in each["versions"].items())
                for each in sessions
            )
        ),
        "began": sessions[0]["began"],
        "sessions": f"{len(sessions)}, {sum(each.get('seconds', 0) for each in sessions):.0f} s",
    }
    text = io.StringIO()
    for name, value in said.items():
        text.write(f"# {name}: {value}\n")
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow(
            {
                key: "" if isinstance(value, float) and math.isnan(value) else value
                for key, value in row.items()
            }
        )
    return text.getvalue()


def write(out: Path) -> None:
    """`study.csv` of all that has been scored, and the report that follows from it alone."""
    found = rows(out)
    put(out / "study.csv", as_csv(found, get_json(out / MARK)))
    report(out / "study.csv", out / "report")


def report(table: Path, folder: Path) -> None:
    """The report of a study.csv, and its figures."""
    head, found = read_rows(table)
    size = plan.SIZES[head["size"]]
    planned = len(plan.OBJECTIVES) * 5 * sum(map(len, size.rounds))
    put(folder / "report.md", document(head, found, planned))
    for name, figure in draw(found).items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        files.write(folder / f"{name}.png", lambda file, drawn=drawn: file.write(drawn.getvalue()))
