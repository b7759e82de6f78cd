"""Each chapter's study at its `book` settings, made so small that it runs in seconds: it shows that the code runs."""

import importlib

from memlib.settings import changed

SMALL = {
    "gaussian": {
        "n_points": 5, "n_samples": 100, "n_draws": 400, "train_steps": 10, "n_seeds": 2, "n_labelled": 200,
        "n_extracted": 600, "n_tested": 10, "batch": 16, "width": 8,
    },
    "side": {
        "n_train": 20, "latent": 12, "width": 16, "train_steps": 10, "batch": 16, "n_samples": 100, "n_random": 120,
        "n_synthetic": 100, "clusters": 5, "student_steps": 3, "sweep": [0.0, 4.0, 8.0],
        "networks": 2, "copy_steps": 1, "pairs": 0,  # S8 has a design of its own: tests/test_side_training.py
    },
    "i2i": {
        "train_steps": 2, "unlearn_steps": 2, "judge_steps": 2, "width": 32, "n_seeds": 2, "batch": 4,
        "retain": [0], "forget": [1], "proxy": [2], "diffusion_steps": [2, 2], "second_steps": 2,
        "data": "faces:n=400,identities=3",
    },
    "sgu": {
        "n_train": 120, "data": "faces:pair,alone=70,pair=bangs+eyeglasses,n=1200",
        "beside": "faces:hat,alone=70,pair=bangs+eyeglasses,n=1200",
        "far": "faces:pair,alone=20,pair=bangs+eyeglasses,n=1200", "width": 8, "latent": 8, "train_steps": 10,
        "tune_steps": [2], "batch": 16, "n_levels": 4, "n_samples": 100, "n_likely": 2, "n_fills": 1, "n_seeds": 2,
        "n_side": 2,
        "toy_steps": 10, "toy_seeds": 2,
    },
    "learning_rate": {
        "n_runs": 2, "rates": [1e-5, 1e-4, 1e-2, 0.2], "n_levels": 4, "width": 8, "steps": 64, "batch": 4,
        "edge_steps": 8, "sharpness_at": [1, 2, 3], "dims": [1, 2], "dim_width": 8, "dim_steps": 64,
        "image_rates": [1e-3, 1e-2], "sgd_rates": [0.1], "image_steps": 32, "image_batch": 4, "image_sizes": [2, 3],
        "watched": 3, "testing": 2,
    },
    "synthesis": {
        "others": [], "n_pool": 200, "n_test": 100, "n_reference": 30, "mislabelled": 12, "repeated": 12, "pairs": 4,
        "width": 8, "train_steps": 10, "sampling_steps": 3, "strengths": [1.0], "sizes": [1, 2], "seeds": 3,
        "classifier_width": 8, "classifier_steps": 10, "looks": [0.5, 1.0], "smoothing": [0.2], "jitter": [0.1],
        "shadows": [2, 4], "levels": [0.2, 0.5], "asked": 1, "draws": 1, "rates": [0.01],
        "kernel_draws": 8, "kernel_points": 20, "fresh": 1, "sets": 16, "chain_levels": [2, 4], "chain_points": 50,
        "networks": 2, "network_steps": 5, "gammas": [0.05], "tuned_width": 8, "base_steps": 5, "tuned_steps": 3,
        "adapter_steps": 3, "rank": 1, "guidances": [2.0], "ablation_steps": 3, "attributes": ["smiling"],
        "n_faces": 100, "face_latent": 8,
    },
    "loop": {
        "kinds": ["images", "label"], "n_pool": 120, "n_test": 100, "n_reference": 30, "pairs": 4, "width": 8,
        "train_steps": 10, "batch": 8, "forget": 3, "tune_steps": 2, "n_samples": 50, "sampling_steps": 3,
        "levels": [0.5], "draws": 1, "known": 1, "relearn_steps": 2, "rates": [1e-2], "looks": [5, 10],
        "n_guided": 50, "clusters": 3, "guide_width": 8, "guide_steps": 2, "others": [],
    },
}  # fmt: skip
PAPERS = list(SMALL)


def study_of(paper: str):
    """The study's module and its small settings."""
    study = importlib.import_module(f"memlib.papers.{paper}.study")
    return study, changed(study.SCALES["book"], SMALL[paper])
