"""Every check of the audit, both ways: it fires where there is something, else it is silent."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from pneumo.audit import data_checks
from pneumo.audit.data_checks import Verdict

N = 300
SIZE_PX = 32


def make_manifest(n=N, seed=0):
    generator = np.random.default_rng(seed)
    is_pneumonia = np.arange(n) % 3 > 0
    width = generator.integers(900, 1800, n)
    height = generator.integers(900, 1500, n)
    return pd.DataFrame(
        {
            "id": [f"train/{i}.jpeg" for i in range(n)],
            "label": np.where(is_pneumonia, "pneumonia", "normal"),
            "patient": [f"p{i // 6}-{i % 3 > 0}" for i in range(n)],
            "split": np.where(np.arange(n) // 6 % 4 == 0, "test", "train"),
            "width": width,
            "height": height,
            "bytes": width * height // 10,
            "mode": "L",
            "sha256": [f"{i:064x}" for i in range(n)],
        }
    )


def make_images(n=N, seed=0):
    return np.random.default_rng(seed).integers(60, 200, (n, SIZE_PX, SIZE_PX), dtype=np.uint8)


def is_pneumonia(manifest):
    return (manifest["label"] == "pneumonia").to_numpy()


def find_rows(manifest, split):
    return np.flatnonzero(manifest["split"] == split)


@pytest.mark.parametrize(
    "check",
    [
        lambda manifest, _: data_checks.check_metadata(manifest),
        data_checks.check_border,
        data_checks.check_brightness,
        data_checks.check_thumbnail,
        lambda manifest, images: data_checks.check_shift(manifest, images, "pneumonia"),
    ],
)
def test_classifiers_find_nothing_in_noise(check):
    finding = check(make_manifest(), make_images())
    assert finding.verdict is not Verdict.PROBLEM
    assert finding.low < finding.value < finding.high
    assert finding.low < 0.6


def test_the_shape_of_files_is_found():
    manifest = make_manifest()
    manifest.loc[is_pneumonia(manifest), "width"] += 900
    finding = data_checks.check_metadata(manifest)
    assert finding.verdict is Verdict.PROBLEM
    assert finding.value > 0.8
    assert "aspect ratio" in finding.text


def test_the_colour_mode_is_found():
    manifest = make_manifest()
    manifest.loc[is_pneumonia(manifest), "mode"] = "RGB"
    assert data_checks.check_metadata(manifest).value > 0.95


def test_a_mark_at_the_border_is_found_and_one_in_the_middle_is_not():
    manifest, images = make_manifest(), make_images()
    images[is_pneumonia(manifest), 12:20, 12:20] = 255
    assert data_checks.check_border(manifest, images).verdict is not Verdict.PROBLEM
    images[is_pneumonia(manifest), :2, 20:26] = 255
    assert data_checks.check_border(manifest, images).verdict is Verdict.PROBLEM


def test_brightness_that_goes_with_the_class_is_found():
    manifest, images = make_manifest(), make_images()
    images[is_pneumonia(manifest)] += 30
    for finding in (
        data_checks.check_brightness(manifest, images),
        data_checks.check_thumbnail(manifest, images),
    ):
        assert finding.verdict is Verdict.PROBLEM
        assert finding.value > 0.95


def test_a_difference_between_training_and_test_images_is_found_in_its_class():
    manifest, images = make_manifest(), make_images()
    images[~is_pneumonia(manifest) & (manifest["split"] == "test").to_numpy(), :8] += 40
    assert data_checks.check_shift(manifest, images, "normal").verdict is Verdict.PROBLEM
    assert data_checks.check_shift(manifest, images, "pneumonia").verdict is not Verdict.PROBLEM


def test_the_value_is_the_auc_of_predictions_for_unseen_patients():
    manifest, images = make_manifest(), make_images()
    images[is_pneumonia(manifest)] += 1
    y_true = is_pneumonia(manifest).astype(int)
    features = np.array([[np.mean(image.tolist()), np.std(image.tolist())] for image in images])
    y_score = np.zeros(N)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fit_rows, rows in folds.split(features, y_true, manifest["patient"]):
        assert not set(manifest["patient"][fit_rows]) & set(manifest["patient"][rows])
        scaler = StandardScaler().fit(features[fit_rows])
        model = LogisticRegression(C=1.0, class_weight="balanced").fit(
            scaler.transform(features[fit_rows]), y_true[fit_rows]
        )
        y_score[rows] = model.predict_proba(scaler.transform(features[rows]))[:, 1]
    finding = data_checks.check_brightness(manifest, images)
    assert 0.55 < finding.value < 0.95
    assert finding.value == pytest.approx(roc_auc_score(y_true, y_score))


def test_the_border_is_not_judged_by_what_is_inside_it():
    manifest, images = make_manifest(), make_images()
    images[is_pneumonia(manifest), :2] += 3
    other = images.copy()
    other[:, 2:-2, 2:-2] = np.where(is_pneumonia(manifest), 250, 0)[:, None, None]
    assert data_checks.check_border(manifest, other) == data_checks.check_border(manifest, images)


def test_a_shift_is_judged_by_the_images_of_its_class_alone():
    manifest, images = make_manifest(), make_images()
    other = images.copy()
    other[is_pneumonia(manifest)] = 0
    assert data_checks.check_shift(manifest, other, "normal") == data_checks.check_shift(
        manifest, images, "normal"
    )


def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_limit():
    limit = data_checks.SHORTCUT_AUC
    manifest = make_manifest(600)
    found = set()
    for strength in (0, 6, 8, 20):
        images = make_images(600)
        images[is_pneumonia(manifest), :2, :8] += np.uint8(strength)
        finding = data_checks.check_border(manifest, images)
        expected = {(True, True): Verdict.PROBLEM, (False, False): Verdict.NO_PROBLEM}
        verdict = expected.get((finding.low > limit, finding.high > limit), Verdict.NOT_KNOWN)
        assert finding.verdict is verdict
        found.add(verdict)
        assert ("Not known" in finding.text) == (verdict is Verdict.NOT_KNOWN)
    assert found == set(Verdict)


def test_classifiers_are_fitted_in_one_thread():
    """Threads that wait for one another take 50 times as long while other processes use the cores."""
    n_threads = []

    class Watched(DummyClassifier):
        def fit(self, *arguments):
            n_threads.extend(pool["num_threads"] for pool in threadpool_info())
            return super().fit(*arguments)

    manifest = make_manifest()
    y_true = is_pneumonia(manifest).astype(int)
    before = [pool["num_threads"] for pool in threadpool_info()]
    data_checks._predict_out_of_fold(Watched(), np.zeros((N, 1)), y_true, manifest["patient"])
    assert set(n_threads) == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_classifiers_are_fitted_to_a_bounded_number_of_images(monkeypatch):
    fitted, predicted = [], []

    class Watched(DummyClassifier):
        def fit(self, features, y_true):
            fitted.append(features)
            return super().fit(features, y_true)

        def predict_proba(self, features):
            predicted.append(features)
            return np.stack([1 - features[:, 0], features[:, 0]], axis=1)

    monkeypatch.setattr(data_checks, "N_FIT", 30)
    manifest = make_manifest()
    features = (np.arange(N)[:, None] % 256).astype(np.uint8)
    y_true = is_pneumonia(manifest).astype(int)
    found = data_checks._predict_out_of_fold(Watched(), features, y_true, manifest["patient"])
    assert found.tolist() == (features[:, 0] / 255).tolist()
    assert {len(part) for part in fitted} == {30}
    assert max(len(part) for part in predicted) <= 30
    assert sum(len(part) for part in predicted) == N


def test_memory_for_labels_is_bounded(monkeypatch):
    """Of 4,000 images, features as float64 take 33 MB, and a classifier copies them several times."""
    n_images = 4000
    monkeypatch.setattr(data_checks, "N_FIT", 400)
    manifest, images = make_manifest(n_images), make_images(n_images)
    tracemalloc.start()
    data_checks.find_doubtful_labels(manifest, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 33e6


def find_naively(manifest, images):
    """Correlate every test image with every other image, one pair after the other."""
    rows = []
    for _, test in manifest[manifest["split"] == "test"].iterrows():
        for _, other in manifest[manifest["split"] != "test"].iterrows():
            pixels = [images[int(row["id"][6:-5])].ravel() for row in (test, other)]
            rows.append((test["id"], other["id"], round(np.corrcoef(*pixels)[0, 1], 5), test["patient"]))
    found = pd.DataFrame(rows, columns=["test_id", "other_id", "correlation", "patient"])
    found = found[found["correlation"] >= data_checks.SAME_CORRELATION]
    return found.sort_values("correlation", ascending=False, kind="stable", ignore_index=True)


class TestCopies:
    def test_none(self):
        manifest = make_manifest()
        copies = data_checks.find_copies(manifest, make_images())
        assert len(copies) == 0
        finding = data_checks.judge_copies(manifest, copies)
        assert (finding.value, finding.verdict) == (0, Verdict.NO_PROBLEM)

    def test_a_nearly_identical_picture_on_the_other_side(self):
        manifest, images = make_manifest(), make_images()
        test, train = find_rows(manifest, "test")[3], find_rows(manifest, "train")[7]
        images[test] = np.clip(images[train] * 0.9 + 7, 0, 255)
        copies = data_checks.find_copies(manifest, images)
        assert copies[["test_id", "other_id"]].to_numpy().tolist() == [
            [f"train/{test}.jpeg", f"train/{train}.jpeg"]
        ]
        assert data_checks.judge_copies(manifest, copies).verdict is Verdict.PROBLEM

    @pytest.mark.parametrize("n_in_block", [7, 1000])
    def test_blocks_find_what_the_whole_matrix_holds(self, n_in_block, monkeypatch):
        monkeypatch.setattr(data_checks, "N_IN_BLOCK", n_in_block)
        manifest, images = make_manifest(60), make_images(60)
        generator = np.random.default_rng(0)
        tests, others = find_rows(manifest, "test"), find_rows(manifest, "train")
        for test, other, noise in zip(tests[::2], others[::5], np.linspace(0, 4, 9), strict=False):
            images[test] = images[other] + generator.normal(0, noise, (SIZE_PX, SIZE_PX)).round()
        images[others[-3:]] = images[tests[5]] = images[tests[1]]  # ties
        images[others[-4]] = images[tests[3]] = 7  # constant: correlates with nothing
        with np.errstate(invalid="ignore"):
            expected = find_naively(manifest, images)
        found = data_checks.find_copies(manifest, images)
        assert 9 < len(expected) < 15
        assert found[["test_id", "other_id"]].equals(expected[["test_id", "other_id"]])
        np.testing.assert_allclose(found["correlation"], expected["correlation"])

    def test_pairs_of_one_patient_are_marked(self):
        manifest, images = make_manifest(), make_images()
        tests, others = find_rows(manifest, "test")[:2], find_rows(manifest, "train")[:2]
        images[tests] = images[others]
        manifest.loc[tests[1], "patient"] = manifest.loc[others[1], "patient"]
        assert data_checks.find_copies(manifest, images)["same_patient"].tolist() == [False, True]

    def test_memory_is_bounded(self, monkeypatch):
        monkeypatch.setattr(data_checks, "N_IN_BLOCK", 100)
        n = 4000
        manifest, images = make_manifest(n), make_images(n)
        whole = (manifest["split"] == "test").sum() * (manifest["split"] == "train").sum() * 8
        tracemalloc.start()
        data_checks.find_copies(manifest, images)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < whole / 2

    def test_without_test_images_there_are_none(self):
        manifest = make_manifest().assign(split="train")
        copies = data_checks.find_copies(manifest, make_images())
        assert copies.columns.tolist() == ["test_id", "other_id", "correlation", "same_patient"]
        assert len(copies) == 0

    def test_the_same_picture_twice_on_one_side_is_no_copy(self):
        manifest, images = make_manifest(), make_images()
        first, second = find_rows(manifest, "test")[:2]
        images[first] = images[second]
        assert len(data_checks.find_copies(manifest, images)) == 0

    def test_folds_may_set_any_two_groups_apart(self):
        manifest, images = make_manifest(), make_images()
        manifest = manifest.assign(split="folds", group=pd.factorize(manifest["patient"])[0])
        group = manifest["group"].to_numpy()
        assert len(data_checks.find_copies(manifest, images)) == 0
        same = np.flatnonzero(group == group[0])
        other = np.flatnonzero(group != group[0])[-1]
        images[same] = images[other] = images[0]
        copies = data_checks.find_copies(manifest, images)
        pairs = sorted(map(tuple, copies[["test_id", "other_id"]].to_numpy().tolist()))
        ids = manifest["id"].to_numpy()
        assert pairs == sorted((ids[row], ids[other]) for row in same)  # those of one patient stay together
        finding = data_checks.judge_copies(manifest, copies)
        assert (finding.value, finding.verdict) == (len(same) + 1, Verdict.PROBLEM)
        assert data_checks.judge_copies(manifest, copies[:0]).verdict is Verdict.NO_PROBLEM

    @pytest.mark.parametrize("key", ["patient", "sha256"])
    def test_a_patient_or_file_on_both_sides(self, key):
        manifest = make_manifest()
        test, train = find_rows(manifest, "test")[0], find_rows(manifest, "train")[0]
        manifest.loc[test, key] = manifest.loc[train, key]
        finding = data_checks.judge_copies(manifest, data_checks.find_copies(manifest, make_images()))
        assert (finding.value, finding.verdict) == (1, Verdict.PROBLEM)
        assert f"Same {'patient' if key == 'patient' else 'file'}: 1." in finding.text

    def test_an_image_that_is_shared_in_several_ways_counts_once(self):
        manifest, images = make_manifest(), make_images()
        test, train, other = find_rows(manifest, "test")[0], *find_rows(manifest, "train")[:2]
        images[[test, other]] = images[train]
        manifest.loc[test, ["patient", "sha256"]] = manifest.loc[train, ["patient", "sha256"]]
        finding = data_checks.judge_copies(manifest, data_checks.find_copies(manifest, images))
        assert finding.value == 1
        assert "Same patient: 1. Same file: 1. Nearly identical image: 1" in finding.text


def test_too_few_patients_are_not_judged():
    manifest, images = make_manifest(48), make_images(48)
    images[is_pneumonia(manifest), :2] = 255
    doubtful = data_checks.find_doubtful_labels(manifest, images)
    assert len(doubtful) == 0
    for finding in (
        data_checks.check_border(manifest, images),
        data_checks.judge_labels(manifest, doubtful),
    ):
        assert np.isnan(finding.value)
        assert finding.verdict is Verdict.NOT_KNOWN
        assert finding.text.startswith("Not known")


def test_labels_that_were_swapped_are_found():
    n = 1200
    manifest, images = make_manifest(n), make_images(n) // 2
    images[is_pneumonia(manifest), 8:24, 8:24] += 100
    doubtful = data_checks.find_doubtful_labels(manifest, images)
    assert data_checks.judge_labels(manifest, doubtful).verdict is Verdict.NO_PROBLEM
    swapped = [30, 31, 100, 201, 500, 700, 800, 900]
    others = {"normal": "pneumonia", "pneumonia": "normal"}
    manifest.loc[swapped, "label"] = manifest.loc[swapped, "label"].map(others)
    doubtful = data_checks.find_doubtful_labels(manifest, images)
    assert {f"train/{i}.jpeg" for i in swapped} >= set(doubtful["id"])
    assert len(doubtful) >= 7
    finding = data_checks.judge_labels(manifest, doubtful)
    assert finding.verdict is Verdict.PROBLEM
    assert finding.value == len(doubtful) / n
