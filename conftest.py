pytest_plugins = ["cvhw4.plugin", "cvhw4.homework.options"]
