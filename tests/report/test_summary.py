import json

import numpy as np
from small_report import EFFECTS, make_report

from pneumo.report.summary import summarize


def test_effects_and_a_few_means():
    leaderboard = make_report().tables["leaderboard"]
    summary = summarize(EFFECTS, leaderboard)
    assert summary["effects"] == {"equalize": 0.003, "crop_clahe": -0.0312}
    assert summary["best"]["specificity"] == round(leaderboard["specificity"][0], 4)
    row = leaderboard[(leaderboard["combo"] == "equalize") & (leaderboard["model"] == "dense")].iloc[0]
    assert summary["roc_auc"]["equalize"]["dense"] == round(row["roc_auc"], 4)
    assert [list(models) for models in summary["roc_auc"].values()] == [["cnn", "dense"]] * 3


def test_undefined_numbers_are_null_and_json_takes_them():
    leaderboard = make_report().tables["leaderboard"].assign(specificity=np.nan)
    summary = summarize(EFFECTS.iloc[:0], leaderboard)
    assert summary["effects"] == {}
    assert summary["best"]["specificity"] is None
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
