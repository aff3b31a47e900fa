from pathlib import Path

import pytest

from import_graph import ROOT
from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.commands import use
from tiny_project import PARAMS

DEMO = (ROOT / "conf/experiment/demo.yaml").read_text()


@pytest.mark.usefixtures("workspace")
class TestUse:
    def test_an_experiment_becomes_the_one_in_params(self):
        use.run("chest_xray")
        assert load_params().experiment == "chest_xray"

    def test_own_params_are_kept_and_come_back(self, capsys):
        use.run("demo")
        assert "kept as conf/experiment/kept_1.yaml" in capsys.readouterr().out
        assert Path("params.yaml").read_text() == DEMO
        use.run("kept_1")
        assert "kept as" not in capsys.readouterr().out
        assert Path("params.yaml").read_text() == PARAMS

    def test_what_is_kept_already_is_not_kept_twice(self):
        for name in ("demo", "kept_1", "demo", "chest_xray"):
            use.run(name)
        assert [path.name for path in Path("conf/experiment").glob("kept_*")] == ["kept_1.yaml"]

    def test_nothing_kept_is_written_over(self):
        for i in range(1, 4):
            Path("params.yaml").write_text(f"{PARAMS}# {i}\n")
            use.run("demo")
        for i in range(1, 4):
            assert Path(f"conf/experiment/kept_{i}.yaml").read_text() == f"{PARAMS}# {i}\n"

    def test_an_unknown_experiment_changes_nothing(self):
        with pytest.raises(PneumoError, match=r"chest_xray, .*demo.* Received: 'nosuch'"):
            use.run("nosuch")
        assert Path("params.yaml").read_text() == PARAMS

    def test_an_experiment_that_is_wrong_changes_nothing(self):
        Path("conf/experiment/mine.yaml").write_text("experiment: mine\n")
        with pytest.raises(PneumoError, match=r"conf/experiment/mine\.yaml: missing data"):
            use.run("mine")
        assert Path("params.yaml").read_text() == PARAMS
