"""The cache of decoded arrays: nothing damaged is ever used, nothing unwritable stops a run."""

import hashlib
import json
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest

from cvhw4.data import cache
from cvhw4.data.cache import Arrays, cache_root, cached, digest, file_digests, fingerprint, in_order, new_folder
from cvhw4.data.dataset import Split, blocks, forget, mapping
from cvhw4.errors import InputError


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path):
    """Points the cache into the test's own folder."""
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Build:
    """Makes an entry's arrays and counts how often it had to."""

    calls = 0

    def __call__(self, folder=None):
        self.calls += 1
        return Arrays({"a": np.arange(2000, dtype=np.uint8), "b": np.eye(3)}, {"names": ("x", "ü \udcff")})


def _check(found):
    np.testing.assert_array_equal(found.arrays["a"], np.arange(2000, dtype=np.uint8))
    np.testing.assert_array_equal(found.arrays["b"], np.eye(3))
    assert found.arrays.keys() == {"a", "b"}
    assert found.texts == {"names": ("x", "ü \udcff")}
    with pytest.raises(ValueError, match="read-only"):
        found.arrays["a"][0] = 1


@pytest.mark.filterwarnings("error")
def test_builds_once_and_maps_afterwards(root):
    build = Build()
    for _ in range(3):
        found = cached("key", build)
        _check(found)
        assert isinstance(found.arrays["a"], np.memmap)
    assert build.calls == 1
    assert [path.name for path in root.iterdir()] == ["key"]
    assert cached("other", build) is not None and build.calls == 2


def test_a_failing_build_stores_nothing(root):
    def build(folder):
        raise InputError("x.png", "is bad", "replace it")

    with pytest.raises(InputError):
        cached("key", build)
    assert not root.exists()


def _flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


FILES = ("a.npy", "b.npy", "texts.json", "checksums.json")
DAMAGES = [lambda c: c[:-1], lambda c: _flip(c, len(c) // 2), lambda c: b""]
NONSENSE = (b"[]", b"3", b'{"a.npy": "x"}', b'{"../x": 1}', b"{", b'{"a.npy": null}')


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in FILES for damage in DAMAGES),
        *((name, None) for name in FILES),  # it is not there
        *(("checksums.json", lambda _, text=text: text) for text in NONSENSE),
    ],
)
def test_a_damaged_entry_is_built_anew(root, name, damage):
    build = Build()
    cached("key", build)
    path = root / "key" / name
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    _check(cached("key", build))
    _check(cached("key", build))
    assert build.calls == 2
    assert [path.name for path in root.iterdir()] == ["key"]
    listed = json.loads((root / "key" / "checksums.json").read_text())
    assert listed.keys() | {"checksums.json"} == {*FILES}


