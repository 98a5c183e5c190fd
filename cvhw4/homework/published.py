"""What the 2019 report states for its rows: best validation figures, their epochs, and wall times."""

from cvhw4 import Published

IMAGES = 400  # validation images behind its accuracies

PUBLISHED = {
    "q1_1-features": Published({"accuracy": 0.8300}, time="4m15s"),
    "q1_2-finetune": Published({"accuracy": 0.8750}, time="5m24s"),
    "q1_3-scratch": Published({"accuracy": 0.7175}, time="5m26s"),
    "q1_8-recipe": Published({"accuracy": 0.9075}, time="14m12s"),
    "q2_1a-skip": Published({"miou": 0.4295, "pixel_accuracy": 0.8523}, {"miou": 41, "pixel_accuracy": 41}),
    "q2_1b-noskip": Published({"miou": 0.4055, "pixel_accuracy": 0.8384}, {"miou": 20, "pixel_accuracy": 17}),
    "q2_3-3class": Published({"miou": 0.8261, "pixel_accuracy": 0.9629}, {"miou": 20, "pixel_accuracy": 20}),
}
