"""Inception discriminative scores (Zhao et al. 2021, CoModGAN), as MAT's script computes them."""

from typing import NamedTuple

import numpy as np

from moebius.evaluation.optional import import_optional


class DiscriminativeScores(NamedTuple):
    """In per cent, higher is better: how often a linear classifier is fooled."""

    p_ids: float
    """Pairs whose result looks more real than its own truth."""
    u_ids: float
    """Pictures that the classifier, fitted to all of them, gets wrong; 50 at best."""


def discriminative_scores(real: np.ndarray, fake: np.ndarray) -> DiscriminativeScores:
    """Fits a linear SVM to raw features, with neither scaling nor a held-out part.

    Args:
        real: (N, D) F-A features of the truth.
        fake: (N, D) of the results, in the same order.

    Raises:
        ValueError: if they are not pairs, or if scikit-learn is missing.
    """
    if real.shape != fake.shape or len(real) == 0:
        raise ValueError(
            f"P-IDS and U-IDS compare pairs: {len(real)} real pictures, {len(fake)} results"
        )
    svm = import_optional("sklearn.svm").LinearSVC(dual=False)
    features = np.concatenate([real, fake])
    labels = np.repeat([1, 0], len(real))
    svm.fit(features, labels)
    fooled = svm.decision_function(fake) > svm.decision_function(real)
    return DiscriminativeScores(
        p_ids=100 * float(fooled.mean()), u_ids=100 * (1 - float(svm.score(features, labels)))
    )
