"""Experiments whose true scores are known: predictions of runs on a test set that is drawn anew each time."""

from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from pneumo.evaluation.comparison import Decided

PATIENT_SD, IMAGE_SD, SEPARATION = 0.6, 0.6, 2.0
PATIENT_SIZES = (1, 1, 1, 1, 1, 1, 1, 2, 3, 5)  # images of a patient, over and over


@dataclass(frozen=True)
class Experiment:
    """What an experiment is like; a score is a sum of normal parts.

    Attributes:
        seeds: combo -> how many seeds it has, under each model.
        models: names.
        n_patients: of the test set, three fifths of them with pneumonia.
        separation: how far apart the classes lie on average.
        shifts: (combo, model) -> what is added to the separation.
        seed_sd: by how much the separation differs from seed to seed.
        shared_seed_sd: likewise, but the same for a seed under all combos of a model.
        combo_sd: how much a patient's score differs from combo to combo.
        model_sd: how much a patient's score differs from model to model.
        network_sd: how much an image's score differs from network to network.
    """

    seeds: dict[str, int]
    models: tuple[str, ...] = ("cnn",)
    n_patients: int = 180
    separation: float = SEPARATION
    shifts: dict[tuple[str, str], float] = field(default_factory=dict)
    seed_sd: float = 0.1
    shared_seed_sd: float = 0.0
    combo_sd: float = 0.2
    model_sd: float = 0.2
    network_sd: float = 0.5

    def draw_runs(self, generator):
        """Return runs on a new test set, keyed by combo, model and seed."""
        sizes = np.resize(PATIENT_SIZES, self.n_patients)
        patient = np.repeat(np.arange(self.n_patients), sizes)
        y_true = (patient % 5 < 3).astype(int)
        names = patient.astype(str).astype(object)

        def of_patients(sd):
            return sd * generator.standard_normal(self.n_patients)[patient]

        def of_images(sd):
            return sd * generator.standard_normal(len(patient))

        shared = of_patients(PATIENT_SD) + of_images(IMAGE_SD)
        combo_effects = {combo: of_patients(self.combo_sd) for combo in self.seeds}
        runs = {}
        for model in self.models:
            of_model = of_patients(self.model_sd)
            of_seed = self.shared_seed_sd * generator.standard_normal(max(self.seeds.values()))
            for combo, n_seeds in self.seeds.items():
                for seed in range(n_seeds):
                    separation = self.separation + self.shifts.get((combo, model), 0.0)
                    separation += self.seed_sd * generator.standard_normal() + of_seed[seed]
                    score = shared + combo_effects[combo] + of_model + of_images(self.network_sd)
                    positive = stats.norm.cdf(score + (y_true - 0.5) * separation)
                    runs[combo, model, seed] = Decided(
                        y_true,
                        np.stack([1 - positive, positive], axis=1),
                        (positive >= 0.5).astype(int),
                        names,
                    )
        return runs

    def find_truth(self, combo="", model=""):
        """Return metric -> mean over all patients and seeds."""
        spread = np.sqrt(
            PATIENT_SD**2 + IMAGE_SD**2 + self.combo_sd**2 + self.model_sd**2 + self.network_sd**2
        )
        seed_sd = np.hypot(self.seed_sd, self.shared_seed_sd)
        center = self.separation + self.shifts.get((combo, model), 0.0)
        separations = center + seed_sd * stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
        rate = stats.norm.cdf(separations / 2 / spread).mean()
        area = stats.norm.cdf(separations / (spread * np.sqrt(2))).mean()
        return {"roc_auc": area, "accuracy": rate, "sensitivity": rate, "specificity": rate}
