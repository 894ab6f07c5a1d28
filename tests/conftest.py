"""What every test shares: strict JAX on two CPU devices, the three cells, and the two libraries."""

import contextlib
import gc
import hashlib
import itertools
import os

import hypothesis
import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from reference import CELLS, LIBRARIES

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

hypothesis.settings.register_profile("lstmx", deadline=None, max_examples=25, derandomize=True, database=None)
hypothesis.settings.load_profile("lstmx")

collect_ignore = ["numpy_alone.py"]  # runs where JAX is absent; see its docstring


def pytest_configure():
    """One thread for NumPy's products; and XLA compiles quickly rather than well, unless XLA_FLAGS says how.

    With XLA_FLAGS set to nothing tests run the programs that users run, which takes three times as long.
    """
    gc.set_threshold(100_000, 50, 100)  # what JAX traces lives on: look through it seldom
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of a worker, which has one core
    if "XLA_FLAGS" not in os.environ:
        quick = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
        if jax.__version_info__ < (0, 11):  # 0.12 has no such flag, and aborts at one that it does not know
            quick += " --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] = quick


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test marked `sample(n)` the quick run takes n of the parameters; the others are slow tests.

    The n are the first in the order of the hashes of their names: always the same, and of every kind.
    """
    functions = {}
    for item in items:
        if item.get_closest_marker("sample") and not item.get_closest_marker("slow"):
            functions.setdefault((item.path, item.originalname), []).append(item)
    for cases in functions.values():
        kept = cases[0].get_closest_marker("sample").args[0]
        for item in sorted(cases, key=lambda item: hashlib.sha256(item.name.encode()).digest())[kept:]:
            item.add_marker("slow")


AS_A_USER_FINDS_JAX = {"test_readme", "test_models_keras"}
FINISHED = itertools.count(1)
PROMOTED_BY_OPTAX = {
    "test_arguments",
    "test_training",
    "test_comparison",
    "test_observatory",
    "test_observatory_disk",
    "test_cli",
}  # its Adam adds a Python float to an integer count


@pytest.fixture(autouse=True, scope="module")
def _jax_as_the_module_needs_it(request):
    with contextlib.ExitStack() as stack:
        if request.path.stem in AS_A_USER_FINDS_JAX:
            stack.enter_context(jax.enable_x64(False))
        if request.path.stem in AS_A_USER_FINDS_JAX | PROMOTED_BY_OPTAX:
            stack.enter_context(jax.numpy_dtype_promotion("standard"))
        yield
    jax.clear_caches()  # or the programs compiled for all modules fill gigabytes


@pytest.fixture(autouse=True)
def _programs_are_few():
    """Linux gives a process 65,530 mappings, of which XLA takes some for each program, and dies without."""
    yield
    if next(FINISHED) % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def _pyplot_is_left_alone():
    """Neither pyplot's figures nor matplotlib's settings are touched: for `usefixtures` of the figures' tests."""
    before = dict(mpl.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


@pytest.fixture(params=CELLS, ids=lambda kind: kind.__name__)
def kind(request):
    """A class of cells."""
    return request.param


@pytest.fixture(params=LIBRARIES)
def library(request):
    """The library that the parameters belong to, as the name that `reference.to` takes."""
    return request.param
