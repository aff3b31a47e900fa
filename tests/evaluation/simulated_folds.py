"""Cross-validated experiments whose true scores are known: classifiers trained on folds of drawn images."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, special, stats

from pneumo.base.config import Protocol, Split, Threshold, ThresholdMethod
from pneumo.base.partition import divide_into_folds
from pneumo.evaluation.comparison import Decided
from pneumo.evaluation.thresholds import choose_threshold

PATIENT_SIZES = (1, 1, 1, 1, 1, 1, 1, 2, 3, 5)  # images of a patient, over and over
PATIENT_VARIANCE = 0.5  # of a feature, whose variance is 1 within a class
YOUDEN = Threshold(ThresholdMethod.youden)


@dataclass(frozen=True)
class FoldExperiment:
    """Linear discriminants of features that have normal parts of patients and of images.

    Attributes:
        n_patients: of the data set, three fifths of them with pneumonia.
        n_features: the more, the more a discriminant depends on the images that it was fitted to.
        distance: Mahalanobis distance of the classes before the combos add noise.
        combo_variance: of the noise that each combo adds to each feature, another one a combo.
        n_combos: that do not differ on average.
        n_seeds: of each combo.
        n_folds: of each seed.
        own_folds: each seed draws folds of its own.
        seed_sd: noise of training, as a share of the length of a discriminant's weights.
    """

    n_patients: int = 200
    n_features: int = 10
    distance: float = 2.0
    combo_variance: float = 0.3
    n_combos: int = 2
    n_seeds: int = 3
    n_folds: int = 5
    own_folds: bool = True
    seed_sd: float = 0.3

    def draw_runs(self, generator):
        """Return the runs on a new data set, and their true scores: run -> metric -> mean over its folds."""
        sizes = np.resize(PATIENT_SIZES, self.n_patients)
        patient = np.repeat(np.arange(self.n_patients), sizes)
        y_true = (patient % 5 < 3).astype(int)
        shift = np.full(self.n_features, self.distance / np.sqrt(self.n_features))

        def draw(variance):
            of_patients = generator.standard_normal((self.n_patients, self.n_features))[patient]
            of_images = generator.standard_normal((len(patient), self.n_features))
            shares = PATIENT_VARIANCE * variance, (1 - PATIENT_VARIANCE) * variance
            return np.sqrt(shares[0]) * of_patients + np.sqrt(shares[1]) * of_images

        images = draw(1) + y_true[:, None] * shift
        combos = {f"c{k}": images + draw(self.combo_variance) for k in range(self.n_combos)}
        draw_seed = int(generator.integers(2**31))
        split = Split(0.2, draw_seed, Protocol.folds, self.n_folds)
        labels = np.where(y_true == 1, "pneumonia", "normal")
        runs, truth = {}, {}
        for seed in range(self.n_seeds):
            folds = divide_into_folds(labels, labels, patient, split, seed if self.own_folds else 0)
            for combo, features in combos.items():
                key = combo, "lda", seed
                runs[key], truth[key] = self._cross_validate(
                    features, y_true, patient, folds, shift, generator
                )
        return runs, truth

    def _cross_validate(self, features, y_true, patient, folds, shift, generator):
        score, y_pred, fold_of = np.zeros(len(y_true)), np.zeros(len(y_true), int), np.zeros(len(y_true), int)
        true = []
        for number, parts in enumerate(folds):
            train, val, test = (parts == part for part in ("train", "val", "test"))
            means = [features[train & (y_true == k)].mean(axis=0) for k in (0, 1)]
            centred = features[train] - np.array(means)[y_true[train]]
            covariance = centred.T @ centred / (train.sum() - 2) + 1e-3 * np.eye(self.n_features)
            weights = linalg.solve(covariance, means[1] - means[0], assume_a="pos")
            noise = generator.standard_normal(self.n_features) / np.sqrt(self.n_features)
            weights = weights + self.seed_sd * np.linalg.norm(weights) * noise
            # Folds differ in scale and offset, as networks do.
            scale, offset = np.exp(0.3 * generator.standard_normal()), generator.standard_normal()
            outputs = scale * (features @ weights - weights @ (means[0] + means[1]) / 2) + offset
            threshold = choose_threshold(y_true[val], outputs[val], YOUDEN)
            score[test], y_pred[test], fold_of[test] = outputs[test], outputs[test] >= threshold, number
            cut = (threshold - offset) / scale + weights @ (means[0] + means[1]) / 2
            sd = np.sqrt(1 + self.combo_variance) * np.linalg.norm(weights)
            found, cleared = stats.norm.sf((cut - weights @ shift) / sd), stats.norm.cdf(cut / sd)
            true.append([stats.norm.cdf(weights @ shift / sd / np.sqrt(2)), found, cleared])
        positive = special.expit(score)
        area, found, cleared = np.mean(true, axis=0)
        decided = Decided(
            y_true,
            np.stack([1 - positive, positive], axis=1),
            y_pred,
            patient.astype(str).astype(object),
            fold_of,
        )
        share = y_true.mean()
        accuracy = share * found + (1 - share) * cleared
        return decided, {"roc_auc": area, "accuracy": accuracy, "sensitivity": found, "specificity": cleared}
