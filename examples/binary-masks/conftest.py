pytest_plugins = ["cvhw4.plugin"]
