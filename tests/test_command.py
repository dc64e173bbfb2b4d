import pytest

from consensus_lib.__main__ import COMMANDS, main


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


@pytest.mark.parametrize("wrong", [[], ["prase"]])
def test_another_command_is_refused_with_the_list(wrong, capsys):
    assert main(wrong) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert f"consensus_lib {name}" in capsys.readouterr().out
