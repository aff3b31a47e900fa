"""The answer to an experiment's question: what each combo does, over all models and by model."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from pneumo.report import charts, wording

# Of `effects.tabulate_effects` of the room `evaluation`: one row a test.
EFFECT_COLUMNS = (
    "family",
    "subject",
    "against",
    "metric",
    "over",
    "left_out",
    "n_runs",
    "difference",
    "low",
    "high",
    "interval_over",
    "p",
    "p_holm",
    "p_within",
    "p_within_holm",
    "verdict",
    "smallest_detectable",
)
PRIMARY_METRIC = "roc_auc"
_FOUND = ("better", "worse")
Row = Mapping[Hashable, Any]


@dataclass(frozen=True)
class Part:
    """What a combo does under one model.

    Attributes:
        model: its name.
        n_seeds: the seeds that combo and reference share.
        number, interval: the difference and its interval, written.
        word: its verdict; empty where none is shown.
        kind: mark of its verdict.
        strip: its row of the forest plot.
    """

    model: str
    n_seeds: int
    number: str
    interval: str
    word: str
    kind: str
    strip: Markup


@dataclass(frozen=True)
class Effect:
    """What a combo does over all models.

    Attributes:
        combo: its name.
        steps: what it does to an image.
        kind: mark of its verdict.
        sentence: its verdict in words.
        number, interval, p: the difference, its interval and the corrected p, written.
        strip: its row of the forest plot.
        note: whether models differ in it; may be empty.
        parts: by model.
    """

    combo: str
    steps: str
    kind: str
    sentence: str
    number: str
    interval: str
    p: str
    strip: Markup
    note: str
    parts: list[Part]


@dataclass(frozen=True)
class Answer:
    """The first screen of the page.

    Attributes:
        sentence: the answer, names in bold.
        effects: one a combo but the reference, in the order of params.yaml; none where nothing is compared.
        axis, direction: of the forest plot, below it and above it.
        secondary: tests of other questions by heading, each with `subject`, `against`, `metric`, `number`,
            `interval`, `p`, `word` and `kind`.
        interval_over: what intervals are over.
        left_out: models that no mean holds, because their spread over seeds is not known; may be empty.
        n_models, n_seeds: what the effects are means over.
        n_parts: how many tests the models by themselves take.
    """

    sentence: Markup
    effects: list[Effect]
    axis: Markup
    direction: Markup
    secondary: dict[str, list[dict[str, str]]]
    interval_over: str
    left_out: str
    n_models: int
    n_seeds: str
    n_parts: int


def select_primary(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the primary question, one a combo: ROC AUC over all models against the reference."""
    return effects[effects["family"] == "primary"]


def find_answer(
    effects: pd.DataFrame, combos: Mapping[str, Any], reference: str, margin: float | None
) -> Answer:
    """Read the answer from the table of effects.

    Args:
        effects: with EFFECT_COLUMNS, one row a test.
        combos: name -> steps, as params.yaml has them.
        reference: the combo that the others are compared with.
        margin: of equivalence; None where there is none.
    """
    primary, by_model = select_primary(effects), effects[effects["family"] == "by_model"]
    shown = pd.concat([primary, by_model])
    scale = charts.frame_differences(shown[["difference", "low", "high"]].to_numpy(float).ravel(), margin)
    ordered = [row for combo in combos for row in primary[primary["subject"] == combo].to_dict("records")]
    sentence = wording.answer(
        {str(row["subject"]): str(row["verdict"]) for row in ordered},
        PRIMARY_METRIC,
        reference,
        lambda name: f"<b>{name}</b>",
        {str(row["subject"]): margin for row in ordered if margin is not None and _is_small(row)},
    )
    described = [
        _describe_effect(
            row,
            by_model[by_model["subject"] == row["subject"]],
            effects[(effects["family"] == "heterogeneity") & (effects["subject"] == row["subject"])],
            combos[str(row["subject"])],
            scale,
            margin,
        )
        for row in ordered
    ]
    left_out = [name for names in primary["left_out"].dropna() for name in str(names).split()]
    return Answer(
        Markup(sentence),  # noqa: S704 - a combo's name holds letters, digits and _ only
        described,
        charts.draw_difference_axis(scale),
        charts.draw_direction(scale, reference),
        {
            heading: [
                _describe_secondary(row) for row in effects[effects["family"] == family].to_dict("records")
            ]
            for family, heading in (
                ("operating_point", "Sensitivity and specificity at the validation threshold"),
                ("models", "Models against each other"),
            )
        },
        wording.list_words(list(dict.fromkeys(primary["interval_over"].astype(str)))),
        wording.list_words(list(dict.fromkeys(left_out))),
        max((len(str(row["over"]).split()) for row in ordered), default=0),
        wording.describe_seeds([part.n_seeds for effect in described for part in effect.parts]),
        len(by_model),
    )


