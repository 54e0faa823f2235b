import pytest


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text("".join(f"number {n} is w{n % 26}\n" for n in range(300)))
    return str(path)
