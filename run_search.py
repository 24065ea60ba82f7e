"""The command line: `python run_search.py COMMAND`; `--help` lists the commands."""

from hpo.cli import main

if __name__ == "__main__":
    main()
