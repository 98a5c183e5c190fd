"""What the 2019 report states for its rows, and its tables.

Best validation figures of one run each, 0 to 1, with their epochs or wall times where these are stated: accuracies of
its rows Q1-1 to Q1-3 and Q1-8, mIoU and pixel accuracies of Q2-1a, Q2-1b and Q2-3. Those of Q1-5 and Q1-6 are not in
the pages that survive.
"""

from cvhw4 import Published

IMAGES = 400  # validation images behind its accuracies: 200 of each class

PUBLISHED = {
    "q1_1-features": Published({"accuracy": 0.8300}, time="4m15s"),
    "q1_2-finetune": Published({"accuracy": 0.8750}, time="5m24s"),
    "q1_3-scratch": Published({"accuracy": 0.7175}, time="5m26s"),
    "q1_8-recipe": Published({"accuracy": 0.9075}, time="14m12s"),
    "q2_1a-skip": Published({"miou": 0.4295, "pixel_accuracy": 0.8523}, {"miou": 41, "pixel_accuracy": 41}),
    "q2_1b-noskip": Published({"miou": 0.4055, "pixel_accuracy": 0.8384}, {"miou": 20, "pixel_accuracy": 17}),
    "q2_3-3class": Published({"miou": 0.8261, "pixel_accuracy": 0.9629}, {"miou": 20, "pixel_accuracy": 20}),
}

_SCENES = {"miou": "mIoU", "pixel_accuracy": "Pixel accuracy"}
TABLES = {  # as `cvhw4.Style` has them, named for the report's questions
    "q1_4": {
        "rows": {"q1_1": "Feature extractor", "q1_2": "Fine-tuned", "q1_3": "From scratch"},
        "columns": {"accuracy": "Accuracy"},
        "baseline": "q1_3",
        "caption": "One network, three ways to train it.",
    },
    "q2_1": {
        "rows": {"q2_1a": "With skip connections", "q2_1b": "Without"},
        "columns": _SCENES,
        "baseline": "q2_1b",
        "caption": "FCN8s with and without skip connections, 11 classes.",
    },
    "q2_4": {
        "rows": {"q2_1b": "11 classes", "q2_3": "3 classes"},
        "columns": _SCENES,
        "baseline": "q2_1b",
        "caption": "FCN8s without skip connections, on 11 and on 3 classes.",
    },
}
