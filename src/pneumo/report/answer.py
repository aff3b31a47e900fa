"""The answer to an experiment's question: what each combo does, over all models and by model."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from pneumo.report import charts, wording

ALL_MODELS = "all"
EFFECT_COLUMNS = (
    "about",
    "family",
    "combo",
    "reference",
    "model",
    "metric",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "verdict",
    "n_models",
    "n_seeds",
    "interval_over",
    "heterogeneity_p",
)
PRIMARY_METRIC = "roc_auc"
Row = Mapping[Hashable, Any]


@dataclass(frozen=True)
class Part:
    """What a combo does under one model, for description.

    Attributes:
        model: its name.
        n_seeds: the seeds behind it.
        number, interval: the difference and its interval, written.
        strip: its row of the forest plot.
    """

    model: str
    n_seeds: int
    number: str
    interval: str
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
        secondary: effects on other metrics, as rows of a table, each with `combo`, `metric`, `number`,
            `interval`, `p`, `word` and `kind`.
        interval_over: what intervals are over.
        n_models, n_seeds: what the effects are means over.
    """

    sentence: Markup
    effects: list[Effect]
    axis: Markup
    direction: Markup
    secondary: list[dict[str, str]]
    interval_over: str
    n_models: int
    n_seeds: str


def select_primary(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the primary question, one a combo: ROC AUC over all models against the reference."""
    is_primary = (effects["about"] == "combo") & (effects["model"] == ALL_MODELS)
    return effects[is_primary & (effects["metric"] == PRIMARY_METRIC)]


def find_answer(
    effects: pd.DataFrame, combos: Mapping[str, Any], reference: str, margin: float | None
) -> Answer:
    """Read the answer from the table of effects.

    Args:
        effects: with EFFECT_COLUMNS, one row a question.
        combos: name -> steps, as params.yaml has them.
        reference: the combo that the others are compared with.
        margin: of equivalence; None where there is none.
    """
    of_combos = effects[effects["about"] == "combo"]
    main = of_combos[of_combos["model"] == ALL_MODELS]
    primary = select_primary(effects)
    by_model = of_combos[(of_combos["model"] != ALL_MODELS) & (of_combos["metric"] == PRIMARY_METRIC)]
    shown = pd.concat([primary, by_model])
    scale = charts.frame_differences(shown[["difference", "low", "high"]].to_numpy(float).ravel(), margin)
    ordered = [row for combo in combos for row in primary[primary["combo"] == combo].to_dict("records")]
    return Answer(
        Markup(  # noqa: S704 - a combo's name holds letters, digits and _ only
            wording.answer(
                {str(row["combo"]): str(row["verdict"]) for row in ordered},
                PRIMARY_METRIC,
                reference,
                lambda name: f"<b>{name}</b>",
            )
        ),
        [
            _describe_effect(
                row, by_model[by_model["combo"] == row["combo"]], combos[str(row["combo"])], scale, margin
            )
            for row in ordered
        ],
        charts.draw_difference_axis(scale, margin),
        charts.draw_direction(scale, reference),
        [_describe_secondary(row) for row in main[main["metric"] != PRIMARY_METRIC].to_dict("records")],
        wording.list_words(list(dict.fromkeys(primary["interval_over"].astype(str)))),
        int(primary["n_models"].max()) if len(primary) else 0,
        wording.describe_seeds(by_model["n_seeds"].tolist()) if len(by_model) else "",
    )


def _describe_effect(
    row: Row, by_model: pd.DataFrame, steps: Any, scale: charts.Scale, margin: float | None
) -> Effect:
    kind = wording.mark_verdict(row["verdict"])
    return Effect(
        str(row["combo"]),
        wording.describe_steps(steps),
        kind,
        wording.describe_verdict(row["verdict"], row["metric"], row["reference"], row["n_seeds"]),
        wording.write_signed(row["difference"]),
        wording.write_interval(row["low"], row["high"], signed=True),
        wording.write_p(row["p_holm"], named=True),
        charts.draw_difference(row["difference"], row["low"], row["high"], scale, kind, margin, is_main=True),
        _describe_heterogeneity(row.get("heterogeneity_p", float("nan"))),
        [_describe_part(part, scale, margin) for part in by_model.to_dict("records")],
    )


def _describe_part(row: Row, scale: charts.Scale, margin: float | None) -> Part:
    return Part(
        str(row["model"]),
        int(row["n_seeds"]),
        wording.write_signed(row["difference"]),
        wording.write_interval(row["low"], row["high"], signed=True),
        charts.draw_difference(
            row["difference"], row["low"], row["high"], scale, "open", margin, is_main=False
        ),
    )


def _describe_secondary(row: Row) -> dict[str, str]:
    return {
        "combo": str(row["combo"]),
        "metric": wording.name_metric(str(row["metric"])),
        "number": wording.write_signed(row["difference"]),
        "interval": wording.write_interval(row["low"], row["high"], signed=True),
        "p": wording.write_p(row["p_holm"]),
        "word": wording.name_verdict(str(row["verdict"])),
        "kind": wording.mark_verdict(str(row["verdict"])),
    }


def _describe_heterogeneity(p: float) -> str:
    if pd.isna(p):
        return ""
    return "Models differ in this." if p <= 0.05 else "Models do not visibly differ in this."