def _describe_effect(
    row: Row,
    by_model: pd.DataFrame,
    heterogeneity: pd.DataFrame,
    steps: Any,
    scale: charts.Scale,
    margin: float | None,
) -> Effect:
    kind = wording.mark_verdict(row["verdict"])
    parts = [_describe_part(part, scale, margin) for part in by_model.to_dict("records")]
    n_seeds = max((part.n_seeds for part in parts), default=0)
    return Effect(
        str(row["subject"]),
        wording.describe_steps(steps),
        kind,
        wording.describe_verdict(
            row["verdict"], row["metric"], row["against"], n_seeds, margin if _is_small(row) else None
        ),
        wording.write_signed(row["difference"]),
        wording.write_interval(row["low"], row["high"], signed=True),
        _write_p(row, margin),
        charts.draw_difference(row["difference"], row["low"], row["high"], scale, kind, margin, is_main=True),
        _describe_heterogeneity(heterogeneity),
        parts,
    )


def _is_small(row: Row) -> bool:
    """Say whether a difference is shown, and shown to be smaller than what matters."""
    return row["verdict"] in _FOUND and row["p_within_holm"] <= wording.SIGNIFICANCE


def _write_p(row: Row, margin: float | None) -> str:
    """Write the p that the verdict rests on."""
    if row["verdict"] == "equivalent":
        return f"within \N{PLUS-MINUS SIGN}{margin:g}: {wording.write_p(row['p_within_holm'], named=True)}"
    return wording.write_p(row["p_holm"], named=True)


def _describe_part(row: Row, scale: charts.Scale, margin: float | None) -> Part:
    is_found = row["verdict"] in _FOUND
    kind = wording.mark_verdict(row["verdict"]) if is_found else "open"
    return Part(
        str(row["over"]),
        int(row["n_runs"]) // 2,
        wording.write_signed(row["difference"]),
        wording.write_interval(row["low"], row["high"], signed=True),
        wording.name_verdict(row["verdict"]) if is_found else "",
        kind,
        charts.draw_difference(
            row["difference"], row["low"], row["high"], scale, kind, margin, is_main=False
        ),
    )


def _describe_secondary(row: Row) -> dict[str, str]:
    return {
        "subject": str(row["subject"]),
        "against": str(row["against"]),
        "metric": wording.name_metric(str(row["metric"])),
        "number": wording.write_signed(row["difference"]),
        "interval": wording.write_interval(row["low"], row["high"], signed=True),
        "p": wording.write_p(row["p_holm"]),
        "word": wording.name_verdict(str(row["verdict"])),
        "kind": wording.mark_verdict(str(row["verdict"])),
    }


def _describe_heterogeneity(rows: pd.DataFrame) -> str:
    """Say whether models differ in an effect, from the tests of each model against the others."""
    if rows["p_holm"].isna().all():
        return ""
    found = rows[rows["verdict"].isin(_FOUND)]
    if found.empty:
        return "Models do not visibly differ in this."
    named = [
        f"{row['over']} by {wording.write_signed(row['difference'])}" for row in found.to_dict("records")
    ]
    return f"Models differ in this: {wording.list_words(named)} from the others."
