"""The reporting checklist: what two guidelines ask, in short words, and where the report answers.

Sources: CLAIM 2024 (Tejani et al., doi:10.1148/ryai.240300), TRIPOD+AI (Collins et al. 2024,
doi:10.1136/bmj-2023-078378).
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Number, what is asked for, and the name of the answer in `fill_checklist`; "" is for the authors to fill in.
_CLAIM = (
    ("1", "the technique, named in title or abstract", ""),
    ("2", "a structured abstract", ""),
    ("3", "background, intended use and role in the clinic", "use"),
    ("4", "aims and hypotheses", "question"),
    ("5", "prospective or retrospective data", ""),
    ("6", "the goal of the study", "question"),
    ("7", "where the data come from", "data"),
    ("8", "who was included and excluded", "set_aside"),
    ("9", "preprocessing of the data", "steps"),
    ("10", "which parts of the data were used, and why", "split"),
    ("11", "how data were de-identified", ""),
    ("12", "how missing data were handled", "set_aside"),
    ("13", "how images were acquired", ""),
    ("14", "how the reference standard was obtained", ""),
    ("15", "why this reference standard", ""),
    ("16", "who annotated, with what training", ""),
    ("17", "how the test set was annotated", ""),
    ("18", "agreement between and within annotators", ""),
    ("19", "how data were assigned to partitions", "split"),
    ("20", "at which level partitions are disjoint", "disjoint"),
    ("21", "the intended sample size and its reason", "power"),
    ("22", "the model in detail", "recipe"),
    ("23", "software with versions", "software"),
    ("24", "how parameters were initialised", "recipe"),
    ("25", "training: augmentation, hyperparameters, number of models", "recipe"),
    ("26", "how the final model was chosen", "choice"),
    ("27", "ensembles", "ensemble"),
    ("28", "which metrics, and why", "metrics"),
    ("29", "significance and uncertainty", "uncertainty"),
    ("30", "robustness or sensitivity analysis", "robustness"),
    ("31", "explainability, and how it was checked", "explain"),
    ("32", "evaluation on internal data", "validation"),
    ("33", "testing on external data", "external"),
    ("34", "registration of a trial", ""),
    ("35", "numbers included and excluded, as a flow", "counts"),
    ("36", "demographic and clinical characteristics by partition", "counts_only"),
    ("37", "performance on all partitions, with uncertainty", "results"),
    ("38", "diagnostic performance with its precision", "results"),
    ("39", "analysis of wrong results", "failures"),
    ("40", "limits, bias and generalisability", "limits"),
    ("41", "what it means for practice", ""),
    ("42", "where the full protocol is", "protocol"),
    ("43", "where software, model and data are", "availability"),
    ("44", "funding and its role", ""),
)
_TRIPOD = (
    ("1", "a title that names model, population and outcome", ""),
    ("2", "a structured abstract", ""),
    ("3a", "the clinical context and earlier models", ""),
    ("3b", "the target population, place in care and users", "use"),
    ("3c", "known inequalities between groups", ""),
    ("4", "objectives, development or evaluation", "question"),
    ("5a", "sources of data and how representative they are", "data"),
    ("5b", "dates of data collection", ""),
    ("6a", "setting, number and place of centres", ""),
    ("6b", "eligibility of participants", "set_aside"),
    ("6c", "treatments received", ""),
    ("7", "preparation and quality checks of data", "checks"),
    ("8a", "the outcome and how it was assessed", ""),
    ("8b", "who assessed the outcome, if it takes judgement", ""),
    ("8c", "blinding of the assessment of the outcome", ""),
    ("9a", "choice of predictors", "pixels"),
    ("9b", "definition of predictors and their measurement", "steps"),
    ("9c", "who assessed predictors, if it takes judgement", "pixels"),
    ("10", "sample size and its reason", "power"),
    ("11", "missing data", "set_aside"),
    ("12a", "how data were used and divided", "split"),
    ("12b", "transformation of predictors", "steps"),
    ("12c", "type of model, steps of building it, tuning, internal validation", "recipe"),
    ("12d", "differences between centres or other clusters", ""),
    ("12e", "measures and plots of performance, and of comparisons", "metrics"),
    ("12f", "updating of the model", "updating"),
    ("12g", "how predictions were computed for evaluation", "software"),
    ("13", "handling of class imbalance", "recipe"),
    ("14", "approach to fairness", ""),
    ("15", "the output of the model and its thresholds", "threshold"),
    ("16", "differences between development and evaluation data", "shift"),
    ("17", "ethical approval and consent", ""),
    ("18a", "funding", ""),
    ("18b", "conflicts of interest", ""),
    ("18c", "protocol", "protocol"),
    ("18d", "registration", ""),
    ("18e", "availability of data", "availability"),
    ("18f", "availability of code", "availability"),
    ("19", "involvement of patients and the public", ""),
    ("20a", "flow of participants", "counts"),
    ("20b", "characteristics of participants, overall and by setting", "counts_only"),
    ("20c", "development and evaluation data compared", "shift"),
    ("21", "participants and events in each analysis", "counts"),
    ("22", "the model, so that others can use it", "export"),
    ("23a", "performance with intervals, in subgroups too", "results"),
    ("23b", "performance by cluster", ""),
    ("24", "results of updating", "updating"),
    ("25", "interpretation, fairness included", ""),
    ("26", "limits: sample, missing data, overfitting", "limits"),
    ("27a", "how poor or missing input is handled in use", "input"),
    ("27b", "interaction and expertise that users need", ""),
    ("27c", "next steps, and applicability elsewhere", ""),
)


@dataclass(frozen=True)
class Item:
    """One item of a guideline.

    Attributes:
        number: in the guideline.
        asks: what it asks for.
        answer: where the report answers; empty where the authors have to.
    """

    number: str
    asks: str
    answer: str


@dataclass(frozen=True)
class Facts:
    """What answers depend on.

    Attributes:
        knows_patients: whether the patient of every image is known.
        is_judged: whether the spread over seeds is known, so that there are verdicts.
        has_threshold: whether decisions are made at a threshold.
        has_external: whether there is a further test set.
        has_stress: whether the best model was tried on changed images.
        has_probes: whether models were asked with parts of images removed.
        has_galleries: whether pictures of what models look at are shown.
        is_synthetic: whether the images are drawn.
        test_seen: about the recipe and test scores, in a sentence.
    """

    knows_patients: bool
    is_judged: bool
    has_threshold: bool
    has_external: bool
    has_stress: bool
    has_probes: bool
    has_galleries: bool
    is_synthetic: bool
    test_seen: str


def fill_checklist(facts: Facts) -> dict[str, list[Item]]:
    """Return the items of each guideline with what this report answers."""
    answers = _answer(facts)
    return {
        name: [Item(number, asks, answers[key] if key else "") for number, asks, key in items]
        for name, items in (("CLAIM 2024", _CLAIM), ("TRIPOD+AI", _TRIPOD))
    }


def _answer(facts: Facts) -> Mapping[str, str]:
    data = "Report, Data and audit"
    return {
        "use": "In part: model card, Use. The clinical background is yours",
        "question": "Report, Answer: one question, the same in every experiment",
        "data": f"In part: {data}"
        + (" (synthetic images)" if facts.is_synthetic else ", the data set's title"),
        "set_aside": f"In part: {data} (files set aside). Criteria of the data set itself are yours",
        "steps": "Report, Answer (steps of each combination) and Provenance (params.yaml)",
        "split": f"{data}; `split` in params.yaml",
        "disjoint": f"{data}: by patient and file content"
        if facts.knows_patients
        else f"{data}: by file content only, as patients are not known",
        "power": "In part: Report, All tables, Every two combinations (smallest difference to be found)"
        if facts.is_judged
        else "",
        "recipe": "`conf/model/<recipe>.yaml`, and `recipe` in run.json of each run",
        "software": "Report, Provenance",
        "choice": f"Report, Best model: by validation. {facts.test_seen}",
        "ensemble": "None is used",
        "metrics": "Report, Best model, Decisions and All tables",
        "uncertainty": "Report, Answer: intervals over patients and seeds, families corrected after Holm"
        if facts.is_judged
        else "In part: Report, Answer: intervals over patients only, so there is no verdict",
        "robustness": "Report, Against it (changed images)" if facts.has_stress else "",
        "explain": "Report, Where models look"
        + (", with a check against shuffled weights" if facts.has_probes else "")
        if facts.has_probes or facts.has_galleries
        else "",
        "validation": "Report, Best model and All tables (validation)",
        "external": "Report, Best model (images from elsewhere)"
        if facts.has_external
        else "None: no further test set was given",
        "counts": f"{data} (images and patients by split)",
        "counts_only": f"In part: {data} (images and patients by split). Age, sex and findings are yours",
        "results": "Report, Best model; leaderboard.csv",
        "failures": "In part: Report, Where models look (wrong decisions)" if facts.has_galleries else "",
        "limits": "In part: Report, Against it; model card, Limits",
        "protocol": "In part: params.yaml and dvc.yaml say what was run. A protocol written before is yours",
        "availability": "In part: this repository; `pneumo export`. Where you publish them is yours",
        "checks": f"{data} (audit)",
        "pixels": "The pixels of the image alone; no reader is involved",
        "updating": "Not done",
        "threshold": "Report, Decisions; model card"
        if facts.has_threshold
        else "Report, Best model: probabilities; the most probable class is the decision",
        "shift": f"{data}: can images of the test set be told from those of the training set?",
        "export": "`pneumo export` and `pneumo predict`; model card, Use",
        "input": "In part: unreadable files are refused with a reason; other kinds of images are not noticed",
    }