@pytest.mark.parametrize(
    ("damage", "calls"),
    [
        (lambda c: _flip(c, len(c) - 1), 2),
        (lambda c: _flip(c, len(c) // 2), 2),  # the third of five blocks
        (lambda c: c[:1000] + c[1001:], 2),
        (lambda c: c + b"\0", 2),
        (lambda c: _flip(c, 300), 1),  # in no block: trusted
    ],
)
def test_of_a_large_file_a_sample_is_checked(root, monkeypatch, damage, calls):
    for name, value in {"_WHOLE": 1000, "_BLOCK": 20, "_SAMPLES": 5}.items():
        monkeypatch.setattr(cache, name, value)
    build, path = Build(), root / "key" / "a.npy"
    cached("key", build)
    path.write_bytes(damage(path.read_bytes()))
    found = cached("key", build)
    assert build.calls == calls and (found.arrays["a"][300 - 128] == 300 - 128) == (calls == 2)


def test_an_empty_folder_or_leftover_is_no_entry(root):
    (root / "key").mkdir(parents=True)
    (root / ".key.1234.tmp").mkdir()
    (root / ".key.1234.tmp" / "a.npy").write_bytes(b"half")
    _check(cached("key", Build()))
    assert (root / "key" / "a.npy").exists()


def test_mapped_arrays_outlive_a_rebuild(root):
    first = cached("key", Build())
    (root / "key" / "b.npy").write_bytes(b"")
    cached("key", Build())
    assert first.arrays["a"][7] == 7


def test_an_unwritable_root_or_a_full_disk_keeps_arrays_in_memory(root, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", no_space)
        with pytest.warns(UserWarning, match="No space left"):
            _check(cached("key", Build()))
    assert not root.exists()
    root.write_text("a file where the folder should be")
    build = Build()
    with pytest.warns(UserWarning, match="CVHW4_CACHE"):
        _check(cached("key", build))
    assert build.calls == 1 and root.read_text() == "a file where the folder should be"


def test_another_process_finishes_first(root, monkeypatch):
    """On a file system without locks."""
    monkeypatch.setattr(cache, "_alone", lambda entry: nullcontext())

    def build(folder):
        _check(cached("key", Build()))
        (root / "key" / "mark").touch()
        return Build()()

    _check(cached("key", build))
    assert (root / "key" / "mark").exists()
    assert [path.name for path in root.iterdir()] == ["key"]


_CHILD = """
import numpy as np
from cvhw4.data.cache import Arrays, cached
for number in range(10):
    built = Arrays({"a": np.full(5000, number % 256, np.uint8)}, {"n": (str(number),)})
    found = cached(f"key{number}", lambda folder: print(number) or built)
    assert (found.arrays["a"] == number % 256).all() and found.texts["n"] == (str(number),)
"""


def test_processes_at_once(root):
    command = [sys.executable, "-W", "error", "-c", _CHILD]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    built = []
    for child in children:
        output, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        built += output.split()
    assert sorted(map(int, built)) == list(range(10))  # the others waited
    assert sorted(path.name for path in root.iterdir()) == sorted(f"key{number}" for number in range(10))


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CVHW4_CACHE", "~/mine")
    assert cache_root() == tmp_path / "mine"
    monkeypatch.setenv("CVHW4_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "cvhw4"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / ".cache" / "cvhw4"


def test_digests_tell_content_names_and_parameters_apart_and_are_what_the_shell_says(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "sub/a.txt"):
        (tmp_path / name).write_text(name)
    files = file_digests(tmp_path, ["sub/a.txt", "b.txt"])
    shell = "sha256sum b.txt sub/a.txt | sha256sum"
    printed = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == digest(files) == digest(dict(reversed(files.items())))
    others = digest(files, size=1), digest(files, size=2), digest({"b.txt": files["sub/a.txt"]}), digest({})
    assert len({digest(files), *others}) == 5
    assert len({digest({"a": "1", "b": "2"}), digest({"a": "2", "b": "1"}), digest({"\udcff": "1"})}) == 3
    key = cache.cache_key("x", files)
    monkeypatch.setattr(cache.PIL, "__version__", "0")  # which may decode otherwise
    assert cache.cache_key("x", files) != key


def test_a_fingerprint_is_that_of_the_whole_arrays(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 20, 3), np.uint8)
    sizes, targets = np.full((7, 2), 16, np.int32), np.arange(7, dtype=np.uint8)
    sha = hashlib.sha256()
    for array in (images, sizes, targets):
        sha.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    turned = np.asfortranarray(images)
    for size in (1, 2000, 64 << 20):
        monkeypatch.setattr(cache, "blocks", lambda array, size=size: blocks(array, size))
        for form in (images, mapped, turned):
            assert fingerprint(Split(form, sizes, targets, ("",) * 7)) == sha.hexdigest()


def test_forgetting_loses_nothing(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1 << 20))
    for mode in ("r", "c", "r+"):
        mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
        assert mapping(mapped) is mapping(mapped[5:9]) is not None
        expected = mapped.copy()
        if mode != "r":
            mapped[::1000] = expected[::1000] = -1
        for part in (mapped, mapped[1000:2000], mapped[:0], mapped[-1:]):
            forget(part)
            np.testing.assert_array_equal(mapped, expected)
    forget(np.arange(3))
    assert mapping(np.arange(3)) is None


def test_threads_keep_order_and_end_at_the_first_failure():
    def work(number):
        time.sleep(0.001 * (number * 7 % 5))
        started.add(number)
        if number in (20, 21):
            raise ValueError(number)
        return number * number

    started = set()
    assert list(in_order(work, 20)) == [number * number for number in range(20)]
    assert list(in_order(work, 0)) == []
    with pytest.raises(ValueError, match="20"):
        list(in_order(work, 1000))
    assert max(started) < 40


def test_a_new_folder_is_whole_or_absent(tmp_path):
    target = tmp_path / "deep" / "er" / "target"
    with pytest.raises(KeyboardInterrupt), new_folder(target) as folder:
        (folder / "file").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(target) as folder:
        (folder / "file").touch()
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with pytest.raises(OSError), new_folder(target) as folder:
        (folder / "other").touch()
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_the_readers_never_load_torch():
    code = "import sys, cvhw4.data.fetch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
