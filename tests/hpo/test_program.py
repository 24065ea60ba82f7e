import pytest

from hpo.program import command_line


@pytest.mark.parametrize(
    ("called", "program"),
    [
        ("/home/ann/.venv/bin/sgformer-hpo", "sgformer-hpo"),
        ("sgformer-hpo.exe", "sgformer-hpo"),
        ("run_search.py", "python run_search.py"),
        ("/usr/bin/pytest", "python run_search.py"),
    ],
)
def test_a_printed_command_begins_as_the_program_was_called(
    monkeypatch: pytest.MonkeyPatch, called: str, program: str
) -> None:
    monkeypatch.setattr("sys.argv", [called, "status"])
    assert command_line("report", "runs/digits") == f"{program} report runs/digits"


def test_a_printed_command_is_quoted_for_a_shell() -> None:
    assert command_line("report", "my runs").endswith("run_search.py report 'my runs'")
