"""Some benchmarks run only where they are asked for by their marker: `-m control`, `-m extra`, `-m speed`, ..."""

PERFORMANCE = {"speed", "peers", "growth"}
LONG = {"control", "extra", *PERFORMANCE}


def pytest_ignore_collect(collection_path, config):
    """Measures of performance are not even imported where nobody asks for them."""
    asked = config.option.markexpr
    return True if collection_path.name == "performance" and not PERFORMANCE & {*asked.split()} else None


def pytest_collection_modifyitems(config, items):
    asked = config.option.markexpr
    left_out = [item for item in items if any(item.get_closest_marker(name) and name not in asked for name in LONG)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
