from pathlib import Path

import pandas as pd
import pytest

from pneumo.cli import main


class TestFindRate:
    def test_the_loss_is_plotted_over_rates(self, trained, monkeypatch, capsys):
        monkeypatch.chdir(trained)
        assert main(["find-rate", "cnn", "--combo", "raw"]) == 0
        assert "suggests itself, the recipe has 0.001" in capsys.readouterr().out
        table = pd.read_csv("reports/tiny/learning_rate/cnn_fit/rates.csv")
        assert table["learning_rate"].is_monotonic_increasing
        assert table["learning_rate"][0] == pytest.approx(1e-6)
        assert Path("reports/tiny/learning_rate/cnn_fit/rates.png").is_file()

    def test_an_unknown_phase_is_named(self, trained, monkeypatch, capsys):
        monkeypatch.chdir(trained)
        assert main(["find-rate", "cnn", "--combo", "raw", "--phase", "head"]) == 1
        assert "--phase: Expected one of fit. Received: 'head'" in capsys.readouterr().err
