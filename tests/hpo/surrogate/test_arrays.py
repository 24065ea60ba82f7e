from threadpoolctl import threadpool_info

from hpo.surrogate.arrays import on_one_thread


def test_matrices_are_computed_by_one_thread() -> None:
    threads = on_one_thread(threadpool_info)()
    assert {pool["num_threads"] for pool in threads if pool["user_api"] == "blas"} == {1}
