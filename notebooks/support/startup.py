"""What each kernel of `make lab` runs first: a cell run before the set-up cells says which ones to run."""


def _explain(shell, kind, error, trace, tb_offset=None):
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    if "lesson" not in shell.user_ns:  # the cell that every notebook begins with has not run
        print(
            f"{error.name} is not known yet: run the cells above first (Run → Run All Above Selected Cell)."
        )


get_ipython().set_custom_exc((NameError,), _explain)  # noqa: F821 - a kernel's own
del _explain
