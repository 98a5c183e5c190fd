"""Long tests run only where they are asked for: `-m long`."""


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if item.get_closest_marker("long") and "long" not in config.option.markexpr]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
