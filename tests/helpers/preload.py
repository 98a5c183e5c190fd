"""What the server that test_resume forks from loads once; nothing here may use torch's threads."""

from cvhw4.training.process import prepare_process

prepare_process()

import pandas  # noqa: E402, F401
import timm  # noqa: E402, F401
import torchvision.transforms.v2  # noqa: E402, F401

import cvhw4.study  # noqa: E402
import cvhw4.training.fit  # noqa: E402, F401
import tests.helpers.tiny  # noqa: E402, F401
