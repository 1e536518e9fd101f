"""The job of the task document, as a user of the old package would have it: run by tests, under its old import names.

Mended are its two typos: the class that it calls TrainingData, and the mapping that it gives to update_format_kws.
"""

# mypy: disable-error-code="misc, import-not-found"
# The old name is there when the tests run, not when types are checked.

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from bigrays import bigrays_run, tasks


class Line:
    """The model: a straight line."""

    def fit(self, X, y):  # noqa: N803 - as models have it
        self.coefficients = np.polyfit(X["x"].astype(float), y["target"].astype(float), 1)

    def predict(self, X):  # noqa: N803 - as above
        return np.polyval(self.coefficients, X["x"].astype(float))


model = Line()


class PullTrainingData(tasks.SQLQuery):
    query = """
        select *
        from my_training_data
        where date between {train_period_begin} and {train_period_end}
    """


class PullProductionData(tasks.SQLQuery):
    query = """
       select *
       from my_production_data
    """


class MakePredictions(tasks.Task):
    def run(self):
        X = PullTrainingData.output.drop("target", axis=1)  # noqa: N806 - as above
        y = PullTrainingData.output[["target"]]
        model.fit(X, y)
        production_data = PullProductionData.output
        production_data["prediction"] = model.predict(production_data)
        return production_data


class UploadPredictions(tasks.ToS3):
    input = MakePredictions.output
    bucket = "my-bucket/{train_period_begin}-{train_period_end}.csv"
    key = "predictions.csv"


class EmailTeam(tasks.SNSPublishEmail):
    input = "Predictions are upload to s3"
    topic = "s3-email-topic"
    subject = "Predictions are finished"


if __name__ == "__main__":
    tasks.update_format_kws(
        {
            "train_period_begin": (datetime.now() - timedelta(days=60)).strftime("%Y-%m-%d"),
            "train_period_end": datetime.now().strftime("%Y-%m-%d"),
        }
    )
    bigrays_run()
