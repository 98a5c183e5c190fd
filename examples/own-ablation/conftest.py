pytest_plugins = ["cvhw4.pytest_plugin"]
